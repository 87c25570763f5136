"""Train MoDL with UFLoss on a fastMRI folder, test it, and compare it with zero-filled and CG-SENSE.

    python fastmri_examples/modl_ufloss/train.py --challenge multicoil --data_path DATA

Without --data_path (or knee_path in fastmri_dirs.yaml) it uses a generated demo data set. Without
--feature_net it trains the feature network of UFLoss first, on the training split. The same command again
goes on from the last checkpoint. --mode test writes reconstructions/*.h5 for fastMRI's evaluation.
"""

import sys
from pathlib import Path

import pytorch_lightning as pl
from jsonargparse import ArgumentParser, Namespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.models import MoDL
from fastmri_ufloss.pl_modules import MoDLModule, MriDataModule

NAME = "modl_ufloss"
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
    **recipe.DEMO_FEATURE_NET,
}
MODULE_ARGS = recipe.arguments_of(MoDLModule, skip=("loss", "score_feature_net"))
STAGES = {"zero-filled": "stages/zero_filled", "CG-SENSE": "stages/cg_sense", MoDLModule.title: "reconstructions"}
KEPT = {*MODULE_ARGS, *recipe.LOSS_ARGS} - {"score_stride", "num_log_images"}  # what a training depends on


def make_parser(description: str) -> ArgumentParser:
    parser = recipe.make_parser(description)
    recipe.add_data_args(parser)
    recipe.add_trainer_args(parser, run_name=NAME, max_epochs=50)
    recipe.add_loss_args(parser, default=LOSS, metrics=recipe.MAGNITUDE_METRICS)
    recipe.add_feature_network_args(parser)
    recipe.add_arguments(parser.add_argument_group("model"), MoDLModule, MODULE_ARGS, more_words=(MoDL,))
    recipe.add_mode_args(parser, default="the run's best", has_score=True)
    return parser


def main() -> None:
    parser = make_parser(__doc__)
    args = recipe.parse(parser, DEMO)
    train_and_test(parser, args, recipe.find_data(args), recipe.run_folder(args, NAME))


def train_and_test(parser: ArgumentParser, args: Namespace, data_path: Path, run_dir: Path) -> MriDataModule:
    """The recipe, once the data are there."""
    losses = recipe.Losses(parser, args)
    recipe.check_mode(args)
    pl.seed_everything(args.seed, workers=True)
    data = recipe.make_data_module(args, data_path, run_dir, samples="modl")
    trainer = recipe.make_trainer(args, run_dir)
    checkpoint = args.checkpoint or run_dir / "checkpoints" / "best.ckpt"
    if args.mode == "train":
        losses.prepare()
        resume = recipe.begin(parser, args, run_dir, KEPT, kind=MoDLModule)
        net = recipe.find_feature_net(args, data, run_dir, in_chans=2, needed=losses.needs_feature_net)
        pl.seed_everything(args.seed, workers=True)  # the same weights, whether a network was trained before or not
        loss = losses.make_loss(net)
        module = MoDLModule(**recipe.pick(args, MODULE_ARGS), loss=loss, score_feature_net=net)
        module.add_metrics(losses.make_metrics(None))
        recipe.fit(trainer, module, data, resume)
        if not args.score:
            return data
        checkpoint = recipe.best_checkpoint(trainer)
        data.test_path = recipe.split_to_score(data)
        recipe.say(f"\nThe best checkpoint on {data.test_path}:")
    else:
        net = recipe.find_feature_net(args, data, run_dir, in_chans=2, needed=False)
    module = MoDLModule.load_from_checkpoint(checkpoint, score_feature_net=net, score_stride=args.score_stride)
    trainer.test(module, datamodule=data, verbose=False)
    recipe.score(trainer, data, STAGES, ufloss=module.ufloss_of_volumes())
    return data


if __name__ == "__main__":
    recipe.run(main)
