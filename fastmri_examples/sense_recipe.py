"""What the recipes of networks with coil maps share: MoDL and RecNet differ in a few names."""

import argparse
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import command_line as cli
import feature_network
import h5py
import pytorch_lightning as pl
import training
from loss_arguments import LossFlags, add_loss_args

from fastmri_ufloss.metrics import METRIC_NAMES
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules import MriDataModule
from fastmri_ufloss.pl_modules.sense_module import SenseModule


class SenseRecipe(NamedTuple):
    """What is particular to a network.

    Args:
        name: of the run's folder.
        module: its Lightning module, with the network's settings as ``model``.
        load: reads a checkpoint of it.
        model: the network's class.
        network: the module's attribute that is the network.
        model_args, module_args: arguments of the two classes for which there are flags.
        loss: where the user types none, as after ``--loss``.
        max_epochs: where the user types none.
        demo: settings for the generated data.
        rates: those of the module's arguments that a run that goes on must have kept.
    """

    name: str
    module: type[SenseModule]
    load: Callable[..., SenseModule]
    model: type
    network: str
    model_args: Sequence[str]
    module_args: Sequence[str]
    loss: Sequence[str]
    max_epochs: int
    demo: Mapping[str, Any]
    rates: Sequence[str] = ("lr", "lr_step_size", "lr_gamma")


def make_arguments(recipe: SenseRecipe, description: str) -> argparse.ArgumentParser:
    parser = cli.make_parser(description)
    parser.add_argument("--mode", choices=("train", "test"), default="train")
    cli.add_data_args(parser)
    training.add_trainer_args(parser, run_name=recipe.name, max_epochs=recipe.max_epochs)
    # its validation compares magnitudes, for which this network of UFLoss is not made
    metrics = [name for name in METRIC_NAMES if name != "ufloss"]
    add_loss_args(parser, default=recipe.loss, default_text=" ".join(recipe.loss), metrics=metrics)
    feature_network.add_feature_network_args(parser)
    group = parser.add_argument_group("model")
    cli.add_arguments_of(group, recipe.model, recipe.model_args)
    cli.add_arguments_of(group, recipe.module, recipe.module_args)
    group.add_argument("--checkpoint", type=Path, default=None, help="for --mode test (default: the run's best)")
    group.add_argument("--score", action=argparse.BooleanOptionalAction, default=True, help="test after training")
    return parser


def main(recipe: SenseRecipe, args: argparse.Namespace) -> None:
    """Find the data, train and test."""
    flags = LossFlags(args)
    data_path, is_demo = cli.find_data(args)
    run_dir = cli.run_folder(args, recipe.name, is_demo=is_demo)
    train_and_test(recipe, args, flags, data_path, run_dir, settings=recipe.demo if is_demo else {})


def train_and_test(
    recipe: SenseRecipe,
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
    trainer = training.make_trainer(args, run_dir, max_epochs=recipe.max_epochs)
    if args.mode == "train" and args.checkpoint is not None:
        raise ValueError("--checkpoint is for --mode test; --resume goes on with a training")
    if args.mode == "train":
        train(recipe, args, flags, data, trainer, run_dir)
    else:
        best = args.checkpoint or run_dir / "checkpoints" / "best.ckpt"
        net = feature_network.find_or_train(args, data, run_dir, in_chans=2, needed=False)
        test(recipe, args, data, trainer, best, net)
    return data


def test(
    recipe: SenseRecipe,
    args: argparse.Namespace,
    data: MriDataModule,
    trainer: pl.Trainer,
    checkpoint: str | Path,
    net: PatchFeatureNet | None,
) -> None:
    """Leaderboard files and scores of a checkpoint."""
    module = recipe.load(checkpoint, score_feature_net=net, **cli.typed(args, ("score_stride",)))
    trainer.test(module, datamodule=data, verbose=False)


def train(
    recipe: SenseRecipe,
    args: argparse.Namespace,
    flags: LossFlags,
    data: MriDataModule,
    trainer: pl.Trainer,
    run_dir: Path,
) -> None:
    """Train, the feature network first if there is none, and test the best checkpoint."""
    model = cli.typed(args, recipe.model_args)
    options = cli.typed(args, recipe.module_args)
    flags.prepare()
    resume = training.checkpoint_to_resume(args, run_dir, prefix=f"{recipe.network}.", settings={"model": model})
    defaults = inspect.signature(recipe.module).parameters
    rates = {name: options.get(name, defaults[name].default) for name in recipe.rates}
    training.note_settings(args, run_dir, {"model": model, **rates, **flags.settings})
    net = feature_network.find_or_train(args, data, run_dir, in_chans=2, needed=flags.needs_feature_net)
    pl.seed_everything(args.seed, workers=True)  # the same first weights, whether a network was trained before or not
    module = recipe.module(model=model, loss=flags.make_loss(net), score_feature_net=net, **options)
    module.add_metrics(flags.make_metrics(None))
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    if trainer.interrupted:
        sys.exit(f"interrupted: the same command goes on from {run_dir / 'checkpoints' / 'last.ckpt'}")
    if not args.score:
        return
    data.test_path = split_to_score(data)
    cli.say(f"\nThe best checkpoint on {data.test_path}:")
    test(recipe, args, data, trainer, training.best_checkpoint(trainer), net)


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
