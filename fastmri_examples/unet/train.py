"""Train fastMRI's U-Net on a fastMRI folder, on today's Lightning, with any loss.

    python fastmri_examples/unet/train.py --challenge singlecoil --data_path DATA --loss l1=1 dssim=0.1

Flags of data, trainer and loss are those of modl_ufloss/train.py, those of the model fastMRI's own; without --loss it
is fastMRI's own run. The feature network of ufloss is the one that ships; --feature_net takes another.
The same command again goes on from the last checkpoint. --mode test writes reconstructions/*.h5.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.pl_modules import UnetModule

NAME = "unet"
# what trains in minutes on two cores
DEMO = {**recipe.DEMO, "chans": 16, "max_epochs": 10}


def main() -> None:
    parser = recipe.make_training_parser(__doc__, run_name=NAME, max_epochs=50)
    recipe.add_loss_args(parser, default=None, words="fastMRI's L1 of normalized images")
    recipe.add_unet_args(parser.add_argument_group("model"))
    recipe.add_mode_args(parser, default="the run's best", has_init_checkpoint=True)
    args = recipe.parse(parser, DEMO, partial(recipe.settings_of_init_checkpoint, kind=UnetModule))
    recipe.train_and_test(parser, args, recipe.run_folder(args, NAME), kind=UnetModule, names=recipe.UNET_ARGS)


if __name__ == "__main__":
    recipe.run(main)
