"""The folder of a run of classical methods: leaderboard files, their settings, and what is there already."""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastmri_ufloss.baselines.slices import image_of, reference_of, run_slices
from fastmri_ufloss.data.index import list_volumes
from fastmri_ufloss.data.reconstruction_writer import ReconstructionWriter
from fastmri_ufloss.data.slices import IndexedSliceDataset
from fastmri_ufloss.data.transforms import MoDLSample
from fastmri_ufloss.files import file_stamp, name_some, open_hdf5, write_json

__all__ = [
    "check_settings",
    "finished_files",
    "launcher_rank",
    "method_folders",
    "reconstruct_volumes",
    "volume_slices",
    "volume_stamps",
]

REFERENCE = "reference"
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))  # torchrun, srun


def method_folders(folder: Path, methods: Iterable[str]) -> dict[str, Path]:
    """Where the files of each method are, and those of the reference, in the folder of a run."""
    return {**{name: folder / "reconstructions" / name for name in methods}, REFERENCE: folder / REFERENCE}


def volume_slices(dataset: IndexedSliceDataset) -> dict[str, list[int]]:
    """The slices of each volume of a data set, by its file name."""
    slices: dict[str, list[int]] = {}
    for sample in dataset.raw_samples:
        slices.setdefault(sample.fname.name, []).append(sample.slice_ind)
    return slices


def volume_stamps(folder: Path, sens_maps_path: Path | None) -> dict[str, list[int]]:
    """Size and time of each volume of a folder, by its name, and of its coil maps if they are given."""
    stamps = {}
    for path in list_volumes(folder):
        files = [path] if sens_maps_path is None else [path, sens_maps_path / path.name]
        stamps[path.name] = [value for file in files if file.is_file() for value in file_stamp(file)]
    return stamps


def launcher_rank(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Number of this process and number of processes that torchrun or srun has started; (0, 1) without them."""
    for rank, world_size in LAUNCHERS:
        if rank in environment and world_size in environment:
            return int(environment[rank]), int(environment[world_size])
    return 0, 1


def check_settings(folder: Path, settings: Mapping[str, Any], weights: Mapping[str, float | None]) -> None:
    """Compare with the settings that the images in the folder of a run were made with, if there are any.

    Args:
        folder: of the run.
        settings: plain values, what the images of every method depend on; ``volumes`` are `volume_stamps`.
        weights: of each method, or of some.

    Raises:
        ValueError: if a volume has changed, or settings differ.
    """
    stored = _read_settings(folder)
    volumes = stored["volumes"]
    changed = [name for name, stamp in volumes.items() if settings["volumes"].get(name, stamp) != stamp]
    if changed:
        raise ValueError(
            f"{folder} has images of {len(changed)} files, or of their coil maps, that have changed since: "
            f"{name_some(changed)}. Take another folder, or remove it"
        )
    names = dict.fromkeys((*stored, *settings)) if stored["weights"] else {}
    pairs = [(name, stored.get(name), settings.get(name)) for name in names if name not in ("weights", "volumes")]
    pairs += [
        (f"the weight of {name}", weight, weights[name])
        for name, weight in stored["weights"].items()
        if name in weights
    ]
    for name, old, new in pairs:
        if old != new:
            raise ValueError(
                f"{folder} has images that were made with {name} {old}, not {new}: take the same settings again, or "
                "another folder"
            )


def finished_files(folder: Path, slices: Mapping[str, list[int]], methods: Iterable[str]) -> set[tuple[str, str]]:
    """Method (or ``"reference"``) and file name of what an earlier run has made, so that it need not be made again.

    A file with another number of slices than ``slices`` does not count, nor does a method that the settings of the
    folder do not name: its files are of another origin.
    """
    before = _read_settings(folder)["weights"]
    return {
        (name, fname)
        for name, files in method_folders(folder, methods).items()
        if name in before or (before and name == REFERENCE)
        for fname, numbers in slices.items()
        if _num_slices(files / fname) == len(numbers)
    }


def reconstruct_volumes(
    dataset: IndexedSliceDataset,
    weights: Mapping[str, float | None],
    folder: Path,
    *,
    settings: Mapping[str, Any],
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Write the volumes of a data set by several methods, as leaderboard files with the mask of their samples.

    In the folder: ``reconstructions/METHOD/*.h5``; ``reference/*.h5``, in the same form, the coil-combined images of
    fully sampled files; and ``settings.json``. Files that are there (`finished_files`) are not made again. A file
    appears when its volume is complete.

    Args:
        dataset: whose transform makes `MoDLSample` with coil maps.
        weights: of each method, by its name in `CLASSICAL_METHODS`; None for its default, or where it has none.
        folder: of the run.
        settings: see `check_settings`.
        num_workers: number of processes, which share the slices; 0 for this one.
        rank, world_size: this call and the number of calls that share the volumes (`launcher_rank`).

    Raises:
        ValueError: if the folder has images that were made with other settings.
    """
    check_settings(folder, settings, weights)
    slices = volume_slices(dataset)
    finished = finished_files(folder, slices, weights)
    stored = _read_settings(folder)
    merged = {name: {**stored[name], **new} for name, new in (("weights", weights), ("volumes", settings["volumes"]))}
    write_json(folder / "settings.json", {**settings, **merged})
    of_this_call = set(list(slices)[rank::world_size])
    tasks = []
    for index, sample in enumerate(dataset.raw_samples):
        fname = sample.fname.name
        missing = {name: weight for name, weight in weights.items() if (name, fname) not in finished}
        if fname in of_this_call and (missing or (REFERENCE, fname) not in finished):
            tasks.append((index, missing))
    runs = run_slices(_reconstruct, dataset, tasks, num_workers=num_workers, title="Reconstructions")
    writers = {name: ReconstructionWriter(files) for name, files in method_folders(folder, weights).items()}
    waiting: dict[int, tuple[dict[str, np.ndarray], np.ndarray]] = {}
    order = [index for index, _ in reversed(tasks)]
    try:
        with contextlib.closing(runs):
            for index, _, result in runs:
                waiting[index] = result
                while order and order[-1] in waiting:  # slices of a file come in their order
                    sample = dataset.raw_samples[order[-1]]
                    images, mask = waiting.pop(order.pop())
                    for name, image in images.items():
                        if (name, sample.fname.name) not in finished:
                            sampled = None if name == REFERENCE else mask
                            writers[name].add(sample.fname.name, sample.slice_ind, image, mask=sampled)
        for writer in writers.values():
            writer.close()
    finally:
        for writer in writers.values():
            writer.discard()


def _reconstruct(sample: MoDLSample, weights: Mapping[str, float | None]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Magnitudes of a slice by several methods, and its reference if there is one; and its mask."""
    images = {name: image_of(sample, name, weight) for name, weight in weights.items()}
    reference = reference_of(sample)
    return images if reference is None else {**images, REFERENCE: reference}, sample.mask.numpy()


def _read_settings(folder: Path) -> dict[str, Any]:
    file = folder / "settings.json"
    document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {"weights": {}, "volumes": {}, **document}


def _num_slices(path: Path) -> int:
    with contextlib.suppress(ValueError, KeyError), open_hdf5(path) as file:
        return int(file["reconstruction"].shape[0])
    return 0
