"""What the recipes of fastMRI's own networks share: VarNet and U-Net differ in a few names."""

import argparse
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import command_line as cli
import feature_network
import pytorch_lightning as pl
import training
from loss_arguments import LossFlags, add_loss_args

from fastmri_ufloss.pl_modules import MriDataModule, MriModule, read_network

MAX_EPOCHS = 50


class Recipe(NamedTuple):
    """What is particular to a network.

    Args:
        name: of the run's folder.
        module: its Lightning module.
        model_args: of the module's constructors, for which there are flags, with their defaults.
        network: the module's attribute that is the network.
        samples: what a batch is made for.
        default_loss: of the module, in words.
        demo: settings for the generated data.
    """

    name: str
    module: type[MriModule]
    model_args: Mapping[str, Any]
    network: str
    samples: cli.Samples
    default_loss: str
    demo: Mapping[str, Any]


def model_args(*classes: type) -> dict[str, Any]:
    """The arguments of modules' constructors that flags can set, with their defaults."""
    arguments = [item for cls in classes for item in inspect.signature(cls).parameters.items()]
    return {name: argument.default for name, argument in arguments if name not in ("loss", "kwargs")}


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
        help="begin with the network of this file, to train it on: a checkpoint of an earlier run, or weights as "
        "fastMRI publishes them",
    )
    return parser


def main(recipe: Recipe, args: argparse.Namespace) -> None:
    """Train or test."""
    pl.seed_everything(args.seed, workers=True)
    flags = LossFlags(args)
    check_arguments(args, flags)
    data_path, is_demo = cli.find_data(args)
    run_dir = cli.run_folder(args, recipe.name, is_demo=is_demo)
    if is_demo:
        for name, value in recipe.demo.items():
            vars(args).setdefault(name, value)
        cli.say(f"Demo settings: {', '.join(f'{k} {getattr(args, k)}' for k in recipe.demo)}")
    data = cli.make_data_module(args, data_path, run_dir, samples=recipe.samples, train_seed=args.seed)
    trainer = training.make_trainer(args, run_dir, max_epochs=MAX_EPOCHS)
    if args.mode == "test":
        best = args.checkpoint or run_dir / "checkpoints" / "best.ckpt"
        trainer.test(load_module(recipe, best), datamodule=data, verbose=False)
    else:
        train(recipe, args, flags, data, trainer, run_dir)


def check_arguments(args: argparse.Namespace, flags: LossFlags) -> None:
    """What would be ignored is refused."""
    if args.mode == "train" and args.checkpoint is not None:
        raise ValueError(
            "--checkpoint is for --mode test; --init_checkpoint begins a training, --resume goes on with it"
        )
    if args.mode == "train" and args.feature_net is not None and not flags.needs_feature_net:
        raise ValueError("--feature_net is for ufloss, which neither --loss nor --metrics names")


def train(
    recipe: Recipe,
    args: argparse.Namespace,
    flags: LossFlags,
    data: MriDataModule,
    trainer: pl.Trainer,
    run_dir: Path,
) -> None:
    """Train, the feature network first if it is needed and there is none."""
    typed = cli.typed(args, recipe.model_args)
    flags.prepare()
    resume = training.checkpoint_to_resume(
        args, run_dir, prefix=f"{recipe.network}.", settings=typed, defaults=recipe.model_args
    )
    settings = {**({} if args.init_checkpoint else recipe.model_args), **typed, **flags.settings}
    training.note_settings(args, run_dir, {**settings, "init_checkpoint": args.init_checkpoint})
    net = feature_network.find_or_train(args, data, run_dir, in_chans=1, needed=flags.needs_feature_net)
    pl.seed_everything(args.seed, workers=True)  # the same first weights, whether a network was trained before or not
    loss = flags.make_loss(net)
    if args.init_checkpoint is None:
        module = recipe.module(loss=loss, **typed)
    else:
        module = load_module(recipe, args.init_checkpoint, loss=loss, **typed)
    module.add_metrics(flags.make_metrics(net))
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    if trainer.interrupted:
        sys.exit(f"interrupted: the same command goes on from {run_dir / 'checkpoints' / 'last.ckpt'}")


def load_module(recipe: Recipe, path: Path, **options: Any) -> MriModule:
    """The module of a file, a checkpoint or the network's weights alone; its loss is left out."""
    stored, weights = read_network(path, prefix=f"{recipe.network}.")
    settings = {**stored, **options}
    module = recipe.module(**settings)
    try:
        getattr(module, recipe.network).load_state_dict(weights)
    except RuntimeError as error:
        model = {name: value for name, value in settings.items() if name != "loss"}
        raise ValueError(f"{path} does not fit the model's settings {model} ({error})") from error
    return module
