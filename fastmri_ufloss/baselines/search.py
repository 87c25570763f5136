"""Regularisation weights of classical methods, searched on a logarithmic grid on the validation split."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastmri_ufloss.baselines.methods import CLASSICAL_METHODS
from fastmri_ufloss.baselines.slices import reconstruct, reference_magnitude, run_slices
from fastmri_ufloss.data.index import list_volumes
from fastmri_ufloss.data.slices import IndexedSliceDataset
from fastmri_ufloss.data.transforms import MoDLSample
from fastmri_ufloss.files import file_stamp, write_json

__all__ = ["best_weight", "check_split", "evenly_spaced", "next_weights", "note_by_hand", "search_weights"]

SCORE = "mean NRMSE over the volumes, magnitudes against the coil-combined image"
_DIGITS = 4  # of a weight: enough to tell candidates apart, few enough to type one again


def next_weights(
    scores: Mapping[float, float],
    *,
    start: float,
    bounds: tuple[float, float],
    factor: float = 4.0,
    num_refinements: int = 2,
) -> list[float]:
    """The weights whose scores a search needs next; none at its end, when `best_weight` is what was searched for.

    The first candidates are the start and its neighbors on a logarithmic grid, start * factor^k. While the best
    candidate is at an end, the grid goes on there, up to a bound. Then the two midpoints beside the best candidate
    are tried, ``num_refinements`` times: with the defaults, neighbors of the result are factors of sqrt(2) apart. A
    function with one minimum has it between these neighbors. No random number is drawn.

    Args:
        scores: by weight, all that are known; the lowest is the best, what is not finite is worse than all others.
        start: of the grid, within the bounds.
        bounds: smallest and largest weight.
        factor: of the grid, above 1.
        num_refinements: how often the grid is halved around the best weight, at least 0.

    Raises:
        ValueError: if an argument is out of range.
    """
    low, high = bounds
    if not 0 < low <= start <= high < math.inf:
        raise ValueError(f"start must lie within the bounds, which are positive, got {start} and {bounds}")
    if not factor > 1 or num_refinements < 0:
        raise ValueError(f"factor must be above 1 and num_refinements at least 0, got {factor} and {num_refinements}")

    def weight_at(place: float) -> float:
        return _round(min(max(start * factor**place, low), high))

    for places in _places(scores, weight_at, num_refinements):
        missing = [weight for weight in dict.fromkeys(map(weight_at, places)) if weight not in scores]
        if missing:
            return missing
    return []


def _places(scores: Mapping[float, float], weight_at: Any, num_refinements: int) -> Iterator[list[float]]:
    """Exponents of the grid, step by step; the search goes on when all of them have a score."""
    places = [-1.0, 0.0, 1.0]
    yield places

    def best() -> float:
        return min(places, key=lambda place: _rank(scores, weight_at(place)))

    while best() in (places[0], places[-1]):
        place = places[0] - 1 if best() == places[0] else places[-1] + 1
        if weight_at(place) == weight_at(best()):
            break  # at a bound
        places = sorted((*places, place))
        yield [place]
    for halving in range(1, num_refinements + 1):
        between = [best() - 0.5**halving, best() + 0.5**halving]
        places = sorted((*places, *between))
        yield between


def best_weight(scores: Mapping[float, float]) -> float:
    """The weight with the lowest score; of equal ones the smallest.

    Raises:
        ValueError: if no score is finite.
    """
    weight = min(scores, key=lambda weight: _rank(scores, weight))
    if not math.isfinite(scores[weight]):
        raise ValueError(f"scores must be finite for some weight, got {scores}")
    return weight


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most ``count`` of ``range(length)``, each in the middle of its part.

    Raises:
        ValueError: if there is nothing to take from, or nothing to take.
    """
    if length < 1 or count < 1:
        raise ValueError(f"length and count must be at least 1, got {length} and {count}")
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
    """The weights of classical methods with the lowest error on some slices of a data set.

    The search of each method (`next_weights`) has the start and the bounds of `CLASSICAL_METHODS`. The error is the
    NRMSE, |x - t| / |t| over the slices of a volume, averaged over the volumes. The slices are spread evenly over
    all those of the data set.

    Args:
        dataset: whose transform makes `MoDLSample` with coil maps and reference; the validation split.
        methods: names of those with a weight.
        file: ``weights.json``, for all that was tried; a search that was interrupted goes on from it.
        settings: what the scores depend on, beside the slices.
        num_slices: how many slices are searched on, at least 1.
        num_workers: number of processes; 0 for this one.

    Returns:
        By method ``weight``, its score ``NRMSE``, ``at bound``, which says whether the minimum may lie beyond the
        bounds, and ``tried``, rows of ``weight`` and ``NRMSE``.

    Raises:
        ValueError: if ``file`` was made with other settings, a method has no weight, num_slices is out of range, the
            split is undersampled, or no weight gives an image.
    """
    if num_slices < 1:
        raise ValueError(f"num_slices must be at least 1, got {num_slices}")
    for name in methods:
        if CLASSICAL_METHODS[name].bounds is None:
            raise ValueError(f"methods must be those that have a weight, got {name!r}")
    indices = evenly_spaced(len(dataset), num_slices)
    volumes = {index: dataset.raw_samples[index].fname for index in indices}
    slices = [
        {"volume": path.name, "slice": dataset.raw_samples[index].slice_ind, "size": size, "mtime": mtime}
        for index, path in volumes.items()
        for size, mtime in [file_stamp(path)]
    ]
    document: dict[str, Any] = {
        "split": str(volumes[indices[0]].parent.resolve()),
        "score": SCORE,
        "settings": json.loads(json.dumps(settings, default=str)),
        "slices": slices,
    }
    results = document["methods"] = {**_read_methods(file, document)}
    scores: dict[str, dict[float, float]] = {}
    for name in methods:
        tried = results.setdefault(name, {"tried": []}).get("tried", [])
        scores[name] = {row["weight"]: row["NRMSE"] for row in tried}
    while tasks := [
        (index, (name, weight)) for name in methods for weight in _candidates(name, scores[name]) for index in indices
    ]:
        errors: dict[tuple[str, float], dict[int, tuple[float, float]]] = {}
        runs = run_slices(_error, dataset, tasks, num_workers=num_workers, title="Search of weights")
        with contextlib.closing(runs):
            for index, candidate, error in runs:
                of_candidate = errors.setdefault(candidate, {})
                of_candidate[index] = error
                if len(of_candidate) == len(indices):
                    name, weight = candidate
                    scores[name][weight] = _mean_nrmse([(volumes[i], *of_candidate[i]) for i in indices])
                    results[name] = {"tried": _rows(scores[name])}
                    write_json(file, document)
    for name in methods:
        weight = best_weight(scores[name])
        at_bound = weight in map(_round, CLASSICAL_METHODS[name].bounds or ())
        values = {"weight": weight, "NRMSE": scores[name][weight], "at bound": at_bound}
        results[name] = {**values, "tried": _rows(scores[name])}
    write_json(file, document)
    return {name: results[name] for name in methods}


def note_by_hand(file: Path, weights: Mapping[str, float]) -> None:
    """Note weights that were not searched in ``weights.json``, beside those that were."""
    document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"methods": {}}
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
    links = {(path.stat().st_dev, path.stat().st_ino) for path in list_volumes(val)}
    samples = {(path.name, path.stat().st_size): path for path in list_volumes(val)}
    shared = []
    for path in list_volumes(test):
        status = path.stat()
        alike = samples.get((path.name, status.st_size))
        if (status.st_dev, status.st_ino) in links or (alike is not None and _part(path) == _part(alike)):
            shared.append(path)
    if shared:
        raise ValueError(
            f"{test}, which is to be reconstructed, has {len(shared)} of the volumes of {val} ({shared[0].name}), on "
            "which the weights are searched: they must not be chosen on their own test. Take another folder, or "
            f"{by_hand}"
        )


def _candidates(name: str, scores: Mapping[float, float]) -> list[float]:
    start, bounds = CLASSICAL_METHODS[name].start, CLASSICAL_METHODS[name].bounds
    return [] if start is None or bounds is None else next_weights(scores, start=start, bounds=bounds)


def _error(sample: MoDLSample, candidate: tuple[str, float]) -> tuple[float, float]:
    """Squared error of a slice, and the energy of its reference."""
    name, weight = candidate
    reference = reference_magnitude(sample)
    if reference is None:
        raise ValueError(
            f"{sample.fname} of the validation split is undersampled, and weights are searched on fully sampled data: "
            f"give them by hand, {name}=VALUE"
        )
    target = torch.from_numpy(reference).double()
    image = torch.from_numpy(reconstruct(name, sample, weight)).double()
    return float((image - target).square().sum()), float(target.square().sum())


def _mean_nrmse(errors: Sequence[tuple[Path, float, float]]) -> float:
    """The mean over volumes; those without signal have no NRMSE."""
    sums: dict[Path, list[float]] = {}
    for path, error, energy in errors:
        of_volume = sums.setdefault(path, [0.0, 0.0])
        of_volume[0] += error
        of_volume[1] += energy
    return float(np.mean([np.sqrt(error / energy) for error, energy in sums.values() if energy > 0]))


def _read_methods(file: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """The methods of an earlier search.

    Raises:
        ValueError: if the search had other slices or settings.
    """
    stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"methods": {}}
    for name in ("split", "settings", "slices") if "split" in stored else ():  # otherwise all weights are by hand
        if stored.get(name) != document[name]:
            raise ValueError(
                f"{file} was made with {name} {_short(stored.get(name))}, not {_short(document[name])}: take the same "
                "settings again, remove the file, or take another folder"
            )
    return dict(stored["methods"])


def _part(path: Path) -> bytes:
    """From the middle of a file."""
    with open(path, "rb") as file:
        file.seek(path.stat().st_size // 2)
        return file.read(2**20)


def _rank(scores: Mapping[float, float], weight: float) -> tuple[float, float]:
    return scores[weight] if math.isfinite(scores[weight]) else math.inf, weight


def _round(weight: float) -> float:
    return float(f"{weight:.{_DIGITS}g}")


def _rows(scores: Mapping[float, float]) -> list[dict[str, float]]:
    return [{"weight": weight, "NRMSE": score} for weight, score in sorted(scores.items())]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 300 else f"{text[:300]}..."
