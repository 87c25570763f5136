"""A run of classical methods: weights from the validation split, and volumes into a folder, slices side by side."""

import contextlib
import copy
import json
import math
import os
import textwrap
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from fastmri_ufloss.baselines.methods import CLASSICAL_METHODS
from fastmri_ufloss.checks import check
from fastmri_ufloss.data.index import list_volumes
from fastmri_ufloss.data.reconstruction_writer import ReconstructionWriter, crop_like_fastmri
from fastmri_ufloss.data.slices import IndexedSliceDataset
from fastmri_ufloss.files import file_stamp, name_some, write_json
from fastmri_ufloss.mri import combine_sets
from fastmri_ufloss.workers import run_in_processes

__all__ = [
    "check_settings",
    "check_split",
    "finished_files",
    "launcher_rank",
    "method_folders",
    "note_by_hand",
    "reconstruct_volumes",
    "search_weights",
    "volume_slices",
    "volume_stamps",
]

REFERENCE = "reference"
SCORE = "mean NRMSE over the volumes, magnitudes against the coil-combined image"
FACTOR = 4.0  # between neighbors on the grid
NUM_REFINEMENTS = 2
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))  # torchrun, srun

Weights = Mapping[str, float | None]  # by method; None for the default, or where there is none
Images = tuple[dict[str, np.ndarray], np.ndarray]  # magnitudes by name, and the mask of the sample


def next_weights(scores: Mapping[float, float], *, start: float, bounds: tuple[float, float]) -> list[float]:
    """The weights whose scores a search needs next; none at its end, when `best_weight` is what was searched for.

    The first weights are the start and its neighbors on a logarithmic grid. While the best weight, with the lowest
    score, is at an end, the grid goes on there, up to a bound. Then each refinement tries the two midpoints beside
    the best weight. ValueError if the start is not within the bounds, or the bounds are not positive.
    """
    low, high = bounds
    check(0 < low <= start <= high < math.inf, "start", f"within the positive bounds {bounds}", start)

    def weight_at(place: float) -> float:
        return _round(min(max(start * FACTOR**place, low), high))

    places, step = [-1.0, 0.0, 1.0], 1.0
    while not (unknown := [weight for weight in dict.fromkeys(map(weight_at, places)) if weight not in scores]):
        best = min(places, key=lambda place: _rank(scores, weight_at(place)))
        beyond = best - 1 if best == places[0] else best + 1
        if step == 1 and best in (places[0], places[-1]) and weight_at(beyond) != weight_at(best):
            places = sorted((*places, beyond))
        elif step > 0.5**NUM_REFINEMENTS:
            step /= 2
            places = sorted((*places, best - step, best + step))
        else:
            return []
    return unknown


def best_weight(scores: Mapping[float, float]) -> float:
    """The weight with the lowest score, of equal ones the smallest; ValueError if no score is finite."""
    weight = min(scores, key=lambda weight: _rank(scores, weight))
    check(math.isfinite(scores[weight]), "scores", "finite for some weight", scores)
    return weight


def _rank(scores: Mapping[float, float], weight: float) -> tuple[float, float]:
    return scores[weight] if math.isfinite(scores[weight]) else math.inf, weight


def _round(weight: float) -> float:
    return float(f"{weight:.4g}")  # enough digits to tell weights apart, few enough to type one again


def evenly_spaced(length: int, num_slices: int) -> list[int]:
    """At most ``num_slices``, at least 1, of ``range(length)``, each in the middle of its part."""
    check(num_slices >= 1, "num_slices", "at least 1", num_slices)
    count = min(num_slices, length)
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]


def search_weights(
    dataset: IndexedSliceDataset,
    methods: Sequence[str],
    file: Path,
    *,
    settings: Mapping[str, Any],
    num_slices: int = 12,
    num_workers: int = 0,
) -> dict[str, dict[str, Any]]:
    """The weights of classical methods (`next_weights`) with the lowest error on some slices of a data set.

    The error is the NRMSE, |x - t| / |t| over the slices of a volume, averaged over the volumes.

    Args:
        dataset: the validation split, whose transform makes `MoDLSample` with coil maps and reference.
        methods: names of methods with a weight.
        file: ``weights.json``, for all that was tried; a search that was interrupted goes on from there.
        settings: what the scores depend on, beside the slices, which are evenly spaced.

    Returns:
        By method ``weight``, its score ``NRMSE``, ``at bound`` (the minimum may lie beyond), and ``tried``, rows of
        ``weight`` and ``NRMSE``.

    Raises:
        ValueError: if ``file`` was made with other settings, the split is undersampled, or no weight gives an image.
    """
    samples = {index: dataset.raw_samples[index] for index in evenly_spaced(len(dataset), num_slices)}
    document: dict[str, Any] = {
        "split": str(dataset.raw_samples[0].fname.parent.resolve()),
        "score": SCORE,
        "settings": json.loads(json.dumps(settings, default=str)),
        "slices": [
            {"volume": sample.fname.name, "slice": sample.slice_ind, "size": size, "mtime": mtime}
            for sample in samples.values()
            for size, mtime in [file_stamp(sample.fname)]
        ],
    }
    stored = _read(file)
    if "split" in stored:  # otherwise all weights are by hand
        _refuse_others(file, stored, document, document)
    results = document["methods"] = stored["methods"]
    grids: dict[str, Any] = {}
    scores: dict[str, dict[float, float]] = {}
    for name in methods:
        method = CLASSICAL_METHODS[name]
        check(method.bounds is not None, "methods", "those that have a weight", repr(name))
        grids[name] = {"start": method.start, "bounds": method.bounds}
        scores[name] = {row["weight"]: row["NRMSE"] for row in results.get(name, {}).get("tried", [])}

    def note(name: str, **values: Any) -> None:
        rows = [{"weight": weight, "NRMSE": score} for weight, score in sorted(scores[name].items())]
        results[name] = {**values, "tried": rows}
        write_json(file, document)

    while tasks := [
        (index, {name: weight})
        for name in methods
        for weight in next_weights(scores[name], **grids[name])
        for index in samples
    ]:
        runs = _reconstruct_slices(dataset, tasks, num_workers=num_workers, title="Search of weights")
        sums: dict[Path, np.ndarray] = {}
        with contextlib.closing(runs):
            for (index, candidate), (images, _) in zip(tasks, runs, strict=True):
                ((name, weight),) = candidate.items()
                path = samples[index].fname
                sums[path] = sums.get(path, 0) + _error(path, images, name)
                if index == max(samples):  # the last of this weight
                    # a volume without signal has no NRMSE
                    ratios = [np.sqrt(error / energy) for error, energy in sums.values() if energy > 0]
                    scores[name][weight] = float(np.mean(ratios))
                    note(name)
                    sums = {}
    for name in methods:
        weight = best_weight(scores[name])
        is_at_bound = weight in map(_round, grids[name]["bounds"])
        note(name, **{"weight": weight, "NRMSE": scores[name][weight], "at bound": is_at_bound})
    return {name: results[name] for name in methods}


def _error(path: Path, images: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The squared error of a slice by a method, and the energy of the reference."""
    if REFERENCE not in images:
        raise ValueError(
            f"weights are searched on fully sampled data, unlike {path}: give them by hand, {name}=VALUE"
        )
    image, target = (torch.from_numpy(images[key]).double() for key in (name, REFERENCE))
    with _single_thread():
        return np.array([(image - target).square().sum().item(), target.square().sum().item()])


def _read(file: Path) -> dict[str, Any]:
    """What an earlier search has noted."""
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {"methods": {}}


def note_by_hand(file: Path, weights: Mapping[str, float]) -> None:
    """Note weights that were not searched in ``weights.json``, beside those that were."""
    document = _read(file)
    for name, weight in weights.items():
        tried = document["methods"].get(name, {}).get("tried", [])
        document["methods"][name] = {"weight": weight, "by hand": True, "tried": tried}
    write_json(file, document)


def check_split(val: Path, test: Path, methods: Sequence[str]) -> None:
    """Raise FileNotFoundError without volumes, and ValueError for one that is to be reconstructed, or its copy."""
    by_hand = f"give the weights by hand: {' '.join(f'{name}=VALUE' for name in methods)}"
    try:
        known = set().union(*map(_identity, list_volumes(val)))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no volumes in {val} to search weights on ({error}), and they are never searched on the images that are "
            f"reconstructed: {by_hand}"
        ) from error
    shared = [path.name for path in list_volumes(test) if known & _identity(path)]
    if shared:
        raise ValueError(
            f"{test}, which is to be reconstructed, has {len(shared)} of the volumes of {val} ({shared[0]}), on "
            "which the weights are searched: they must not be chosen on their own test. Take another folder, or "
            f"{by_hand}"
        )


def _identity(path: Path) -> set[tuple[object, ...]]:
    """What a file shares with its links, and what with its copies."""
    status = path.stat()
    with open(path, "rb") as file:
        file.seek(status.st_size // 2)
        return {(status.st_dev, status.st_ino), (path.name, status.st_size, file.read(2**16))}


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
    """Size and time of each volume of a folder, and of its coil maps if they are given, by file name."""
    stamps = {}
    for path in list_volumes(folder):
        files = [path] if sens_maps_path is None else [path, sens_maps_path / path.name]
        stamps[path.name] = [value for file in files if file.is_file() for value in file_stamp(file)]
    return stamps


def launcher_rank() -> tuple[int, int]:
    """Number of this process and number of processes that torchrun or srun has started; (0, 1) without them."""
    for rank, world_size in LAUNCHERS:
        if rank in os.environ and world_size in os.environ:
            return int(os.environ[rank]), int(os.environ[world_size])
    return 0, 1


def check_settings(folder: Path, settings: Mapping[str, Any], weights: Weights) -> None:
    """Raise ValueError if the images in the folder of a run were made with other settings, or of other volumes.

    The settings are plain values that the images of every method depend on; ``volumes`` are `volume_stamps`.
    """
    stored = _read_settings(folder)
    if not stored["weights"]:
        return
    volumes = stored["volumes"]
    changed = [name for name, stamp in volumes.items() if settings["volumes"].get(name, stamp) != stamp]
    if changed:
        text = f"{len(changed)} files, or of their coil maps, that have changed since: {name_some(changed)}"
        raise ValueError(f"{folder} has images of {text}. Take another folder, or remove it")
    _refuse_others(folder, stored, settings, (stored.keys() | settings) - {"weights", "volumes"})
    _refuse_others(folder, stored["weights"], weights, stored["weights"].keys() & weights, what="the weight of ")


def _refuse_others(
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
        settings: see `check_settings`, which raises ValueError.
        num_workers: number of processes, which share the slices; 0 for this one. ChildProcessError if one dies.
        rank, world_size: this call and the number of calls that share the volumes.
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
    writers = {name: ReconstructionWriter(files) for name, files in method_folders(folder, weights).items()}
    results = _reconstruct_slices(dataset, tasks, num_workers=num_workers, title="Reconstructions")
    with contextlib.ExitStack() as stack:
        for writer in writers.values():
            stack.callback(writer.discard)
        stack.enter_context(contextlib.closing(results))
        for (index, _), (images, mask) in zip(tasks, results, strict=True):
            sample = dataset.raw_samples[index]
            for name, image in images.items():
                if (name, sample.fname.name) not in finished:
                    sampled = None if name == REFERENCE else mask
                    writers[name].add(sample.fname.name, sample.slice_ind, image, mask=sampled)
        for writer in writers.values():
            writer.close()


def _read_settings(folder: Path) -> dict[str, Any]:
    file = folder / "settings.json"
    document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {"weights": {}, "volumes": {}, **document}


def _reconstruct_slices(
    dataset: IndexedSliceDataset, tasks: Sequence[tuple[int, Weights]], *, num_workers: int, title: str
) -> Generator[Images, None, None]:
    """Reconstruct slices, each by some methods, in their order, with a progress bar.

    The magnitudes are cropped for fastMRI's leaderboard; those of fully sampled slices include the reference.
    """
    jobs = []
    for turn, (index, weights) in enumerate(tasks):
        single = copy.copy(dataset)  # all that a process has to be sent
        single.raw_samples = [dataset.raw_samples[index]]
        jobs.append((turn, single, weights))
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


def _reconstruct(job: tuple[int, IndexedSliceDataset, Weights]) -> Images:
    _, dataset, weights = job
    with _single_thread():
        sample = dataset[0]
        inputs = (sample.masked_kspace[None], sample.mask[None], sample.sens_maps[None])
        images = {name: combine_sets(CLASSICAL_METHODS[name](*inputs, weight))[0] for name, weight in weights.items()}
        if sample.reference is not None:
            images[REFERENCE] = sample.reference
        cropped = {
            name: crop_like_fastmri(image[None, None], sample.crop_size)[0].numpy().copy()
            for name, image in images.items()
        }
        return cropped, sample.mask.numpy()


@contextlib.contextmanager
def _single_thread() -> Iterator[None]:
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
