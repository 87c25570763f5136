"""What the recipes of fastMRI's own networks share: VarNet and U-Net differ in a few names."""

import argparse
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import command_line as cli
import feature_network
import pytorch_lightning as pl
import training
from loss_arguments import add_loss_args, loss_of, metrics_of, parse_loss

from fastmri_ufloss.losses.weighted import Weight
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules import MriModule, read_checkpoint

MAX_EPOCHS = 50


class Recipe(NamedTuple):
    """What is particular to a network.

    Args:
        name: of the run's folder.
        module: its Lightning module.
        model_args: of the module's constructors, for which there are flags.
        network: the module's attribute that is the network.
        samples: what a batch is made for.
        default_loss: of the module, in words.
        demo: settings for the generated data.
    """

    name: str
    module: type[MriModule]
    model_args: Sequence[str]
    network: str
    samples: cli.Samples
    default_loss: str
    demo: Mapping[str, Any]


def model_args(*classes: type) -> tuple[str, ...]:
    """The arguments of modules' constructors that flags can set."""
    names = [name for cls in classes for name in inspect.signature(cls).parameters]
    return tuple(dict.fromkeys(name for name in names if name not in ("loss", "kwargs")))


def make_arguments(recipe: Recipe, description: str, *hosts: type) -> argparse.ArgumentParser:
    """The parser of a recipe; ``hosts`` are the classes whose constructors have the model's arguments."""
    parser = cli.make_parser(description)
    parser.add_argument("--mode", choices=("train", "test"), default="train")
    cli.add_data_args(parser)
    training.add_trainer_args(parser, run_name=recipe.name, max_epochs=MAX_EPOCHS)
    add_loss_args(parser, default=None, default_text=recipe.default_loss)
    feature_network.add_feature_network_args(parser)
    group = parser.add_argument_group("model")
    for host in hosts:
        cli.add_arguments_of(group, host, model_args(host))
    group.add_argument("--checkpoint", type=Path, default=None, help="for --mode test (default: the run's best)")
    group.add_argument(
        "--init_checkpoint",
        type=Path,
        default=None,
        help="begin with the network of this checkpoint, fastMRI's own or one of an earlier run, to train it on",
    )
    return parser


def main(recipe: Recipe, args: argparse.Namespace) -> None:
    """Train or test."""
    pl.seed_everything(args.seed, workers=True)
    weights = None if args.loss is None else parse_loss(args.loss)
    data_path, is_demo = cli.find_data(args)
    run_dir = cli.run_folder(args, recipe.name, is_demo=is_demo)
    if is_demo:
        for name, value in recipe.demo.items():
            vars(args).setdefault(name, value)
        cli.say(f"Demo settings: {', '.join(f'{k} {getattr(args, k)}' for k in recipe.demo)}")
    data = cli.make_data_module(args, data_path, run_dir, samples=recipe.samples, train_seed=args.seed)
    if args.mode == "test":
        trainer = training.make_trainer(args, run_dir, max_epochs=MAX_EPOCHS)
        best = args.checkpoint or run_dir / "checkpoints" / "best.ckpt"
        trainer.test(load_module(recipe, best), datamodule=data, verbose=False)
        return
    settings = cli.typed(args, recipe.model_args)
    defaults = {name: p.default for name, p in inspect.signature(recipe.module).parameters.items()}
    prefix = f"{recipe.network}."
    resume = training.checkpoint_to_resume(args, run_dir, prefix=prefix, settings=settings, defaults=defaults)
    needed = "ufloss" in (weights or {}) or "ufloss" in args.metrics
    net = feature_network.find_or_train(args, data, run_dir, in_chans=1, needed=needed)
    pl.seed_everything(args.seed, workers=True)  # the same first weights, whether a network was trained before or not
    module = make_module(recipe, args, settings, weights, net)
    trainer = training.make_trainer(args, run_dir, max_epochs=MAX_EPOCHS)
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    if trainer.interrupted:
        sys.exit(f"interrupted: the same command goes on from {run_dir / 'checkpoints' / 'last.ckpt'}")


def make_module(
    recipe: Recipe,
    args: argparse.Namespace,
    settings: Mapping[str, Any],
    weights: Mapping[str, Weight] | None,
    net: PatchFeatureNet | None,
) -> MriModule:
    """The module to train, with its loss and metrics."""
    loss = None if weights is None else loss_of(args, weights, feature_net=net)
    if args.init_checkpoint is None:
        module = recipe.module(loss=loss, **settings)
    else:
        module = load_module(recipe, args.init_checkpoint, loss=loss, **settings)
    module.add_metrics(metrics_of(args, feature_net=net))
    return module


def load_module(recipe: Recipe, path: Path, **options: Any) -> MriModule:
    """The module of a checkpoint, its loss left out."""
    prefix = f"{recipe.network}."
    checkpoint = read_checkpoint(path, prefix=prefix)
    settings = {**checkpoint.get("hyper_parameters", {}), **options}
    module = recipe.module(**settings)
    weights = checkpoint["state_dict"].items()
    try:
        getattr(module, recipe.network).load_state_dict(
            {name.removeprefix(prefix): weight for name, weight in weights if name.startswith(prefix)}
        )
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the model's settings {settings} ({error})") from error
    return module
