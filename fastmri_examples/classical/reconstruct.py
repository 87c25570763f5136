"""Reconstruct a fastMRI folder by classical methods, each with the weight that is best on the validation split.

    python fastmri_examples/classical/reconstruct.py --challenge multicoil --data_path DATA --output_path OUT

searches the regularisation weights on some slices of {challenge}_val, never on what it reconstructs, and writes
OUT/weights.json; then of {challenge}_test OUT/reconstructions/METHOD/*.h5, leaderboard files as a network writes
them, and, where k-space is fully sampled, OUT/reference/*.h5 and scores.json. Without --data_path (or knee_path in
fastmri_dirs.yaml) it uses a generated demo data set. The same command again goes on where it was interrupted.

Slices run side by side in --num_workers processes, times --devices. Started by srun or torchrun on several nodes,
each process searches the weights and takes its volumes; the last one writes scores and pictures.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli

from fastmri_ufloss import baselines
from fastmri_ufloss.baselines import CLASSICAL_METHODS
from fastmri_ufloss.files import open_hdf5, write_json
from fastmri_ufloss.metrics import mean_scores, score_run
from fastmri_ufloss.pl_modules import MriDataModule
from fastmri_ufloss.report import format_table, save_comparison, save_picture
from fastmri_ufloss.workers import interruptible

OWN = [name for name, method in CLASSICAL_METHODS.items() if method.needs != "bart"]
# what the images depend on; of these flags two runs into one folder must have the same
SETTINGS = ("challenge", "sens_maps_path", "test_sample_rate", "test_volume_sample_rate")


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(str(__doc__))
    parser.add_argument("--methods", nargs="+", choices=OWN, help="(default: all that can be run)")
    parser.add_argument(
        "--bart", action="store_true", default=False, help="also PICS by BART, which must be installed"
    )
    words = "regularisation weights by hand, such as pics_wavelet=0.002 (default: searched on the validation split)"
    parser.add_argument("--weights", nargs="+", metavar="METHOD=VALUE", default=[], help=words)
    words = "of the validation split, spread evenly over its volumes (default: 12)"
    parser.add_argument("--search_slices", dest="num_slices", metavar="SEARCH_SLICES", type=int, help=words)
    group = parser.add_argument_group("data")
    group.add_argument("--challenge", choices=("singlecoil", "multicoil"), default="multicoil")
    group.add_argument("--data_path", type=Path, default=None, help="folder with {challenge}_val and _test")
    group.add_argument("--anatomy", choices=("knee", "brain"), default="knee", help=f"whose path in {cli.DIRS_FILE}")
    output = {"dest": "default_root_dir", "metavar": "OUTPUT_PATH", "default": None}
    group.add_argument("--output_path", type=Path, help="(default: LOG_PATH/classical)", **output)
    group.add_argument("--cache_dir", type=Path, default=None, help="for index and maps (default: beside the output)")
    group.add_argument("--sens_maps_path", type=Path, default=None, help="folder of coil maps, see docs/data.md")
    cli.add_mask_args(group)
    data_args = ("test_split", "test_path", "test_sample_rate", "test_volume_sample_rate", "num_workers")
    cli.add_arguments_of(group, MriDataModule, data_args)
    group = parser.add_argument_group("processes: classical methods run on the CPU, by one thread for each slice")
    group.add_argument("--accelerator", choices=("cpu",), default="cpu")
    group.add_argument("--devices", type=int, default=1, help="times num_workers processes on a node (default: 1)")
    group.add_argument("--num_nodes", type=int, default=1, help="on which srun or torchrun starts the script")
    group.add_argument("--strategy", default="auto", help="auto or ddp: processes share the volumes by either")
    return parser


def main() -> None:
    args = make_arguments().parse_args()
    methods = choose_methods(args)
    by_hand = baselines.read_weights(args.weights, methods)
    data_path, is_demo = cli.find_data(args)
    run_dir = cli.run_folder(args, "classical", is_demo=is_demo)
    data = cli.make_data_module(args, data_path, run_dir, samples="modl", train_seed=0)
    rank, world_size, num_workers = share_work(args, data.num_workers)
    try:
        with interruptible():
            data.build_index("test")  # which says so if there is nothing to reconstruct
            mask = {**cli.DEFAULT_MASK, **cli.typed(args, (*cli.DEFAULT_MASK, *cli.MASK_OPTIONS))}
            settings = {"test": data.folder("test").resolve(), "mask": mask, **cli.typed(args, SETTINGS)}
            settings = json.loads(json.dumps(settings, default=str))
            settings["volumes"] = baselines.volume_stamps(data.folder("test"), args.sens_maps_path)
            baselines.check_settings(run_dir, settings, by_hand)
            to_search = [name for name in methods if name not in by_hand]
            searched = search(args, to_search, data, run_dir, settings=settings, num_workers=num_workers)
            baselines.note_by_hand(run_dir / "weights.json", by_hand)
            weights = {name: {**searched, **by_hand}.get(name) for name in methods}
            dataset = data.dataset("test")
            slices = baselines.volume_slices(dataset)
            if finished := baselines.finished_files(run_dir, slices, methods):
                num_files = (len(methods) + 1) * len(slices)
                cli.say(f"{len(finished)} of {num_files} files in {run_dir} are there already")
            share = {"num_workers": num_workers, "rank": rank, "world_size": world_size}
            baselines.reconstruct_volumes(dataset, weights, run_dir, settings=settings, **share)
            finished = baselines.finished_files(run_dir, slices, methods)
            if finished.issuperset((name, fname) for name in methods for fname in slices):  # of all processes
                report(run_dir, data.folder("test"), methods, slices)
    except KeyboardInterrupt:
        cli.say(f"\ninterrupted: the same command goes on from what is complete in {run_dir}")
        sys.exit(130)


def choose_methods(args: argparse.Namespace) -> list[str]:
    """The methods that the user asks for, or all that can be run; ValueError if one cannot."""
    asked = list(getattr(args, "methods", []))
    for name in [] if asked else OWN:
        if CLASSICAL_METHODS[name].missing:
            cli.say(f"Left out: {CLASSICAL_METHODS[name].missing}")
        else:
            asked.append(name)
    asked += [name for name in CLASSICAL_METHODS if args.bart and name not in OWN]
    for name in asked:
        if CLASSICAL_METHODS[name].missing:
            raise ValueError(CLASSICAL_METHODS[name].missing)
    return list(dict.fromkeys(asked))


def share_work(args: argparse.Namespace, num_workers: int) -> tuple[int, int, int]:
    """The number of this process, how many were started, and how many workers each of them has."""
    rank, world_size = baselines.launcher_rank()
    if args.strategy not in ("auto", "ddp"):
        raise ValueError(f"--strategy must be auto or ddp, got {args.strategy}")
    if args.devices < 1 or world_size not in (args.devices * args.num_nodes, 1) or world_size < args.num_nodes:
        raise ValueError(
            "--devices times --num_nodes must be the number of processes that srun or torchrun has started "
            f"(SLURM_NTASKS, WORLD_SIZE), got {args.devices} times {args.num_nodes} and {world_size}"
        )
    if world_size == 1 and args.devices > 1:
        num_workers = args.devices * max(1, num_workers)
    return rank, world_size, num_workers


def search(
    args: argparse.Namespace,
    methods: list[str],
    data: MriDataModule,
    run_dir: Path,
    *,
    settings: Mapping[str, Any],
    num_workers: int,
) -> dict[str, float]:
    """The weights of those methods that have one, from the validation split."""
    titles = {name: CLASSICAL_METHODS[name].title for name in methods if CLASSICAL_METHODS[name].bounds is not None}
    if not titles:
        return {}
    baselines.check_split(data.folder("val"), data.folder("test"), list(titles))
    data.build_index("val")
    cli.say(f"\nSearching weights on {data.folder('val')}: {', '.join(titles.values())}")
    searched = baselines.search_weights(
        data.dataset("val"),
        list(titles),
        run_dir / "weights.json",
        settings={name: settings[name] for name in ("mask", "challenge", "sens_maps_path")},
        num_workers=num_workers,
        **cli.typed(args, ("num_slices",)),
    )
    rows = [
        {
            **{"method": titles[name], "weight": row["weight"], "NRMSE": row["NRMSE"], "tried": len(row["tried"])},
            "at a bound": "yes" if row["at bound"] else "no",
        }
        for name, row in searched.items()
    ]
    cli.say(f"\nWeights, by the mean NRMSE on the validation split:\n{format_table(rows)}")
    return {name: row["weight"] for name, row in searched.items()}


def report(run_dir: Path, test: Path, methods: list[str], slices: Mapping[str, list[int]]) -> None:
    """A picture of the middle slice of each volume by all methods; scores where there are references."""
    folders = baselines.method_folders(run_dir, methods)
    outputs = {CLASSICAL_METHODS[name].title: folders[name] for name in methods}
    compare_with = CLASSICAL_METHODS["cg_sense"].title if "cg_sense" in methods else None
    for fname in slices:
        picture = run_dir / "pictures" / f"{Path(fname).stem}.png"
        save_comparison(picture, middle_slices(outputs, fname), compare_with=compare_with, title=fname)
    scored = {fname: numbers for fname, numbers in slices.items() if (folders["reference"] / fname).is_file()}
    if scored:
        rows = score_run(outputs, {"RSS": test, "coil-combined": folders["reference"]}, slices=scored)
        means = mean_scores(rows)
        write_json(run_dir / "scores.json", {"means": means, "volumes": rows})
        reference, *images = middle_slices({"": folders["reference"], **outputs}, next(iter(scored))).values()
        save_picture(run_dir / "reconstruction.png", reference, dict(zip(outputs, images, strict=True)))
        print("\nMeans over the volumes, against the RSS and, where there are coil maps, the coil-combined image:")
        print(f"{format_table(means)}\nScores: {run_dir / 'scores.json'}\nPicture: {run_dir / 'reconstruction.png'}")
    print(f"Images: {run_dir / 'reconstructions'}\nPictures: {run_dir / 'pictures'}", flush=True)


def middle_slices(folders: Mapping[str, Path], fname: str) -> dict[str, np.ndarray]:
    """The middle slice of a volume from each folder."""
    images = {}
    for title, folder in folders.items():
        with open_hdf5(folder / fname) as file:
            images[title] = np.asarray(file["reconstruction"][file["reconstruction"].shape[0] // 2])
    return images


if __name__ == "__main__":
    cli.run(main)
