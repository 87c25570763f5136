"""Train MoDL with UFLoss on a fastMRI folder, test it, and compare it with zero-filled and CG-SENSE.

    python fastmri_examples/modl_ufloss/train.py --challenge multicoil --data_path DATA

Without --data_path (or knee_path in fastmri_dirs.yaml) it uses a generated demo data set. Without
--feature_net it trains the feature network of UFLoss first, on the training split. The same command again
goes on from the last checkpoint. --mode test writes reconstructions/*.h5 for fastMRI's evaluation.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import sense_recipe

from fastmri_ufloss.models import MoDL
from fastmri_ufloss.pl_modules import MoDLModule, load_modl_module

# The paper's weight is 1.5, chosen so that both terms end at one size, with a network of temperature 1. One of
# temperature 0.1 gives larger values of UFLoss; with this weight the two are of one size on the demo data.
LOSS = ["l2=1", "ufloss=0.02"]
# what trains in minutes on two cores
DEMO = {
    "chans": 16,
    "num_unrolls": 3,
    "lr": 1e-3,
    "max_epochs": 12,
    "lr_step_size": 8,
    "lr_gamma": 0.2,
    "num_workers": 2,
    "stride": 10,
    "score_stride": 10,
    "patch_size": 40,
    "patches_per_slice": 40,
    "pretrain_batch_size": 32,
    "pretrain_max_epochs": 5,
}

MODEL_ARGS = (
    "num_unrolls",
    "num_cg_iterations",
    "denoiser",
    "chans",
    "num_pools",
    "residual",
    "share_weights",
    "lam",
    "learn_lambda",
    "cg_backward",
    "checkpoint_denoiser",
)
MODULE_ARGS = ("lr", "lr_step_size", "lr_gamma", "num_log_images", "score_stride")
RECIPE = sense_recipe.SenseRecipe(
    name="modl_ufloss",
    module=MoDLModule,
    load=load_modl_module,
    model=MoDL,
    network="modl",
    model_args=MODEL_ARGS,
    module_args=MODULE_ARGS,
    loss=LOSS,
    max_epochs=50,
    demo=DEMO,
)


def make_arguments() -> argparse.ArgumentParser:
    return sense_recipe.make_arguments(RECIPE, str(__doc__))


def main() -> None:
    sense_recipe.main(RECIPE, make_arguments().parse_args())


if __name__ == "__main__":
    cli.run(main)
