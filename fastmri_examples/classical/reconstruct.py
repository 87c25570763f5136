"""Reconstruct a fastMRI folder by classical methods, each with the weight that is best on the validation split.

    python fastmri_examples/classical/reconstruct.py --challenge multicoil --data_path DATA --output_path OUT

searches the regularisation weights on some slices of {challenge}_val, never on what it reconstructs, and writes
OUT/weights.json; then of {challenge}_test OUT/reconstructions/METHOD/*.h5, leaderboard files as a network writes
them, and, where k-space is fully sampled, OUT/reference/*.h5 and scores.json. Without --data_path (or knee_path in
fastmri_dirs.yaml) it uses a generated demo data set. The same command again goes on where it was interrupted.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import command_line as cli
import method_weights

from fastmri_ufloss.baselines import CLASSICAL_METHODS, check_weights
from fastmri_ufloss.data.index import list_volumes
from fastmri_ufloss.pl_modules import (
    ClassicalModule,
    ClassicalTransform,
    FinishedVolumes,
    MriDataModule,
    WeightSearch,
    check_split,
    method_folders,
    note_by_hand,
)
from fastmri_ufloss.pl_modules.scoring import write_json
from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.reconstructed_volume import stamp_of
from fastmri_ufloss.report.reconstructions import name_some

OWN = [name for name, method in CLASSICAL_METHODS.items() if method.needs != "bart"]
BARTS = [name for name, method in CLASSICAL_METHODS.items() if method.needs == "bart"]
# what the images depend on; of these flags two runs into one folder must have the same
DATA_ARGS = ("test_sample_rate", "test_volume_sample_rate", "num_workers")
SETTINGS = ("challenge", "sens_maps_path", "test_sample_rate", "test_volume_sample_rate")


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(str(__doc__))
    group = parser.add_argument_group("methods")
    group.add_argument("--methods", nargs="+", choices=OWN, help="(default: all that can be run)")
    group.add_argument(
        "--bart", action="store_true", default=False, help="also PICS by BART, which must be installed"
    )
    method_weights.add_weights_arg(parser, default="searched on the validation split")
    group.add_argument(
        "--search_slices", type=int, help="of the validation split, spread evenly over its volumes (default: 12)"
    )
    group = parser.add_argument_group("data")
    group.add_argument("--challenge", choices=("singlecoil", "multicoil"), default="multicoil")
    group.add_argument("--data_path", type=Path, default=None, help="folder with {challenge}_val and _test")
    group.add_argument("--anatomy", choices=("knee", "brain"), default="knee", help=f"whose path in {cli.DIRS_FILE}")
    group.add_argument(
        "--output_path",
        dest="default_root_dir",
        metavar="OUTPUT_PATH",
        type=Path,
        default=None,
        help="(default: LOG_PATH/classical)",
    )
    group.add_argument("--cache_dir", type=Path, default=None, help="for index and maps (default: beside the output)")
    group.add_argument("--sens_maps_path", type=Path, default=None, help="folder of coil maps, see docs/data.md")
    cli.add_mask_args(group)
    cli.add_arguments_of(group, MriDataModule, ("test_split", "test_path", *DATA_ARGS))
    group = parser.add_argument_group("trainer: classical methods run on the CPU, by one thread for each slice")
    group.add_argument("--accelerator", choices=("cpu",), default="cpu")
    group.add_argument("--devices", type=int, default=1, help="processes (default: 1)")
    group.add_argument("--num_nodes", type=int, default=1)
    group.add_argument("--strategy", default="auto")
    return parser


def main() -> None:
    args = make_arguments().parse_args()
    methods = choose_methods(args)
    weights = method_weights.read_weights(args)
    check_weights(weights, methods)
    data_path, is_demo = cli.find_data(args)
    run_dir = cli.run_folder(args, "classical", is_demo=is_demo)
    data = cli.make_data_module(args, data_path, run_dir, samples="modl", train_seed=0)
    data.build_index("test")  # which says so if there is nothing to reconstruct
    settings = settings_of(args, data)
    check_settings(run_dir, settings, weights)
    trainer = pl.Trainer(
        accelerator=args.accelerator,
        devices=args.devices,
        num_nodes=args.num_nodes,
        strategy=args.strategy,
        default_root_dir=run_dir,
        use_distributed_sampler=False,
        enable_model_summary=False,
        logger=False,
    )
    try:
        chosen = find_weights(args, methods, weights, data, trainer, run_dir, settings["mask"])
        reconstruct(methods, chosen, data, trainer, run_dir, settings)
    finally:
        if trainer.interrupted:
            cli.say(f"\ninterrupted: the same command goes on from what is complete in {run_dir}")


def choose_methods(args: argparse.Namespace) -> list[str]:
    """The methods that the user asks for, or all that can be run.

    Raises:
        ValueError: if one that was asked for cannot be run.
    """
    asked = [*getattr(args, "methods", []), *(BARTS if args.bart else [])]
    for name in asked:
        if CLASSICAL_METHODS[name].missing:
            raise ValueError(CLASSICAL_METHODS[name].missing)
    if not hasattr(args, "methods"):
        asked = [*OWN, *asked]
        for name in OWN:
            if CLASSICAL_METHODS[name].missing:
                cli.say(f"Left out: {CLASSICAL_METHODS[name].missing}")
                asked.remove(name)
    return list(dict.fromkeys(asked))


def settings_of(args: argparse.Namespace, data: MriDataModule) -> dict[str, Any]:
    """What the images of every method depend on."""
    masks = {**cli.DEFAULT_MASK, **cli.typed(args, (*cli.DEFAULT_MASK, *cli.MASK_OPTIONS))}
    folder = {"test": data.folder("test").resolve(), "mask": masks}
    settings: dict[str, Any] = json.loads(json.dumps({**folder, **cli.typed(args, SETTINGS)}, default=str))
    return {**settings, "volumes": volume_stamps(data.folder("test"), args.sens_maps_path)}


def volume_stamps(folder: Path, sens_maps_path: Path | None) -> dict[str, list[int]]:
    """Size and time of each volume, by its name, and of its coil maps if they are given."""
    stamps = {}
    for path in list_volumes(folder):
        files = [path] if sens_maps_path is None else [path, sens_maps_path / path.name]
        stamps[path.name] = [number for file in files if file.is_file() for number in stamp_of(file)[1:]]
    return stamps


def find_weights(
    args: argparse.Namespace,
    methods: list[str],
    by_hand: Mapping[str, float],
    data: MriDataModule,
    trainer: pl.Trainer,
    run_dir: Path,
    mask: Mapping[str, Any],
) -> dict[str, float]:
    """The weight of each method that has one: typed, or searched."""
    file = run_dir / "weights.json"
    to_search = [name for name in methods if name not in by_hand and CLASSICAL_METHODS[name].start is not None]
    chosen = dict(by_hand)
    rows = []
    if to_search:
        check_split(data, to_search)
        options = {"num_slices": args.search_slices} if hasattr(args, "search_slices") else {}
        settings = {"mask": mask, **cli.typed(args, ("challenge", "sens_maps_path"))}
        search = WeightSearch(trainer, data, file, settings=settings, **options)
        for name in to_search:
            cli.say(f"\nSearching the weight of {CLASSICAL_METHODS[name].title} on {data.folder('val')}")
            found = search.run(name)
            chosen[name] = found.weight
            row = {"weight": found.weight, "NRMSE": found.score, "tried": len(found.tried)}
            rows.append(
                {"method": CLASSICAL_METHODS[name].title, **row, "at a bound": "yes" if found.at_bound else "no"}
            )
        cli.say(f"\nWeights, by the mean NRMSE on the validation split:\n{format_table(rows)}")
    if pl.utilities.rank_zero_only.rank == 0:
        note_by_hand(file, by_hand)
    return chosen


def check_settings(run_dir: Path, settings: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Any]:
    """The ``weights`` of the methods that the folder has images of, which must be made as these, and the ``volumes``.

    Raises:
        ValueError: if they were made with other settings.
    """
    file = run_dir / "settings.json"
    if not file.is_file():
        return {"weights": {}, "volumes": {}}
    stored = json.loads(file.read_text(encoding="utf-8"))
    before = stored.pop("weights")
    volumes = stored.pop("volumes")
    changed = [name for name, stamp in volumes.items() if settings["volumes"].get(name, stamp) != stamp]
    if changed:
        raise ValueError(
            f"{run_dir} has images of {len(changed)} files, or of their coil maps, that have changed since: "
            f"{name_some(changed)}. Take another --output_path, or remove it"
        )
    pairs = [
        (name, stored.get(name), settings.get(name))
        for name in dict.fromkeys((*stored, *settings))
        if name != "volumes"
    ]
    pairs += [(f"the weight of {name}", before[name], weights[name]) for name in weights if name in before]
    for name, old, new in pairs:
        if old != new:
            raise ValueError(
                f"{run_dir} has images that were made with {name} {old}, not {new}: type the same flags again, or "
                "take another --output_path"
            )
    return {"weights": before, "volumes": volumes}


def reconstruct(
    methods: list[str],
    weights: Mapping[str, float],
    data: MriDataModule,
    trainer: pl.Trainer,
    run_dir: Path,
    settings: Mapping[str, Any],
) -> None:
    """Leaderboard files, references and scores of the test."""
    stored = check_settings(run_dir, settings, weights)
    before = stored["weights"]
    slices: dict[str, list[int]] = {}
    for sample in data.dataset("test").raw_samples:
        slices.setdefault(sample.fname.name, []).append(sample.slice_ind)
    folders = method_folders(run_dir, methods)
    # files of a method that the settings do not name are of another origin
    known = {name: folder for name, folder in folders.items() if before and name not in set(methods) - set(before)}
    finished = FinishedVolumes(known, slices)
    if len(finished):
        cli.say(f"{len(finished)} of {len(folders) * len(slices)} files in {run_dir} are there already")
    if pl.utilities.rank_zero_only.rank == 0:
        of_methods = {name: weights.get(name) for name in methods}
        merged = {"weights": {**before, **of_methods}, "volumes": {**stored["volumes"], **settings["volumes"]}}
        write_json(run_dir / "settings.json", {**settings, **merged})
    data.test_transform = ClassicalTransform(data.test_transform, {n: weights.get(n) for n in methods}, finished)
    module = ClassicalModule(methods, finished)
    try:
        trainer.test(module, datamodule=data, verbose=False)
    finally:
        module.discard()


if __name__ == "__main__":
    cli.run(main)
