"""Train fastMRI's VarNet on a fastMRI folder, on today's Lightning, with any loss.

    python fastmri_examples/varnet/train.py --challenge multicoil --data_path DATA --loss ssim=1 ufloss=auto

Flags of data, trainer and loss are those of modl_ufloss/train.py, those of the model fastMRI's own; without --loss it
is fastMRI's own run. The feature network of ufloss is the one that ships; --feature_net takes another.
The same command again goes on from the last checkpoint. --mode test writes reconstructions/*.h5.
"""

import sys
from functools import partial
from pathlib import Path

import fastmri.pl_modules

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.pl_modules import VarNetModule

NAME = "varnet"
# what trains in minutes on two cores
DEMO = {**recipe.DEMO, "num_cascades": 3, "chans": 8, "sens_chans": 4, "max_epochs": 3, "lr": 1e-3}
MODULE_ARGS = recipe.arguments_of(fastmri.pl_modules.VarNetModule)


def main() -> None:
    parser = recipe.make_training_parser(__doc__, run_name=NAME, max_epochs=50)
    recipe.add_loss_args(parser, default=None, words="fastMRI's SSIM")
    recipe.add_arguments(parser.add_argument_group("model"), fastmri.pl_modules.VarNetModule, MODULE_ARGS)
    recipe.add_mode_args(parser, default="the run's best", has_init_checkpoint=True)
    args = recipe.parse(parser, DEMO, partial(recipe.settings_of_init_checkpoint, kind=VarNetModule))
    if args.challenge != "multicoil":
        raise ValueError(f"VarNet is for --challenge multicoil, got {args.challenge}: unet/train.py takes both")
    recipe.train_and_test(parser, args, recipe.run_folder(args, NAME), kind=VarNetModule, names=MODULE_ARGS)


if __name__ == "__main__":
    recipe.run(main)
