"""Regularization weights of classical methods, searched on a logarithmic grid on the validation split."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastmri_ufloss.baselines.methods import CLASSICAL_METHODS
from fastmri_ufloss.baselines.volumes import REFERENCE, reconstruct_slices, refuse_others, single_thread
from fastmri_ufloss.data.checks import check
from fastmri_ufloss.data.index import list_volumes
from fastmri_ufloss.data.slices import IndexedSliceDataset
from fastmri_ufloss.files import file_stamp, write_json

__all__ = ["best_weight", "check_split", "evenly_spaced", "next_weights", "note_by_hand", "search_weights"]

SCORE = "mean NRMSE over the volumes, magnitudes against the coil-combined image"


def next_weights(
    scores: Mapping[float, float],
    *,
    start: float,
    bounds: tuple[float, float],
    factor: float = 4.0,
    num_refinements: int = 2,
) -> list[float]:
    """The weights whose scores a search needs next; none at its end, when `best_weight` is what was searched for.

    The first weights are the start and its neighbors on a logarithmic grid, start * factor^k. While the best weight
    is at an end, the grid goes on there, up to a bound. Then the two midpoints beside the best weight are tried,
    ``num_refinements`` times.

    Args:
        scores: by weight, all that are known; the lowest is the best, what is not finite is worse than all others.
        start: within the bounds, smallest and largest weight, which are above 0.
        factor: above 1.
        num_refinements: at least 0.

    Raises:
        ValueError: if an argument is out of range.
    """
    low, high = bounds
    check(0 < low <= start <= high < math.inf, "start", f"within the positive bounds {bounds}", start)
    check(factor > 1, "factor", "above 1", factor)
    check(num_refinements >= 0, "num_refinements", "at least 0", num_refinements)

    def weight_at(place: float) -> float:
        return _round(min(max(start * factor**place, low), high))

    places, step = [-1.0, 0.0, 1.0], 1.0
    while not (unknown := [weight for weight in dict.fromkeys(map(weight_at, places)) if weight not in scores]):
        best = min(places, key=lambda place: _rank(scores, weight_at(place)))
        beyond = best - 1 if best == places[0] else best + 1
        if step == 1 and best in (places[0], places[-1]) and weight_at(beyond) != weight_at(best):
            places = sorted((*places, beyond))
        elif step > 0.5**num_refinements:
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


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most ``count`` of ``range(length)``, each in the middle of its part; ValueError if either is below 1."""
    check(length >= 1 and count >= 1, "length and count", "at least 1", f"{length} and {count}")
    count = min(count, length)
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
        settings: what the scores depend on, beside the slices.
        num_slices: how many slices are searched on, evenly spaced, at least 1.
        num_workers: number of processes; 0 for this one.

    Returns:
        By method ``weight``, its score ``NRMSE``, ``at bound``, which says that the minimum may lie beyond the
        bounds, and ``tried``, rows of ``weight`` and ``NRMSE``.

    Raises:
        ValueError: if ``file`` was made with other settings, a method has no weight, num_slices is out of range, the
            split is undersampled, or no weight gives an image.
    """
    check(num_slices >= 1, "num_slices", "at least 1", num_slices)
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
        refuse_others(file, stored, document, document)
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
        runs = reconstruct_slices(dataset, tasks, num_workers=num_workers, title="Search of weights")
        sums: dict[Path, np.ndarray] = {}
        with contextlib.closing(runs):
            for (index, candidate), (images, _) in zip(tasks, runs, strict=True):
                ((name, weight),) = candidate.items()
                path = samples[index].fname
                sums[path] = sums.get(path, 0) + _error(path, images, name)
                if index == max(samples):  # the last of this weight
                    scores[name][weight] = _mean_nrmse(sums)
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
            f"{path} of the validation split is undersampled, and weights are searched on fully sampled data: give "
            f"them by hand, {name}=VALUE"
        )
    image, target = (torch.from_numpy(images[key]).double() for key in (name, REFERENCE))
    with single_thread():
        return np.array([(image - target).square().sum().item(), target.square().sum().item()])


def _mean_nrmse(sums: Mapping[Path, np.ndarray]) -> float:
    """The mean over volumes; a volume without signal has no NRMSE."""
    return float(np.mean([np.sqrt(error / energy) for error, energy in sums.values() if energy > 0]))


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
    """Make sure that weights can be searched, and not on what is reconstructed.

    Raises:
        FileNotFoundError: if there is no volume in ``val``.
        ValueError: if volumes of ``test`` are, or are links to or copies of, volumes of ``val``.
    """
    by_hand = f"give the weights by hand: {' '.join(f'{name}=VALUE' for name in methods)}"
    if not val.is_dir() or not any(path.suffix in (".h5", ".hdf5") for path in val.iterdir()):
        raise FileNotFoundError(
            f"no volumes in {val} to search weights on, and they are never searched on the images that are "
            f"reconstructed: {by_hand}"
        )
    known = set().union(*map(_identity, list_volumes(val)))
    shared = [path.name for path in list_volumes(test) if known & _identity(path)]
    if shared:
        raise ValueError(
            f"{test}, which is to be reconstructed, has {len(shared)} of the volumes of {val} ({shared[0]}), on "
            "which the weights are searched: they must not be chosen on their own test. Take another folder, or "
            f"{by_hand}"
        )


def _identity(path: Path) -> set[tuple[object, ...]]:
    """What a file shares with its links, and what with its copies: its name, its size and bytes from its middle."""
    status = path.stat()
    with open(path, "rb") as file:
        file.seek(status.st_size // 2)
        return {(status.st_dev, status.st_ino), (path.name, status.st_size, file.read(2**16))}
