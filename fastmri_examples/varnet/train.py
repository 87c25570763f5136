"""Train fastMRI's VarNet on a fastMRI folder, on today's Lightning, with any loss.

    python fastmri_examples/varnet/train.py --challenge multicoil --data_path DATA --loss ssim=1 ufloss=0.1

The flags of data, trainer and loss are those of modl_ufloss/train.py, those of the model fastMRI's own. Without
--loss it is fastMRI's own run. With ufloss and without --feature_net the feature network is trained first, on the
root-sum-of-squares images of the training split. The same command again goes on from the last checkpoint.
--mode test writes reconstructions/*.h5.
"""

import sys
from pathlib import Path

import fastmri.pl_modules

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import host_recipe

from fastmri_ufloss.pl_modules import VarNetModule

RECIPE = host_recipe.Recipe(
    name="varnet",
    module=VarNetModule,
    model_args=host_recipe.model_args(fastmri.pl_modules.VarNetModule),
    network="varnet",
    samples="varnet",
    default_loss="fastMRI's SSIM",
    # what trains in minutes on two cores
    demo={
        "num_cascades": 3,
        "chans": 8,
        "sens_chans": 4,
        "max_epochs": 3,
        "lr": 1e-3,
        "num_workers": 2,
        "stride": 10,
        "patch_size": 40,
        "patches_per_slice": 40,
        "pretrain_batch_size": 32,
        "pretrain_max_epochs": 5,
    },
)


def main() -> None:
    args = host_recipe.make_arguments(RECIPE, str(__doc__), fastmri.pl_modules.VarNetModule).parse_args()
    if args.challenge != "multicoil":
        raise ValueError(f"VarNet is for --challenge multicoil, got {args.challenge}: unet/train.py takes both")
    host_recipe.main(RECIPE, args)


if __name__ == "__main__":
    cli.run(main)
