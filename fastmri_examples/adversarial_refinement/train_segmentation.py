"""Train a segmentation network on fully sampled images, which then scores how well structures can be seen.

    python fastmri_examples/adversarial_refinement/train_segmentation.py --challenge singlecoil --data_path DATA

takes the volumes of {challenge}_train and _val in DATA that have a data set ``segmentation``; label images become one
with ``python -m fastmri_ufloss.convert segmentation LABELS --output_path VOLUMES``. The network with the best
Dice of the validation is ``best.ckpt`` in the run's folder. The same command again goes on where it was.
"""

import sys
from pathlib import Path

import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.pl_modules import SegmentationDataModule, SegmentationModule, read_checkpoint

NAME = "segmentation"
MODULE_ARGS = recipe.arguments_of(SegmentationModule, skip=("num_classes",))
DATA_ARGS = ("num_classes", "only_with_classes", "skip_missing", "batch_size", "num_workers")
# what else a training depends on
TRAINING_ARGS = (
    *("challenge", "only_with_classes", "skip_missing", "batch_size", "seed"),
    *("precision", "gradient_clip_val", "accumulate_grad_batches", "limit_train_batches"),
)
# what trains in minutes on two cores
DEMO = {"chans": 8, "num_levels": 4, "lr": 2e-3, "max_epochs": 60}


def main() -> None:
    parser = recipe.make_parser(__doc__)
    group = parser.add_argument_group("data")
    recipe.add_folder_args(group, "{challenge}_train and _val")
    recipe.add_arguments(group, SegmentationDataModule, DATA_ARGS)
    recipe.add_trainer_args(parser, run_name=NAME, max_epochs=200)
    recipe.add_arguments(parser.add_argument_group("model"), SegmentationModule, MODULE_ARGS)
    args = recipe.parse(parser, DEMO)

    pl.seed_everything(args.seed, workers=True)
    data_path, run_dir = recipe.find_data(args), recipe.run_folder(args, NAME)
    data = SegmentationDataModule(data_path, args.challenge, seed=args.seed, **recipe.pick(args, DATA_ARGS))
    data.setup()  # what is wrong with the data is said before anything is written
    facts = {"num_classes": data.num_classes}
    module = SegmentationModule(**facts, **recipe.pick(args, MODULE_ARGS))
    resume = recipe.begin(parser, args, run_dir, (*MODULE_ARGS, *TRAINING_ARGS), kind=SegmentationModule, facts=facts)
    trainer = recipe.make_trainer(args, run_dir, monitor="val_dice", mode="max")
    recipe.fit(trainer, module, data, resume)

    best = recipe.best_checkpoint(run_dir)
    module.load_state_dict(read_checkpoint(best)["state_dict"])
    (scores,) = trainer.validate(module, datamodule=data, verbose=False)
    recipe.say(f"\nDice of {data.folder('val')}:")
    for name, value in scores.items():
        if name.startswith("val_dice"):
            title = name.removeprefix("val_dice").strip("/").replace("_", " ") or "mean"
            recipe.say(f"  {title}: {value:.4f}")
    recipe.say(f"Segmentation network: {best.resolve()}")


if __name__ == "__main__":
    recipe.run(main)
