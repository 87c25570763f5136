"""Train RecNet, the first stage of adversarial refinement, on a fastMRI folder, and test it.

    python fastmri_examples/adversarial_refinement/train_recnet.py --challenge singlecoil --data_path DATA

RecNet has blocks of convolutions with data consistency between them and is trained with l2 of complex images; the
paper's mask is --mask_type gaussian_1d --center_fractions 0.03 --accelerations 8. --data_consistency is cg for many
coils, the paper's replacement of samples for one. Without --data_path it uses a generated demo data set. The same
command again goes on from the last checkpoint. --mode test writes reconstructions/*.h5 for fastMRI's evaluation.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.models import RecNet
from fastmri_ufloss.pl_modules import RecNetModule

NAME = "recnet"
# what trains in minutes on two cores
DEMO = {"lr": 1e-3, "max_epochs": 12, "num_workers": 2, "stride": 10, "score_stride": 10}
MODULE_ARGS = recipe.arguments_of(RecNetModule, skip=("loss", "score_feature_net"))


def main() -> None:
    parser = recipe.make_training_parser(__doc__, run_name=NAME, max_epochs=1500)
    recipe.add_loss_args(parser, default=["l2"], metrics=recipe.MAGNITUDE_METRICS)
    recipe.add_feature_network_args(parser)
    recipe.add_rows_args(parser)
    recipe.add_arguments(parser.add_argument_group("model"), RecNetModule, MODULE_ARGS, more_words=(RecNet,))
    recipe.add_mode_args(parser, default="the run's best", has_score=True)
    several_coils = {"data_consistency": "cg"}
    args = recipe.parse(parser, DEMO, lambda args: several_coils if args.challenge == "multicoil" else {})
    recipe.train_and_test(parser, args, recipe.run_folder(args, NAME), kind=RecNetModule, names=MODULE_ARGS)


if __name__ == "__main__":
    recipe.run(main)
