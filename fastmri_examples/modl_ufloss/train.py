"""Train MoDL with UFLoss on a fastMRI folder, test it, and compare it with zero-filled and CG-SENSE.

    python fastmri_examples/modl_ufloss/train.py --challenge multicoil --data_path DATA

Without --data_path (or knee_path in fastmri_dirs.yaml) it uses a generated demo data set. Without
--feature_net it trains the feature network of UFLoss first, on the training split. The same command again
goes on from the last checkpoint. --mode test writes reconstructions/*.h5 for fastMRI's evaluation.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
from pretrain import MAX_EPOCHS as PRETRAIN_MAX_EPOCHS
from pretrain import pretrain

from fastmri_ufloss.losses import LOSS_NAMES, UFLoss, make_loss
from fastmri_ufloss.models import MoDL, PatchFeatureNet
from fastmri_ufloss.pl_modules import FeatureModule, MoDLModule, MriDataModule, PatchDataModule, load_modl_module

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
UFLOSS_ARGS = ("stride", "patches_per_step", "chunk_size")
PRETRAIN_ARGS = ("patch_size", "patches_per_slice", "num_features", "temperature")
MODULE_ARGS = ("lr", "lr_step_size", "lr_gamma", "num_log_images", "score_stride")


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--mode", choices=("train", "test"), default="train")
    cli.add_data_args(parser)
    cli.add_trainer_args(parser, run_name="modl_ufloss", max_epochs=MAX_EPOCHS)
    group = parser.add_argument_group("loss")
    group.add_argument(
        "--loss",
        nargs="+",
        default=LOSS,
        help=f"NAME=WEIGHT of {', '.join(LOSS_NAMES)} (default: {' '.join(LOSS)})",
    )
    group.add_argument("--feature_net", type=Path, default=None, help="file of a trained feature network")
    cli.add_arguments_of(group, UFLoss, UFLOSS_ARGS)
    group = parser.add_argument_group("feature network, where it is trained first: see pretrain.py for more")
    cli.add_arguments_of(group, PatchDataModule, PRETRAIN_ARGS[:2])
    cli.add_arguments_of(group, FeatureModule, PRETRAIN_ARGS[2:])
    group.add_argument("--pretrain_max_epochs", type=int, help=f"(default: {PRETRAIN_MAX_EPOCHS})")
    group.add_argument("--pretrain_batch_size", type=int, help="patches")
    group = parser.add_argument_group("model")
    cli.add_arguments_of(group, MoDL, MODEL_ARGS)
    cli.add_arguments_of(group, MoDLModule, MODULE_ARGS)
    group.add_argument("--checkpoint", type=Path, default=None, help="for --mode test (default: the run's best)")
    group.add_argument("--score", action=argparse.BooleanOptionalAction, default=True, help="test after training")
    return parser


def main() -> None:
    args = make_arguments().parse_args()
    weights = cli.parse_loss(args.loss)
    data_path, is_demo = cli.find_data(args)
    run_dir = cli.run_folder(args, "modl_ufloss", is_demo=is_demo)
    train_and_test(args, weights, data_path, run_dir, settings=DEMO if is_demo else {})


def train_and_test(
    args: argparse.Namespace,
    weights: Mapping[str, float],
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
    data = cli.make_data_module(args, data_path, run_dir, maps=True, train_seed=args.seed)
    trainer = cli.make_trainer(args, run_dir, max_epochs=MAX_EPOCHS)
    if args.mode == "train":
        train(args, weights, data, trainer, run_dir)
    else:
        best = args.checkpoint or run_dir / "checkpoints" / "best.ckpt"
        file = find_feature_net(args, run_dir)
        test(args, data, trainer, best, None if file is None else load_feature_net(file))
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
    weights: Mapping[str, float],
    data: MriDataModule,
    trainer: pl.Trainer,
    run_dir: Path,
) -> None:
    """Train, the feature network first if there is none, and test the best checkpoint."""
    model = cli.typed(args, MODEL_ARGS)
    resume = cli.checkpoint_to_resume(args, run_dir, prefix="modl.", settings={"model": model})
    file = find_feature_net(args, run_dir)
    if "ufloss" in weights and file is None:
        cli.say("No --feature_net: training the feature network of UFLoss on the training split first")
        file = pretrain_here(args, data, run_dir)
    net = None if file is None else load_feature_net(file)
    module = MoDLModule(
        model=model,
        loss=make_loss(weights, feature_net=net, ufloss=cli.typed(args, UFLOSS_ARGS)),
        score_feature_net=net,
        **cli.typed(args, MODULE_ARGS),
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    if trainer.interrupted:
        sys.exit(f"interrupted: the same command goes on from {run_dir / 'checkpoints' / 'last.ckpt'}")
    if not args.score:
        return
    data.test_path = split_to_score(data)
    cli.say(f"\nThe best checkpoint on {data.test_path}:")
    test(args, data, trainer, cli.best_checkpoint(trainer), net)


def pretrain_here(args: argparse.Namespace, data: MriDataModule, run_dir: Path) -> Path:
    """Train the feature network in a folder of its own, with the trainer flags that make sense there."""
    own = argparse.Namespace(**{**vars(args), "resume": "never" if args.resume == "never" else "auto"})
    for name in ("max_epochs", "max_steps", "accumulate_grad_batches"):
        vars(own).pop(name, None)
    settings = cli.typed(args, PRETRAIN_ARGS)
    for name in ("max_epochs", "batch_size"):
        if hasattr(args, f"pretrain_{name}"):
            settings[name] = getattr(args, f"pretrain_{name}")
    return pretrain(own, data, run_dir / "feature_net", typed=settings)


def find_feature_net(args: argparse.Namespace, run_dir: Path) -> Path | None:
    """The file that --feature_net names, or the one that an earlier call has trained in this run's folder."""
    file = run_dir / "feature_net" / "feature_net.safetensors"
    if args.feature_net is None and file.is_file() and args.resume != "never":
        cli.say(f"Feature network of this run: {file}")
        return file
    return args.feature_net


def load_feature_net(file: Path) -> PatchFeatureNet:
    net = PatchFeatureNet.load(file)
    if net.in_chans != 2:
        raise ValueError(
            f"{file} is a feature network of {net.in_chans} channel, MoDL's complex images need one of 2: "
            "train one with pretrain.py --images combined"
        )
    return net


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
