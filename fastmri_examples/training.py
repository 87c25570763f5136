"""The trainer that the training recipes share: its flags, its checkpoints, and where it goes on from."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import command_line as cli
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger

from fastmri_ufloss.pl_modules import SeededSteps, read_checkpoint
from fastmri_ufloss.pl_modules.scoring import write_json

LAST = "last"  # the checkpoint to go on from


def add_trainer_args(parser: argparse.ArgumentParser, *, run_name: str, max_epochs: int) -> None:
    """Trainer flags by Lightning's names."""
    group = parser.add_argument_group("trainer")
    group.add_argument("--max_epochs", type=int, help=f"(default: {max_epochs})")
    group.add_argument("--max_steps", type=int)
    group.add_argument("--accelerator", default="auto")
    group.add_argument("--devices", default="auto")
    group.add_argument("--num_nodes", type=int, default=1)
    group.add_argument("--strategy", default="auto")
    group.add_argument(
        "--precision", default="32-true", choices=("32-true", "bf16-mixed", "16-mixed"), help="(default: 32-true)"
    )
    group.add_argument("--gradient_clip_val", type=float)
    group.add_argument("--accumulate_grad_batches", type=int)
    group.add_argument("--limit_train_batches", type=cli.int_or_float)
    group.add_argument("--limit_val_batches", type=cli.int_or_float)
    group.add_argument("--log_every_n_steps", type=int)
    group.add_argument(
        "--default_root_dir",
        type=Path,
        default=None,
        help=f"folder of the run (default: LOG_PATH/{run_name})",
    )
    group.add_argument("--checkpoint_every_n_steps", type=int, default=500, help="beside each epoch's (default: 500)")
    group.add_argument("--seed", type=int, default=42, help="fixes everything (default: 42)")
    group.add_argument(
        "--resume",
        default="auto",
        help="'auto': the run's last checkpoint, if any; 'never'; or a checkpoint file",
    )


TRAINER_ARGS = (
    "max_steps",
    "gradient_clip_val",
    "accumulate_grad_batches",
    "limit_train_batches",
    "limit_val_batches",
    "log_every_n_steps",
)


def make_trainer(
    args: argparse.Namespace,
    run_dir: Path,
    *,
    max_epochs: int,
    monitor: str = "validation_loss",
    mode: str = "min",
) -> pl.Trainer:
    """A trainer with the best and the last checkpoint, TensorBoard, and randomness that a resume repeats."""
    checkpoints = run_dir / "checkpoints"
    best = ModelCheckpoint(
        dirpath=checkpoints, filename="best", monitor=monitor, mode=mode, enable_version_counter=False
    )
    # two writers of one file, and not save_last, which writes only where the best has improved
    last = {"dirpath": checkpoints, "filename": LAST, "save_top_k": 1, "enable_version_counter": False}
    each_epoch = ModelCheckpoint(**last, every_n_epochs=1)
    within_epoch = ModelCheckpoint(**last, every_n_train_steps=args.checkpoint_every_n_steps)
    return pl.Trainer(
        accelerator=args.accelerator,
        devices=args.devices if not str(args.devices).isdigit() else int(args.devices),
        num_nodes=args.num_nodes,
        strategy=args.strategy,
        precision=args.precision,
        max_epochs=getattr(args, "max_epochs", max_epochs),
        default_root_dir=run_dir,
        callbacks=[best, each_epoch, within_epoch, SeededSteps(args.seed), EpochLine()],
        logger=TensorBoardLogger(run_dir, name="tensorboard"),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **cli.typed(args, TRAINER_ARGS),
    )


class EpochLine(pl.Callback):
    """Prints a line with the scores of each epoch."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        names = (
            "train_loss_epoch",
            "train_loss",
            "loss",  # of fastMRI's U-Net
            "validation_loss",
            "val_loss",
            "val_dice",
            "val_metrics/nmse",
            "val_metrics/ssim",
            "retrieval@1",
        )
        found = trainer.callback_metrics
        terms = [name for name in found if name.startswith("val_terms/")]
        more = [name for name in found if name.startswith("val_metrics/") and name not in names]
        shown = [name for name in names if name in found] + (terms if len(terms) > 1 else []) + more
        values = [f"{name} {float(found[name]):.4g}" for name in shown]
        if trainer.is_global_zero and values:
            cli.say(f"\nepoch {trainer.current_epoch + 1}: {', '.join(values)}")


def checkpoint_to_resume(
    args: argparse.Namespace,
    run_dir: Path,
    *,
    prefix: str,
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
) -> Path | None:
    """The checkpoint that ``--resume`` asks for, checked against the settings; ``defaults`` need not stand in it.

    Raises:
        FileNotFoundError, ValueError: if it is missing, no checkpoint, or of another model.
    """
    if args.resume == "never":
        return None
    last = run_dir / "checkpoints" / f"{LAST}.ckpt"
    path = last if args.resume == "auto" else Path(args.resume)
    if args.resume == "auto" and not last.is_file():
        return None
    stored = read_checkpoint(path, prefix=prefix).get("hyper_parameters", {})
    for name, value in settings.items():
        before = stored.get(name, (defaults or {}).get(name))
        if before != value:
            raise ValueError(
                f"{path} was trained with {name}={before}, not {value}: type the same flags again, or "
                "start anew with --resume never or another --default_root_dir"
            )
    cli.say(f"Resuming from {path}")
    return path


def note_settings(args: argparse.Namespace, run_dir: Path, settings: Mapping[str, Any]) -> None:
    """Keep in the run's folder what its training depends on; a run that goes on must have the same.

    Raises:
        ValueError: if the run's last checkpoint was trained with others.
    """
    file = run_dir / "settings.json"
    settings = json.loads(json.dumps(settings, default=str))
    if args.resume == "auto" and file.is_file() and (run_dir / "checkpoints" / f"{LAST}.ckpt").is_file():
        stored = json.loads(file.read_text(encoding="utf-8"))
        for name in dict.fromkeys((*settings, *stored)):
            if settings.get(name) != stored.get(name):
                raise ValueError(
                    f"{run_dir} was trained with {name}={stored.get(name)}, not {settings.get(name)}: type the same "
                    "flags again, or start anew with --resume never or another --default_root_dir"
                )
    if pl.utilities.rank_zero_only.rank == 0:
        write_json(file, settings)


def best_checkpoint(trainer: pl.Trainer) -> str:
    """The best checkpoint of a fit, or its last one if nothing was validated."""
    callback = trainer.checkpoint_callback
    return callback.best_model_path or str(Path(callback.dirpath) / f"{LAST}.ckpt")
