"""Train the feature network of UFLoss on the patches of a fastMRI folder, without labels.

    python fastmri_examples/modl_ufloss/pretrain.py --challenge multicoil --data_path DATA

writes ``feature_net.safetensors`` (and ``feature_net.json``) into the run's folder, for
``train.py --feature_net``. Without --data_path it uses the generated demo data set.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli

from fastmri_ufloss.pl_modules import FeatureModule, MriDataModule, PatchDataModule

MAX_EPOCHS = 100
# what fits the demo's small images, and minutes on two cores
DEMO = {"patch_size": 40, "patches_per_slice": 40, "batch_size": 32, "max_epochs": 5}

PATCH_ARGS = ("patch_size", "patches_per_slice", "images")
FEATURE_ARGS = ("num_features", "temperature", "lr", "phase_augmentation", "magnitude_augmentation")


def main() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_data_args(parser)
    cli.add_trainer_args(parser, run_name="feature_net", max_epochs=MAX_EPOCHS)
    group = parser.add_argument_group("patches")
    cli.add_arguments_of(group, PatchDataModule, PATCH_ARGS)
    group = parser.add_argument_group("feature network")
    cli.add_arguments_of(group, FeatureModule, FEATURE_ARGS)
    args = parser.parse_args()

    pl.seed_everything(args.seed, workers=True)
    data_path, is_demo = cli.find_data(args)
    run_dir = cli.run_folder(args, "feature_net", is_demo=is_demo)
    # batch_size is the number of patches here; slices are read one by one
    source = cli.make_data_module(args, data_path, run_dir, maps=True, train_seed=args.seed)
    names = (*PATCH_ARGS, *FEATURE_ARGS, "batch_size", "num_workers", "max_epochs")
    settings = {**(DEMO if is_demo else {}), **cli.typed(args, names)}
    if is_demo:
        cli.say(f"Feature network for the demo: {', '.join(f'{k} {v}' for k, v in settings.items())}")
    pretrain(args, source, run_dir, typed=settings)


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
    trainer = cli.make_trainer(args, run_dir, max_epochs=max_epochs, monitor="retrieval@1", mode="max")
    resume = cli.checkpoint_to_resume(args, run_dir, prefix="feature_net.", settings=module_settings)
    trainer.fit(module, datamodule=patches, ckpt_path=resume)
    if trainer.interrupted:
        sys.exit(f"interrupted: the same command goes on from {run_dir / 'checkpoints' / 'last.ckpt'}")
    best = cli.read_checkpoint(cli.best_checkpoint(trainer), prefix="feature_net.")
    module.load_state_dict(best["state_dict"])
    file = run_dir / "feature_net.safetensors"
    if trainer.is_global_zero:
        module.export(file)
    trainer.strategy.barrier("export")
    cli.say(f"Feature network: {file}")
    return file


if __name__ == "__main__":
    cli.run(main)
