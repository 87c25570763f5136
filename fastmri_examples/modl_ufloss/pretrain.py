"""Train the feature network of UFLoss on the patches of a fastMRI folder, without labels.

    python fastmri_examples/modl_ufloss/pretrain.py --challenge multicoil --data_path DATA

writes ``feature_net.safetensors`` (and ``feature_net.json``) into the run's folder, for
``train.py --feature_net``. Without --data_path it uses the generated demo data set.
"""

import sys
from pathlib import Path

import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

# what fits the demo's small images, and minutes on two cores
DEMO = {"patch_size": 40, "patches_per_slice": 40, "batch_size": 32, "max_epochs": 5}


def main() -> None:
    parser = recipe.make_pretraining_parser(__doc__)
    args = recipe.parse(parser, DEMO)
    pl.seed_everything(args.seed, workers=True)
    data_path, run_dir = recipe.find_data(args), recipe.run_folder(args, "feature_net")
    # complex images need coil maps
    source = recipe.make_data_module(args, data_path, run_dir, samples="unet" if args.images == "rss" else "modl")
    recipe.pretrain(parser, args, source, run_dir)


if __name__ == "__main__":
    recipe.run(main)
