"""Train the feature network of UFLoss on the patches of a fastMRI folder, without labels.

    python fastmri_examples/modl_ufloss/pretrain.py --challenge multicoil --data_path DATA

writes ``feature_net.safetensors`` (and ``feature_net.json``) into the run's folder, for
``train.py --feature_net``. Without --data_path it uses the generated demo data set.
"""

import sys
from pathlib import Path

import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import training
from feature_network import FEATURE_ARGS, MAX_EPOCHS, PATCH_ARGS, pretrain

from fastmri_ufloss.pl_modules import FeatureModule, PatchDataModule

# what fits the demo's small images, and minutes on two cores
DEMO = {"patch_size": 40, "patches_per_slice": 40, "batch_size": 32, "max_epochs": 5}


def main() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_data_args(parser)
    training.add_trainer_args(parser, run_name="feature_net", max_epochs=MAX_EPOCHS)
    group = parser.add_argument_group("patches")
    cli.add_arguments_of(group, PatchDataModule, PATCH_ARGS)
    group = parser.add_argument_group("feature network")
    cli.add_arguments_of(group, FeatureModule, FEATURE_ARGS)
    args = parser.parse_args()

    pl.seed_everything(args.seed, workers=True)
    data_path, is_demo = cli.find_data(args)
    run_dir = cli.run_folder(args, "feature_net", is_demo=is_demo)
    # batch_size is the number of patches here; slices are read one by one
    samples: cli.Samples = "unet" if getattr(args, "images", None) == "rss" else "modl"  # which needs coil maps
    source = cli.make_data_module(args, data_path, run_dir, samples=samples, train_seed=args.seed)
    names = (*PATCH_ARGS, *FEATURE_ARGS, "batch_size", "num_workers", "max_epochs")
    settings = {**(DEMO if is_demo else {}), **cli.typed(args, names)}
    if is_demo:
        cli.say(f"Feature network for the demo: {', '.join(f'{k} {v}' for k, v in settings.items())}")
    pretrain(args, source, run_dir, typed=settings)


if __name__ == "__main__":
    cli.run(main)
