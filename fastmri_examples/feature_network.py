"""The feature network of UFLoss in the recipes: found, loaded, or trained first."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import command_line as cli
import training

from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules import FeatureModule, MriDataModule, PatchDataModule, read_checkpoint

MAX_EPOCHS = 100
FILE_NAME = "feature_net.safetensors"

PATCH_ARGS = ("patch_size", "patches_per_slice", "images")
FEATURE_ARGS = ("num_features", "temperature", "lr", "phase_augmentation", "magnitude_augmentation")
FIRST_PATCH_ARGS = ("patch_size", "patches_per_slice")
FIRST_FEATURE_ARGS = ("num_features", "temperature")


def add_feature_network_args(parser: argparse.ArgumentParser) -> None:
    """Flags of a feature network that a training recipe trains first."""
    group = parser.add_argument_group("feature network, where it is trained first: see pretrain.py for more")
    cli.add_arguments_of(group, PatchDataModule, FIRST_PATCH_ARGS)
    cli.add_arguments_of(group, FeatureModule, FIRST_FEATURE_ARGS)
    group.add_argument("--pretrain_max_epochs", type=int, help=f"(default: {MAX_EPOCHS})")
    group.add_argument("--pretrain_batch_size", type=int, help="patches")


def find(args: argparse.Namespace, run_dir: Path) -> Path | None:
    """The file that --feature_net names, or the one that an earlier call has trained in this run's folder."""
    file = run_dir / "feature_net" / FILE_NAME
    if args.feature_net is None and file.is_file() and args.resume != "never":
        cli.say(f"Feature network of this run: {file}")
        return file
    return args.feature_net


def load(file: Path, *, in_chans: int) -> PatchFeatureNet:
    """A feature network for images of so many channels.

    Raises:
        ValueError: if it has another number of channels.
    """
    net = PatchFeatureNet.load(file)
    if net.in_chans != in_chans:
        kind, images = ("complex", "combined") if in_chans == 2 else ("magnitude", "rss")
        raise ValueError(
            f"{file} is a feature network of in_chans {net.in_chans}, this recipe's {kind} images need one of "
            f"{in_chans}: train one with pretrain.py --images {images}"
        )
    return net


def find_or_train(
    args: argparse.Namespace, data: MriDataModule, run_dir: Path, *, in_chans: int, needed: bool
) -> PatchFeatureNet | None:
    """The network of this run, trained on the training split if it is needed and there is none.

    Args:
        args: of the recipe.
        data: whose transforms make a `MoDLSample`.
        run_dir: of the recipe.
        in_chans: 2 for complex images, 1 for magnitudes.
        needed: whether the loss has UFLoss in it.
    """
    file = find(args, run_dir)
    if file is None and needed:
        cli.say("No --feature_net: training the feature network of UFLoss on the training split first")
        file = _train_first(args, data, run_dir, images="combined" if in_chans == 2 else "rss")
    return None if file is None else load(file, in_chans=in_chans)


def _train_first(args: argparse.Namespace, data: MriDataModule, run_dir: Path, *, images: str) -> Path:
    """Train in a folder of its own, with the trainer flags that make sense there."""
    own = argparse.Namespace(**{**vars(args), "resume": "never" if args.resume == "never" else "auto"})
    for name in ("max_epochs", "max_steps", "accumulate_grad_batches"):
        vars(own).pop(name, None)
    settings = {**cli.typed(args, (*FIRST_PATCH_ARGS, *FIRST_FEATURE_ARGS)), "images": images}
    for name in ("max_epochs", "batch_size"):
        if hasattr(args, f"pretrain_{name}"):
            settings[name] = getattr(args, f"pretrain_{name}")
    return pretrain(own, data, run_dir / "feature_net", typed=settings)


def pretrain(
    args: argparse.Namespace,
    source: MriDataModule,
    run_dir: Path,
    *,
    typed: Mapping[str, Any],
) -> Path:
    """Train a feature network on a data module's training split; returns the file of the network."""
    settings = dict(typed)
    max_epochs = settings.pop("max_epochs", MAX_EPOCHS)
    feature_settings = {name: settings.pop(name) for name in FEATURE_ARGS if name in settings}
    settings.setdefault("num_workers", source.num_workers)
    patches = PatchDataModule(source, patch_dir=source.cache_dir / "patches", seed=args.seed, **settings)
    module_settings = {
        "num_patches": patches.num_patches(),
        "in_chans": patches.in_chans,
        "patch_size": patches.patch_size,
        **feature_settings,
    }
    module = FeatureModule(
        **module_settings,
        training_data=f"{source.challenge} {source.data_path.name}, {patches.images} images",
    )
    trainer = training.make_trainer(args, run_dir, max_epochs=max_epochs, monitor="retrieval@1", mode="max")
    resume = training.checkpoint_to_resume(args, run_dir, prefix="feature_net.", settings=module_settings)
    trainer.fit(module, datamodule=patches, ckpt_path=resume)
    if trainer.interrupted:
        sys.exit(f"interrupted: the same command goes on from {run_dir / 'checkpoints' / 'last.ckpt'}")
    best = read_checkpoint(training.best_checkpoint(trainer), prefix="feature_net.")
    module.load_state_dict(best["state_dict"])
    file = run_dir / FILE_NAME
    if trainer.is_global_zero:
        module.export(file)
    trainer.strategy.barrier("export")
    cli.say(f"Feature network: {file}")
    return file
