"""Reconstruct a fastMRI folder by classical methods, each with the weight that is best on the validation split.

    python fastmri_examples/classical/reconstruct.py --challenge multicoil --data_path DATA --output_path OUT

searches the regularization weights on some slices of {challenge}_val, never on what it reconstructs, into
OUT/weights.json; then reconstructs {challenge}_test into OUT/reconstructions/METHOD/*.h5, leaderboard files, and,
where k-space is fully sampled, writes OUT/reference/*.h5 and scores.json. Without --data_path (or knee_path in
fastmri_dirs.yaml) it uses a generated demo data set. The same command again goes on where it was interrupted.

Slices run side by side in --num_workers processes, times --devices. Started by srun or torchrun on several nodes,
each process searches the weights and takes its volumes; the last one writes scores and pictures.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss import baselines
from fastmri_ufloss.baselines import CLASSICAL_METHODS
from fastmri_ufloss.pl_modules import MriDataModule
from fastmri_ufloss.report import format_table, save_comparison
from fastmri_ufloss.workers import interruptible

WITHOUT_BART = [name for name, method in CLASSICAL_METHODS.items() if method.needs != "bart"]
# what the images depend on; of these flags two runs into one folder must have the same
SETTINGS = ("challenge", "sens_maps_path", "test_sample_rate", "test_volume_sample_rate")


def make_parser() -> ArgumentParser:
    parser = recipe.make_parser(__doc__)
    parser.add_argument("--methods", nargs="+", choices=WITHOUT_BART, help="(default: all that can be run)")
    parser.add_argument("--bart", action="store_true", help="also PICS by BART, which must be installed")
    text = "regularization weights by hand, such as pics_wavelet=0.002 (default: searched on the validation split)"
    parser.add_argument("--weights", nargs="+", metavar="METHOD=VALUE", default=[], help=text)
    default = recipe.default_of(baselines.search_weights, "num_slices")
    text = "of the validation split, spread evenly over its volumes"
    parser.add_argument("--search_slices", type=int, default=default, help=text)
    group = parser.add_argument_group("data")
    recipe.add_folder_args(group, "{challenge}_val and _test")
    group.add_argument("--output_path", type=Path | None, help="(default: LOG_PATH/classical)")
    group.add_argument("--cache_dir", type=Path | None, help="for index and maps (default: beside the output)")
    recipe.add_map_args(group)
    recipe.add_mask_args(group)
    data_args = ("test_split", "test_path", "test_sample_rate", "test_volume_sample_rate", "num_workers")
    recipe.add_arguments(group, MriDataModule, data_args)
    group = parser.add_argument_group("processes: classical methods run on the CPU, by one thread for each slice")
    group.add_argument("--accelerator", choices=("cpu",), default="cpu")
    group.add_argument("--devices", type=int, default=1, help="times num_workers processes on a node")
    group.add_argument("--num_nodes", type=int, default=1, help="on which srun or torchrun starts the script")
    group.add_argument("--strategy", default="auto", help="auto or ddp: processes share the volumes by either")
    parser.set_defaults(**recipe.MASK)
    return parser


def main() -> None:
    parser = make_parser()
    args = recipe.parse(parser, {})
    methods = choose_methods(args)
    by_hand = baselines.read_weights(args.weights, methods)
    data_path = recipe.find_data(args)
    args.default_root_dir = args.output_path
    run_dir = recipe.run_folder(args, "classical")
    data = recipe.make_data_module(args, data_path, run_dir, samples="modl")
    rank, world_size, num_workers = share_work(args, data.num_workers)
    try:
        with interruptible():
            data.build_index("test")  # which says so if there is nothing to reconstruct
            mask = recipe.pick(args, (*recipe.MASK, *recipe.changed(parser, args, recipe.MASK_OPTIONS)))
            settings = {"test": data.folder("test").resolve(), "mask": mask, **recipe.pick(args, SETTINGS)}
            settings |= recipe.pick(args, recipe.changed(parser, args, ("num_maps",)))
            settings = json.loads(json.dumps(settings, default=str))
            settings["volumes"] = baselines.volume_stamps(data.folder("test"), args.sens_maps_path)
            baselines.check_settings(run_dir, settings, by_hand)
            to_search = [name for name in methods if name not in by_hand]
            searched = search(args, to_search, data, run_dir, settings, num_workers)
            baselines.note_by_hand(run_dir / "weights.json", by_hand)
            weights = {name: {**searched, **by_hand}.get(name) for name in methods}
            dataset = data.dataset("test")
            slices = baselines.volume_slices(dataset)
            if finished := baselines.finished_files(run_dir, slices, methods):
                num_files = (len(methods) + 1) * len(slices)
                recipe.say(f"{len(finished)} of {num_files} files in {run_dir} are there already")
            processes = {"num_workers": num_workers, "rank": rank, "world_size": world_size}
            baselines.reconstruct_volumes(dataset, weights, run_dir, settings=settings, **processes)
            finished = baselines.finished_files(run_dir, slices, methods)
            if finished.issuperset((name, fname) for name in methods for fname in slices):  # of all processes
                report(run_dir, data.folder("test"), methods, slices)
    except KeyboardInterrupt:
        recipe.say(f"\ninterrupted: the same command goes on from what is complete in {run_dir}")
        sys.exit(130)


def choose_methods(args: Namespace) -> list[str]:
    """The methods that the user asks for, or all that can be run; ValueError if one cannot."""
    reasons = {name: method.missing for name, method in CLASSICAL_METHODS.items() if method.missing}
    if args.num_maps != 1:
        reasons["dlmri"] = "DLMRI takes one set of coil maps, not --num_maps"
    for name in [] if args.methods else WITHOUT_BART:
        if name in reasons:
            recipe.say(f"Left out: {reasons[name]}")
    asked = args.methods or [name for name in WITHOUT_BART if name not in reasons]
    bart = [name for name in CLASSICAL_METHODS if args.bart and name not in WITHOUT_BART]
    asked = list(dict.fromkeys([*asked, *bart]))
    for name in asked:
        if name in reasons:
            raise ValueError(reasons[name])
    return asked


def share_work(args: Namespace, num_workers: int) -> tuple[int, int, int]:
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
    args: Namespace, methods: list[str], data: MriDataModule, run_dir: Path, settings: Mapping[str, Any], workers: int
) -> dict[str, float]:
    """The weights of those methods that have one, from the validation split."""
    titles = {name: CLASSICAL_METHODS[name].title for name in methods if CLASSICAL_METHODS[name].bounds is not None}
    if not titles:
        return {}
    baselines.check_split(data.folder("val"), data.folder("test"), list(titles))
    data.build_index("val")
    recipe.say(f"\nSearching weights on {data.folder('val')}: {', '.join(titles.values())}")
    searched = baselines.search_weights(
        data.dataset("val"),
        list(titles),
        run_dir / "weights.json",
        settings={
            name: settings[name] for name in ("mask", "challenge", "sens_maps_path", "num_maps") if name in settings
        },
        num_workers=workers,
        num_slices=args.search_slices,
    )
    rows = []
    for name, row in searched.items():
        more = {"tried": len(row["tried"]), "at a bound": "yes" if row["at bound"] else "no"}
        rows.append({"method": titles[name], "weight": row["weight"], "NRMSE": row["NRMSE"], **more})
    recipe.say(f"\nWeights, by the mean NRMSE on the validation split:\n{format_table(rows)}")
    return {name: row["weight"] for name, row in searched.items()}


def report(run_dir: Path, test: Path, methods: list[str], slices: Mapping[str, list[int]]) -> None:
    """A picture of the middle slice of each volume by all methods; scores where there are references."""
    folders = baselines.method_folders(run_dir, methods)
    outputs = {CLASSICAL_METHODS[name].title: folders[name] for name in methods}
    compare_with = CLASSICAL_METHODS["cg_sense"].title if "cg_sense" in methods else None
    for fname in slices:
        picture = run_dir / "pictures" / f"{Path(fname).stem}.png"
        save_comparison(picture, recipe.middle_slices(outputs, fname), compare_with=compare_with, title=fname)
    scored = {fname: slice_nums for fname, slice_nums in slices.items() if (folders["reference"] / fname).is_file()}
    if scored:
        references = {"RSS": test, "coil-combined": folders["reference"]}
        recipe.write_scores(run_dir, outputs, references, folders["reference"], slices=scored)
    print(f"Images: {run_dir / 'reconstructions'}\nPictures: {run_dir / 'pictures'}", flush=True)


if __name__ == "__main__":
    recipe.run(main)
