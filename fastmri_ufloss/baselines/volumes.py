"""Volumes by classical methods: their slices side by side, and the folder of a run with what is there already."""

import contextlib
import copy
import json
import os
import textwrap
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from fastmri_ufloss.baselines.methods import CLASSICAL_METHODS
from fastmri_ufloss.data.index import list_volumes
from fastmri_ufloss.data.reconstruction_writer import ReconstructionWriter, crop_like_fastmri
from fastmri_ufloss.data.slices import IndexedSliceDataset
from fastmri_ufloss.files import file_stamp, name_some, write_json
from fastmri_ufloss.workers import run_in_processes

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

Weights = Mapping[str, float | None]  # by method; None for the default, or where there is none
Images = tuple[dict[str, np.ndarray], np.ndarray]  # magnitudes by name, and the mask of the sample


def method_folders(folder: Path, methods: Iterable[str]) -> dict[str, Path]:
    """Where the files of each method are, and those of the reference, in the folder of a run."""
    return {**{name: folder / "reconstructions" / name for name in methods}, REFERENCE: folder / REFERENCE}


def volume_slices(dataset: IndexedSliceDataset) -> dict[str, list[int]]:
    """The slices of each volume of a data set, by file name."""
    slices: dict[str, list[int]] = {}
    for sample in dataset.raw_samples:
        slices.setdefault(sample.fname.name, []).append(sample.slice_ind)
    return slices


def volume_stamps(folder: Path, sens_maps_path: Path | None) -> dict[str, list[int]]:
    """Size and time of each volume of a folder, by file name, and of its coil maps if they are given."""
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


def check_settings(folder: Path, settings: Mapping[str, Any], weights: Weights) -> None:
    """Compare with the settings that the images in the folder of a run were made with, if there are any.

    Args:
        folder: of the run.
        settings: plain values that the images of every method depend on; ``volumes`` are `volume_stamps`.
        weights: of each method, or of some.

    Raises:
        ValueError: if a volume has changed, or settings differ.
    """
    stored = _read_settings(folder)
    if not stored["weights"]:
        return
    volumes = stored["volumes"]
    changed = [name for name, stamp in volumes.items() if settings["volumes"].get(name, stamp) != stamp]
    if changed:
        text = f"{len(changed)} files, or of their coil maps, that have changed since: {name_some(changed)}"
        raise ValueError(f"{folder} has images of {text}. Take another folder, or remove it")
    refuse_others(folder, stored, settings, (stored.keys() | settings) - {"weights", "volumes"})
    refuse_others(folder, stored["weights"], weights, stored["weights"].keys() & weights, what="the weight of ")


def refuse_others(
    place: Path, before: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str], *, what: str = ""
) -> None:
    """Raise ValueError if a file or folder was made with another setting than now."""
    for name in sorted(names):
        if before.get(name) != now.get(name):
            old, new = (textwrap.shorten(str(values.get(name)), 300) for values in (before, now))
            raise ValueError(
                f"{place} was made with {what}{name} {old}, not {new}: take the same settings again, or remove it, "
                "or take another folder"
            )


def finished_files(folder: Path, fnames: Iterable[str], methods: Iterable[str]) -> set[tuple[str, str]]:
    """Method (or ``"reference"``) and file name of what an earlier run has made, so that it need not be made again.

    A method that the settings of the folder do not name does not count: its files are of another origin.
    """
    before = _read_settings(folder)["weights"]
    return {
        (name, fname)
        for name, files in method_folders(folder, methods).items()
        if name in before or (before and name == REFERENCE)
        for fname in fnames
        if (files / fname).is_file()
    }


def reconstruct_volumes(
    dataset: IndexedSliceDataset,
    weights: Weights,
    folder: Path,
    *,
    settings: Mapping[str, Any],
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Write the volumes of a data set that are missing in the folder of a run, as leaderboard files with their mask.

    In the folder: ``reconstructions/METHOD/*.h5``; ``reference/*.h5``, the coil-combined images of fully sampled
    files; and ``settings.json``.

    Args:
        dataset: whose transform makes `MoDLSample` with coil maps.
        weights: of each method, by its name in `CLASSICAL_METHODS`; None for its default, or where it has none.
        folder: of the run.
        settings: see `check_settings`.
        num_workers: number of processes, which share the slices; 0 for this one.
        rank, world_size: this call and the number of calls that share the volumes.

    Raises:
        ValueError: if the folder has images that were made with other settings.
    """
    check_settings(folder, settings, weights)
    settings = {**settings, "weights": weights}
    slices = volume_slices(dataset)
    finished = finished_files(folder, slices, weights)
    stored = _read_settings(folder)
    merged = {name: {**stored[name], **settings[name]} for name in ("weights", "volumes")}
    write_json(folder / "settings.json", {**settings, **merged})
    of_this_call = set(list(slices)[rank::world_size])
    tasks = []
    for index, sample in enumerate(dataset.raw_samples):
        fname = sample.fname.name
        missing = {name: weight for name, weight in weights.items() if (name, fname) not in finished}
        if fname in of_this_call and (missing or (REFERENCE, fname) not in finished):
            tasks.append((index, missing))
    results = reconstruct_slices(dataset, tasks, num_workers=num_workers, title="Reconstructions")
    writers = {name: ReconstructionWriter(files) for name, files in method_folders(folder, weights).items()}
    try:
        with contextlib.closing(results):
            for (index, _), (images, mask) in zip(tasks, results, strict=True):
                sample = dataset.raw_samples[index]
                for name, image in images.items():
                    if (name, sample.fname.name) not in finished:
                        sampled = None if name == REFERENCE else mask
                        writers[name].add(sample.fname.name, sample.slice_ind, image, mask=sampled)
        for writer in writers.values():
            writer.close()
    finally:
        for writer in writers.values():
            writer.discard()


def _read_settings(folder: Path) -> dict[str, Any]:
    file = folder / "settings.json"
    document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {"weights": {}, "volumes": {}, **document}


def reconstruct_slices(
    dataset: IndexedSliceDataset, tasks: Sequence[tuple[int, Weights]], *, num_workers: int, title: str
) -> Generator[Images, None, None]:
    """Reconstruct slices by classical methods, with a progress bar.

    Args:
        dataset: whose transform makes `MoDLSample` with coil maps.
        tasks: index of a slice, and the weights of the methods.
        num_workers: number of processes; 0 for this one.
        title: of the progress bar.

    Yields:
        For each task in turn magnitudes (rows, cols), cropped as fastMRI crops for its leaderboard, by method and,
        where k-space is fully sampled, ``"reference"``; and the mask.

    Raises:
        ChildProcessError: if a process died.
        ValueError: if samples have no coil maps.
    """
    jobs = [(turn, _only(dataset, index), weights) for turn, (index, weights) in enumerate(tasks)]
    results: Any = ((job, _reconstruct(job)) for job in jobs)
    if num_workers > 0 and jobs:
        results = run_in_processes(_reconstruct, jobs, num_workers=min(num_workers, len(jobs)))
    waiting: dict[int, Images] = {}
    following = 0
    with contextlib.closing(results), tqdm(total=len(jobs), desc=title, unit="slice", disable=not jobs) as bar:
        for (turn, _, _), result in results:
            if isinstance(result, str):
                raise ChildProcessError(result)
            bar.update()
            waiting[turn] = result
            while following in waiting:
                yield waiting.pop(following)
                following += 1


def _only(dataset: IndexedSliceDataset, index: int) -> IndexedSliceDataset:
    """A data set of a single slice, to be sent to a process."""
    single = copy.copy(dataset)
    single.raw_samples = [dataset.raw_samples[index]]
    return single


def _reconstruct(job: tuple[int, IndexedSliceDataset, Weights]) -> Images:
    _, dataset, weights = job
    with single_thread():
        sample = dataset[0]
        if sample.sens_maps is None:
            raise ValueError(f"samples must have coil maps, got None for {sample.fname}")
        inputs = (sample.masked_kspace[None], sample.mask[None], sample.sens_maps[None])
        images = {name: CLASSICAL_METHODS[name](*inputs, weight)[0] for name, weight in weights.items()}
        if sample.reference is not None:
            images[REFERENCE] = sample.reference
        cropped = {
            name: crop_like_fastmri(image[None, None], sample.crop_size)[0].numpy().copy()
            for name, image in images.items()
        }
        return cropped, sample.mask.numpy()


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Torch and what NumPy and scikit-learn call use one thread meanwhile: sums do not depend on their number."""
    try:
        from threadpoolctl import threadpool_limits  # comes with scikit-learn
    except ImportError:
        threadpool_limits = contextlib.nullcontext
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
