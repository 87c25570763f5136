"""Train MoDL with UFLoss on 3D scans, such as the fully sampled 3D FSE knees of mridata.org (ISMRMRD files).

    python fastmri_examples/modl_ufloss_3d/train.py --raw_path SCANS --data_path DATA

converts the scans to fastMRI volumes in DATA, each position along the readout a slice (ky, kz), and goes on like
modl_ufloss/train.py, with the settings of the UFLoss paper: 8x Poisson disk in each volume with a fully sampled
centre of 24x24, patches of 40x40. The volumes of the test are reconstructed as a whole: three orthogonal views and
maximum intensity projections of each. Without --raw_path and --data_path it generates scans, as raw files.
"""

import argparse
import sys
from pathlib import Path

import h5py

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "modl_ufloss"))
import command_line as cli
import train as recipe_2d
from loss_arguments import LossFlags
from sense_recipe import train_and_test

from fastmri_ufloss.convert.jobs import missing_jobs, plan_jobs, remove_leftovers, run_jobs
from fastmri_ufloss.data.masks import POINT_MASKS
from fastmri_ufloss.data.volume_file import read_voxel_size
from fastmri_ufloss.pl_modules import MriDataModule
from fastmri_ufloss.report import save_orthogonal_views
from fastmri_ufloss.simulation.demo import make_demo_scans_3d

NAME = "modl_ufloss_3d"
PAPER = {
    "mask_type": "poisson_2d",
    "accelerations": [8],
    "center_size": 24,
    "elliptical": True,
    "mask_per_volume": True,
    "patch_size": 40,
}
SHARES = (16, 2, 2)  # the paper's scans for training, validation and test
# what trains in minutes on two cores, on small scans
DEMO = {
    **recipe_2d.DEMO,
    "accelerations": [6],
    "center_size": 14,
    "patches_per_slice": 4,
    "pretrain_max_epochs": 3,
    "max_epochs": 4,
    "lr_step_size": 3,
    "patch_size": 32,
}


def main() -> None:
    parser = recipe_2d.make_arguments()
    parser.description = __doc__
    group = parser.add_argument_group("raw data")
    group.add_argument("--raw_path", type=Path, default=None, help="folder of ISMRMRD files, to be converted")
    group.add_argument(
        "--split",
        type=int,
        nargs=3,
        metavar=("TRAIN", "VAL", "TEST"),
        help="numbers of scans, in the order of their names (default: 16 2 2 of 20, or in proportion)",
    )
    group.add_argument("--convert_workers", type=int, help="scans converted at once (default: 1)")
    args = parser.parse_args()
    flags = LossFlags(args)
    data_path, is_demo = find_scans(args)
    run_dir = cli.run_folder(args, NAME, is_demo=is_demo)
    settings = {**PAPER, **(DEMO if is_demo else {})}
    for name in overruled(args):
        del settings[name]
    data = train_and_test(recipe_2d.RECIPE, args, flags, data_path, run_dir, settings=settings)
    if args.score or args.mode == "test":
        save_views(data, run_dir)


def overruled(args: argparse.Namespace) -> tuple[str, ...]:
    """Settings of the recipe's mask that the user's own mask has no use for."""
    if getattr(args, "mask_type", PAPER["mask_type"]) not in POINT_MASKS:
        return ("center_size", "elliptical")
    return ("center_size",) if hasattr(args, "center_fractions") else ()


def find_scans(args: argparse.Namespace) -> tuple[Path, bool]:
    """The data folder, with raw files converted into it, and whether it is the demo's."""
    if args.raw_path is not None:
        data_path = args.data_path or cli.log_path() / f"{NAME}_data"
        convert(args, args.raw_path, data_path)
        return data_path, False
    if args.data_path is not None or f"{args.anatomy}_path" in cli.read_dirs():
        unused = cli.typed(args, ("split", "convert_workers"))
        if unused:
            raise ValueError(f"--{next(iter(unused))} is for raw files, which --raw_path names")
        return cli.find_data(args)
    root = cli.log_path() / "demo_data_3d"
    cli.say(f"No --raw_path and no --data_path: using generated scans in {root}")
    make_demo_scans_3d(root / "raw")
    convert(args, root / "raw", root)
    return root, True


def convert(args: argparse.Namespace, raw_path: Path, data_path: Path) -> None:
    """ISMRMRD files to fastMRI volumes, split by scan; what an earlier call has made is kept."""
    if not raw_path.is_dir():
        raise FileNotFoundError(f"no folder {raw_path}: check --raw_path")
    split = getattr(args, "split", None) or share(len(plan_jobs("ismrmrd", [raw_path], data_path)))
    jobs = plan_jobs("ismrmrd", [raw_path], data_path, settings={"dimensions": "3d"}, split=split)
    remove_leftovers(jobs)
    strangers = {path for job in jobs for path in job.output.parent.glob("*.h5")} - {job.output for job in jobs}
    if strangers:
        raise ValueError(
            f"{min(strangers)} is none of the {len(jobs)} scans of {raw_path}: choose another --data_path"
        )
    try:
        missing = missing_jobs(jobs)
    except ValueError as error:
        raise ValueError(f"{error}; here that is --data_path, and deleting overwrites") from error
    summary = run_jobs(missing, num_workers=getattr(args, "convert_workers", 1))
    for reason in (*summary.warnings, *summary.failed.values()):
        print(reason, file=sys.stderr)
    if summary.full is not None:
        raise OSError(f"no space is left in {summary.full}: make room, then the same command goes on")
    if summary.failed:
        raise ValueError(f"{len(summary.failed)} of {len(jobs)} scans of {raw_path} were not converted")


def share(count: int) -> tuple[int, int, int]:
    """Numbers of scans for training, validation and test in the paper's proportion, at least one each."""
    if count < 3:
        raise ValueError(f"{count} scans are too few for training, validation and test: at least 3 are needed")
    held_out = max(1, round(count * SHARES[1] / sum(SHARES)))
    return count - 2 * held_out, held_out, held_out


def save_views(data: MriDataModule, run_dir: Path) -> None:
    """Orthogonal views and projections of the test's volumes, beside those of the reference."""
    if data.trainer is not None and not data.trainer.is_global_zero:
        return
    for path in sorted((run_dir / "reconstructions").glob("*.h5")):
        source = data.folder("test") / path.name
        if not source.is_file():
            continue
        with h5py.File(source, "r") as reference, h5py.File(path, "r") as output:
            volumes = {"MoDL": output["reconstruction"]}
            shape = reference["reconstruction_rss"].shape if "reconstruction_rss" in reference else None
            if shape == volumes["MoDL"].shape:
                volumes = {"reference": reference["reconstruction_rss"], **volumes}
            picture = run_dir / "views" / f"{path.stem}.png"
            save_orthogonal_views(picture, volumes, voxel_size=read_voxel_size(source))
        cli.say(f"Views: {picture}")


if __name__ == "__main__":
    cli.run(main)
