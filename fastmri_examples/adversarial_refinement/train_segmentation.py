"""Train a segmentation network on fully sampled images, which then scores how well structures can be seen.

    python fastmri_examples/adversarial_refinement/train_segmentation.py --challenge singlecoil --data_path DATA

takes the volumes of {challenge}_train and _val in DATA that have a data set ``segmentation``; label images become one
with ``python -m fastmri_ufloss.convert segmentation LABELS --output_path VOLUMES``. The network with the best
Dice of the validation is ``best.ckpt`` in the run's folder. The same command again goes on where it was.
"""

import argparse
import sys
from pathlib import Path

import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import training

from fastmri_ufloss.pl_modules import SegmentationDataModule, SegmentationModule, read_checkpoint

NAME = "segmentation"
MAX_EPOCHS = 200
MODEL_ARGS = ("chans", "num_levels", "num_res_units", "loss", "lr", "augment")
DATA_ARGS = ("num_classes", "only_with_classes", "skip_missing", "batch_size", "num_workers")
# what else a training depends on
TRAINING_ARGS = (
    *("challenge", "only_with_classes", "skip_missing", "batch_size", "seed"),
    *("precision", "gradient_clip_val", "accumulate_grad_batches", "limit_train_batches"),
)
# what trains in minutes on two cores
DEMO = {"chans": 8, "num_levels": 4, "lr": 2e-3, "max_epochs": 60}
PREFIX = "segmentation_net."


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(str(__doc__))
    group = parser.add_argument_group("data")
    group.add_argument("--challenge", choices=("singlecoil", "multicoil"), default="multicoil")
    group.add_argument(
        "--data_path",
        type=Path,
        default=None,
        help=f"folder with {{challenge}}_train and _val; otherwise that of {cli.DIRS_FILE} in the working folder; "
        "otherwise a generated demo data set",
    )
    group.add_argument("--anatomy", choices=("knee", "brain"), default="knee", help=f"whose path in {cli.DIRS_FILE}")
    cli.add_arguments_of(group, SegmentationDataModule, DATA_ARGS)
    training.add_trainer_args(parser, run_name=NAME, max_epochs=MAX_EPOCHS)
    cli.add_arguments_of(parser.add_argument_group("model"), SegmentationModule, MODEL_ARGS)
    return parser


def main() -> None:
    args = make_arguments().parse_args()
    pl.seed_everything(args.seed, workers=True)
    data_path, is_demo = cli.find_data(args)
    run_dir = cli.run_folder(args, NAME, is_demo=is_demo)
    if is_demo:
        for name, value in DEMO.items():
            vars(args).setdefault(name, value)
        cli.say(f"Demo settings: {', '.join(f'{name} {getattr(args, name)}' for name in DEMO)}")
    data = SegmentationDataModule(data_path, args.challenge, seed=args.seed, **cli.typed(args, DATA_ARGS))
    data.setup()  # what is wrong with the data is said before anything is written
    module = SegmentationModule(num_classes=data.num_classes, **cli.typed(args, MODEL_ARGS))
    resume = training.checkpoint_to_resume(args, run_dir, prefix=PREFIX, settings=dict(module.hparams))
    training.note_settings(args, run_dir, {**module.hparams, **cli.typed(args, TRAINING_ARGS)})
    trainer = training.make_trainer(args, run_dir, max_epochs=MAX_EPOCHS, monitor="val_dice", mode="max")
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    if trainer.interrupted:
        sys.exit(f"interrupted: the same command goes on from {run_dir / 'checkpoints' / 'last.ckpt'}")
    show_best(trainer, module, data)


def show_best(trainer: pl.Trainer, module: SegmentationModule, data: SegmentationDataModule) -> None:
    """The validation's Dice of each class with the best checkpoint, and where that is."""
    best = training.best_checkpoint(trainer)
    module.load_state_dict(read_checkpoint(best, prefix=PREFIX)["state_dict"])
    (scores,) = trainer.validate(module, datamodule=data, verbose=False)
    cli.say(f"\nDice of {data.folder('val')}:")
    for name, value in scores.items():
        if name.startswith("val_dice"):
            cli.say(f"  {name.removeprefix('val_dice').strip('/').replace('_', ' ') or 'mean'}: {value:.4f}")
    cli.say(f"Segmentation network: {best}")


if __name__ == "__main__":
    cli.run(main)
