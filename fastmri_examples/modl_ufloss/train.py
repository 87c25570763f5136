"""Train MoDL with UFLoss on a fastMRI folder, test it, and compare it with zero-filled and CG-SENSE.

    python fastmri_examples/modl_ufloss/train.py --challenge multicoil --data_path DATA

Without --data_path (or knee_path in fastmri_dirs.yaml) it uses a generated demo data set. Without
--feature_net it trains the feature network of UFLoss first, on the training split. The same command again
goes on from the last checkpoint. --mode test writes reconstructions/*.h5 for fastMRI's evaluation.
"""

import argparse
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import feature_network
import training
from loss_arguments import LossFlags, add_loss_args

from fastmri_ufloss.metrics import METRIC_NAMES
from fastmri_ufloss.models import MoDL, PatchFeatureNet
from fastmri_ufloss.pl_modules import MoDLModule, MriDataModule, load_modl_module

MAX_EPOCHS = 50
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


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--mode", choices=("train", "test"), default="train")
    cli.add_data_args(parser)
    training.add_trainer_args(parser, run_name="modl_ufloss", max_epochs=MAX_EPOCHS)
    # its validation compares magnitudes, for which this network of UFLoss is not made
    metrics = [name for name in METRIC_NAMES if name != "ufloss"]
    add_loss_args(parser, default=LOSS, default_text=" ".join(LOSS), metrics=metrics)
    feature_network.add_feature_network_args(parser)
    group = parser.add_argument_group("model")
    cli.add_arguments_of(group, MoDL, MODEL_ARGS)
    cli.add_arguments_of(group, MoDLModule, MODULE_ARGS)
    group.add_argument("--checkpoint", type=Path, default=None, help="for --mode test (default: the run's best)")
    group.add_argument("--score", action=argparse.BooleanOptionalAction, default=True, help="test after training")
    return parser


def main() -> None:
    args = make_arguments().parse_args()
    flags = LossFlags(args)
    data_path, is_demo = cli.find_data(args)
    run_dir = cli.run_folder(args, "modl_ufloss", is_demo=is_demo)
    train_and_test(args, flags, data_path, run_dir, settings=DEMO if is_demo else {})


def train_and_test(
    args: argparse.Namespace,
    flags: LossFlags,
    data_path: Path,
    run_dir: Path,
    *,
    settings: Mapping[str, Any],
) -> MriDataModule:
    """What the recipe does once the data are there; ``settings`` are for what the user did not type."""
    pl.seed_everything(args.seed, workers=True)
    for name, value in settings.items():
        vars(args).setdefault(name, value)
    if settings:
        cli.say(f"Settings: {', '.join(f'{k} {getattr(args, k)}' for k in settings)}")
    data = cli.make_data_module(args, data_path, run_dir, samples="modl", train_seed=args.seed)
    trainer = training.make_trainer(args, run_dir, max_epochs=MAX_EPOCHS)
    if args.mode == "train" and args.checkpoint is not None:
        raise ValueError("--checkpoint is for --mode test; --resume goes on with a training")
    if args.mode == "train":
        train(args, flags, data, trainer, run_dir)
    else:
        best = args.checkpoint or run_dir / "checkpoints" / "best.ckpt"
        net = feature_network.find_or_train(args, data, run_dir, in_chans=2, needed=False)
        test(args, data, trainer, best, net)
    return data


def test(
    args: argparse.Namespace,
    data: MriDataModule,
    trainer: pl.Trainer,
    checkpoint: str | Path,
    net: PatchFeatureNet | None,
) -> None:
    """Leaderboard files and scores of a checkpoint."""
    module = load_modl_module(checkpoint, score_feature_net=net, **cli.typed(args, ("score_stride",)))
    trainer.test(module, datamodule=data, verbose=False)


def train(
    args: argparse.Namespace,
    flags: LossFlags,
    data: MriDataModule,
    trainer: pl.Trainer,
    run_dir: Path,
) -> None:
    """Train, the feature network first if there is none, and test the best checkpoint."""
    model = cli.typed(args, MODEL_ARGS)
    options = cli.typed(args, MODULE_ARGS)
    flags.prepare()
    resume = training.checkpoint_to_resume(args, run_dir, prefix="modl.", settings={"model": model})
    defaults = inspect.signature(MoDLModule).parameters
    rates = {name: options.get(name, defaults[name].default) for name in ("lr", "lr_step_size", "lr_gamma")}
    training.note_settings(args, run_dir, {"model": model, **rates, **flags.settings})
    net = feature_network.find_or_train(args, data, run_dir, in_chans=2, needed=flags.needs_feature_net)
    pl.seed_everything(args.seed, workers=True)  # the same first weights, whether a network was trained before or not
    module = MoDLModule(model=model, loss=flags.make_loss(net), score_feature_net=net, **options)
    module.add_metrics(flags.make_metrics(None))
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    if trainer.interrupted:
        sys.exit(f"interrupted: the same command goes on from {run_dir / 'checkpoints' / 'last.ckpt'}")
    if not args.score:
        return
    data.test_path = split_to_score(data)
    cli.say(f"\nThe best checkpoint on {data.test_path}:")
    test(args, data, trainer, training.best_checkpoint(trainer), net)


def split_to_score(data: MriDataModule) -> Path:
    """The test split where it has references, as in the demo; the validation split where it has none, as in
    fastMRI's data, or where it is missing."""
    folder = data.folder("test")
    first = next(iter(sorted(folder.glob("*.h5"))), None) if folder.is_dir() else None
    if first is not None:
        with h5py.File(first, "r") as volume:
            if "reconstruction_rss" in volume or "reconstruction_esc" in volume:
                return folder
    return data.folder("val")


if __name__ == "__main__":
    cli.run(main)
