"""Train RecNet, the first stage of adversarial refinement, on a fastMRI folder, and test it.

    python fastmri_examples/adversarial_refinement/train_recnet.py --challenge singlecoil --data_path DATA

Blocks of convolutions with data consistency between them, trained with the mean squared error of complex images; the
mask of the paper is --mask_type gaussian_1d --center_fractions 0.03 --accelerations 8. Without --data_path it uses a
generated demo data set. Several coils get --data_consistency cg, one coil the paper's replacement of samples. The
same command again goes on from the last checkpoint. --mode test writes reconstructions/*.h5 for fastMRI's evaluation.
train_refinement.py takes the checkpoint.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import sense_recipe

from fastmri_ufloss.models import RecNet
from fastmri_ufloss.pl_modules import RecNetModule, load_recnet_module

RECIPE = sense_recipe.SenseRecipe(
    name="recnet",
    module=RecNetModule,
    load=load_recnet_module,
    model=RecNet,
    network="recnet",
    model_args=("num_blocks", "convs_per_block", "chans", "data_consistency", "num_cg_iterations", "lam"),
    module_args=("lr", "num_log_images", "score_stride"),
    loss=("l2",),
    max_epochs=1500,
    # what trains in minutes on two cores
    demo={"lr": 1e-3, "max_epochs": 12, "num_workers": 2, "stride": 10, "score_stride": 10},
    rates=("lr",),
)


def main() -> None:
    args = sense_recipe.make_arguments(RECIPE, str(__doc__)).parse_args()
    if args.challenge == "multicoil":
        vars(args).setdefault("data_consistency", "cg")
    sense_recipe.main(RECIPE, args)


if __name__ == "__main__":
    cli.run(main)
