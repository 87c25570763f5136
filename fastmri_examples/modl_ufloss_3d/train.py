"""Train MoDL with UFLoss on 3D scans, such as the fully sampled 3D FSE knees of mridata.org (ISMRMRD files).

    python fastmri_examples/modl_ufloss_3d/train.py --raw_path SCANS --data_path DATA

converts the scans to fastMRI volumes in DATA, each position along the readout a slice (ky, kz), and goes on like
modl_ufloss/train.py with the settings of the UFLoss paper: 8x Poisson disk in each volume with a fully sampled center
of 24x24, patches of 40x40. Three orthogonal views and maximum intensity projections show each volume of the test.
Without --raw_path and --data_path it generates scans, as raw files.
"""

import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "modl_ufloss"))
import recipe
import train as recipe_2d

from fastmri_ufloss.convert.jobs import find_inputs, plan_jobs
from fastmri_ufloss.data.masks import POINT_MASKS
from fastmri_ufloss.data.volume_files import open_hdf5
from fastmri_ufloss.pl_modules import MoDLModule, MriDataModule
from fastmri_ufloss.report import save_orthogonal_views
from fastmri_ufloss.simulation.demo import make_demo_scans_3d
from fastmri_ufloss.simulation.volume_file import read_voxel_size

NAME = "modl_ufloss_3d"
MASK = {"mask_type": "poisson_2d", "accelerations": [8], "center_fractions": None, "mask_per_volume": True}
PAPER = {**MASK, "center_size": 24, "elliptical": True, "patch_size": 40}
SHARES = (16, 2, 2)  # the paper's scans for training, validation and test
# what trains in minutes on two cores, on small scans
DEMO_MASK = {"accelerations": [6], "center_size": 14}
DEMO = {**recipe_2d.DEMO, **DEMO_MASK, "patch_size": 40, "max_epochs": 4, "classical": []}


def main() -> None:
    parser = recipe_2d.make_parser(__doc__)
    group = parser.add_argument_group("raw data")
    group.add_argument("--raw_path", type=Path | None, help="folder of ISMRMRD files, to be converted")
    text = "numbers of scans, in the order of their names (default: 16 2 2 of 20, or in proportion)"
    group.add_argument("--split", type=int, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help=text)
    group.add_argument("--convert_workers", type=int, default=1, help="scans converted at once")
    parser.set_defaults(**PAPER)
    args = recipe.parse(parser, DEMO, without_center, recipe.without_bands, recipe_2d.settings_of_init_checkpoint)
    recipe_2d.check_flags(parser, args)
    recipe.read_loss(parser, args)  # what is wrong with the flags is said before anything is converted
    run_dir = recipe.run_folder(args, NAME)
    network = {"kind": MoDLModule, "names": recipe_2d.MODULE_ARGS}
    data = recipe.train_and_test(parser, args, run_dir, data_path=find_scans(parser, args), **network)
    if args.score or args.mode == "test":
        save_views(data, run_dir)


def without_center(args: Namespace) -> dict[str, Any]:
    """What a mask of the user's own has no use for."""
    if args.mask_type not in POINT_MASKS:
        return {"center_size": None, "elliptical": False, "center_fractions": recipe.MASK["center_fractions"]}
    return {} if args.center_fractions is None else {"center_size": None}


def find_scans(parser: ArgumentParser, args: Namespace) -> Path:
    """The data folder, with raw files converted into it; what an earlier call has made is kept."""
    raw_path, data_path = args.raw_path, args.data_path or recipe.log_path() / f"{NAME}_data"
    if recipe.uses_demo(args):
        data_path = recipe.log_path() / "demo_data_3d"
        raw_path = data_path / "raw"
        recipe.say(f"No --raw_path and no --data_path: using generated scans in {data_path}")
        make_demo_scans_3d(raw_path)
    elif raw_path is None:
        for name in recipe.changed(parser, args, ("split", "convert_workers")):
            raise ValueError(f"--{name} is for raw files, which --raw_path names")
        return recipe.find_data(args)
    if not raw_path.is_dir():
        raise FileNotFoundError(f"no folder {raw_path}: check --raw_path")
    split, count = args.split, len(find_inputs("ismrmrd", [raw_path]))
    if split is None:
        if count < 3:
            raise ValueError(f"{count} scans are too few for training, validation and test: at least 3 are needed")
        held_out = max(1, round(count * SHARES[1] / sum(SHARES)))
        split = (count - 2 * held_out, held_out, held_out)
    jobs = plan_jobs("ismrmrd", [raw_path], data_path, settings={"dimensions": "3d"}, split=split)
    recipe.convert(jobs, raw_path, flag="--raw_path", num_workers=args.convert_workers)
    return data_path


def save_views(data: MriDataModule, run_dir: Path) -> None:
    """Orthogonal views and projections of the test's volumes, beside those of the reference."""
    if data.trainer is not None and not data.trainer.is_global_zero:
        return
    for path in sorted((run_dir / "reconstructions").glob("*.h5")):
        source = data.folder("test") / path.name
        if not source.is_file():
            continue
        with open_hdf5(source) as reference, open_hdf5(path, "reconstruction") as output:
            volumes = {"MoDL": output["reconstruction"]}
            target = reference.get("reconstruction_rss")
            if target is not None and target.shape == volumes["MoDL"].shape:
                volumes = {"reference": target, **volumes}
            picture = run_dir / "views" / f"{path.stem}.png"
            save_orthogonal_views(picture, volumes, voxel_size=read_voxel_size(source))
        recipe.say(f"Views: {picture}")


if __name__ == "__main__":
    recipe.run(main)
