"""Train fastMRI's U-Net on a fastMRI folder, on today's Lightning, with any loss.

    python fastmri_examples/unet/train.py --challenge singlecoil --data_path DATA --loss l1=1 dssim=0.1

The flags of data, trainer and loss are those of modl_ufloss/train.py, those of the model fastMRI's own. Without
--loss it is fastMRI's own run. With ufloss and without --feature_net the feature network is trained first, on the
root-sum-of-squares or single-coil images of the training split. The same command again goes on from the last
checkpoint. --mode test writes reconstructions/*.h5.
"""

import sys
from pathlib import Path

import fastmri.pl_modules

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import host_recipe

from fastmri_ufloss.pl_modules import UnetModule

HOSTS = (fastmri.pl_modules.UnetModule, UnetModule)
RECIPE = host_recipe.Recipe(
    name="unet",
    module=UnetModule,
    model_args=host_recipe.model_args(*HOSTS),
    network="unet",
    samples="unet",
    default_loss="fastMRI's L1 of normalised images",
    # what trains in minutes on two cores
    demo={
        "chans": 16,
        "max_epochs": 10,
        "num_workers": 2,
        "stride": 10,
        "patch_size": 40,
        "patches_per_slice": 40,
        "pretrain_batch_size": 32,
        "pretrain_max_epochs": 5,
    },
)


def main() -> None:
    args = host_recipe.make_arguments(RECIPE, str(__doc__), *HOSTS).parse_args()
    host_recipe.main(RECIPE, args)


if __name__ == "__main__":
    cli.run(main)
