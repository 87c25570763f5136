"""Train MoDL with UFLoss on a fastMRI folder, test it, and compare it with zero-filled, CG-SENSE and others.

    python fastmri_examples/modl_ufloss/train.py --challenge multicoil --data_path DATA

Without --data_path (or knee_path in fastmri_dirs.yaml) it uses a generated demo data set. The feature network of
UFLoss is the one that ships; --feature_net takes one of pretrain.py. --classical pics_wavelet pics_tv adds PICS to
the comparison. The settings of the paper are --config fastmri_examples/modl_ufloss/configs/paper.yaml.
The same command again goes on from the last checkpoint. --mode test writes reconstructions/*.h5 for fastMRI's
evaluation.
"""

import sys
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.models import MoDL
from fastmri_ufloss.pl_modules import MoDLModule

NAME = "modl_ufloss"
LOSS = ["l2=1", "ufloss=auto"]
# what trains in minutes on two cores; UFLoss comes once the pixel loss has done its part
DEMO = recipe.DEMO | recipe.DEMO_SCORE | {"max_epochs": 40, "check_val_every_n_epoch": 5, "train_rows": 48}
DEMO["loss"] = ["l2=1", "ufloss=auto:0:1@31-32"]
MODULE_ARGS = recipe.arguments_of(MoDLModule, skip=("loss", "score_feature_net"))


def make_parser(description: str) -> ArgumentParser:
    parser = recipe.make_training_parser(description, run_name=NAME, max_epochs=50)
    recipe.add_loss_args(parser, default=LOSS, metrics=recipe.MAGNITUDE_METRICS)
    recipe.add_sense_args(parser)
    group = parser.add_argument_group("model")
    recipe.add_arguments(group, MoDLModule, MODULE_ARGS, more_words=(MoDL,))
    text = "torch.compile the denoisers in training, for a GPU: needs a C++ compiler; checkpoints are the same"
    group.add_argument("--compile", action="store_true", help=text)
    recipe.add_mode_args(parser, default="the run's best", has_score=True, has_init_checkpoint=True)
    parser.set_defaults(**recipe.TRAINING)
    return parser


settings_of_init_checkpoint = partial(recipe.settings_of_init_checkpoint, kind=MoDLModule)


def check_flags(parser: ArgumentParser, args: Namespace) -> None:
    """Raise ValueError if a flag was typed that the denoiser or the schedule of the learning rate has no use for."""
    unused = ["num_layers"] if args.denoiser == "unet" else ["num_pools", "residual"]
    for name in recipe.changed(parser, args, unused):
        raise ValueError(f"--{name} is not for --denoiser {args.denoiser}")
    recipe.check_schedule(parser, args)


def main() -> None:
    parser = make_parser(__doc__)
    args = recipe.parse(parser, DEMO, recipe.without_bands, settings_of_init_checkpoint)
    check_flags(parser, args)
    recipe.train_and_test(parser, args, recipe.run_folder(args, NAME), kind=MoDLModule, names=MODULE_ARGS)


if __name__ == "__main__":
    recipe.run(main)
