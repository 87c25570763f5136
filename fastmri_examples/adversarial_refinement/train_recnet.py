"""Train RecNet, the first stage of adversarial refinement, on a fastMRI folder, and test it.

    python fastmri_examples/adversarial_refinement/train_recnet.py --challenge singlecoil --data_path DATA

RecNet has blocks of convolutions with data consistency between them and is trained with l2 of complex images. The
settings of the paper are --config fastmri_examples/adversarial_refinement/configs/paper.yaml. --data_consistency is
cg for many coils, the paper's replacement of samples for one. Without --data_path it uses a generated demo data set.
The same command again goes on from the last checkpoint. --mode test writes reconstructions/*.h5 for fastMRI's
evaluation.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.models import RecNet
from fastmri_ufloss.pl_modules import RecNetModule

NAME = "recnet"
# what trains in minutes on two cores
DEMO = {"max_epochs": 30, "train_rows": 48, **recipe.DEMO, **recipe.DEMO_SCORE}
MODULE_ARGS = recipe.arguments_of(RecNetModule, skip=("loss", "score_feature_net"))


def main() -> None:
    parser = recipe.make_training_parser(__doc__, run_name=NAME, max_epochs=50)
    recipe.add_loss_args(parser, default=["l2"], metrics=recipe.MAGNITUDE_METRICS)
    recipe.add_sense_args(parser)
    recipe.add_arguments(parser.add_argument_group("model"), RecNetModule, MODULE_ARGS, more_words=(RecNet,))
    recipe.add_mode_args(parser, default="the run's best", has_score=True, has_init_checkpoint=True)
    parser.set_defaults(**recipe.TRAINING)
    init = partial(recipe.settings_of_init_checkpoint, kind=RecNetModule)
    args = recipe.parse(parser, DEMO, several_coils, recipe.without_bands, init)
    recipe.check_schedule(parser, args)
    recipe.train_and_test(parser, args, recipe.run_folder(args, NAME), kind=RecNetModule, names=MODULE_ARGS)


def several_coils(args: Namespace) -> dict[str, Any]:
    return {"data_consistency": "cg"} if args.challenge == "multicoil" else {}


if __name__ == "__main__":
    recipe.run(main)
