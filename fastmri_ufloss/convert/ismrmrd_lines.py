"""Which acquisitions of an ISMRMRD file are lines of the image, and where they go."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmri_ufloss.convert.ismrmrd_file import RawScan, flag_mask, import_ismrmrd
from fastmri_ufloss.convert.ismrmrd_header import Geometry

__all__ = ["Lines", "noise_numbers", "place_lines", "select_lines"]

NOISE = "ACQ_IS_NOISE_MEASUREMENT"
CALIBRATION = "ACQ_IS_PARALLEL_CALIBRATION"
SKIPPED = (
    *(NOISE, "ACQ_IS_NAVIGATION_DATA", "ACQ_IS_PHASECORR_DATA", "ACQ_IS_HPFEEDBACK_DATA", "ACQ_IS_DUMMYSCAN_DATA"),
    *("ACQ_IS_RTFEEDBACK_DATA", "ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA"),
    *("ACQ_IS_PHASE_STABILIZATION_REFERENCE", "ACQ_IS_PHASE_STABILIZATION"),
)
OPTIONS = {"contrast": "contrast", "phase": "phase", "repetition": "repetition", "set": "set_"}


@dataclass(frozen=True)
class Lines:
    """Acquisitions and their places.

    Args:
        numbers: of the acquisitions in the file, rising.
        slices: index of the slice of each; 0 in 3D.
        points: place in the slice's k-space of each: the column, or in 3D ``row * cols + col``.
        ranks: 0 for the first acquisition of a place, 1 for the second...
        counts: acquisitions of each place, (slices, cols) or in 3D (1, rows * cols).
        readouts: (start, pre, post, reverse) of each: samples without the first ``pre`` and last ``post``, reversed
            or not, begin at ``start`` of the encoded readout.
    """

    numbers: np.ndarray
    slices: np.ndarray
    points: np.ndarray
    ranks: np.ndarray
    counts: np.ndarray
    readouts: np.ndarray


def noise_numbers(scan: RawScan) -> np.ndarray:
    """The acquisitions that are noise measurements."""
    return np.flatnonzero(scan.heads["flags"] & flag_mask(import_ismrmrd(), NOISE))


def select_lines(scan: RawScan, chosen: Mapping[str, int | None]) -> tuple[np.ndarray, np.ndarray, Any]:
    """The acquisitions of one image.

    Noise, navigators, phase correction, feedback, dummies and other helpers of the scanner are skipped. Lines of
    calibration only (ACS) are taken if they are part of the image's k-space: not if the header says that the
    calibration is separate or external, nor if they have another encoding space or size.

    Args:
        scan: the file.
        chosen: values of the counters contrast, phase, repetition and set; None takes the only one.

    Returns:
        Numbers of the acquisitions, whether each is for calibration only, and the encoding of the header.

    Raises:
        ValueError: if there are none, or they are of several images, encodings or sizes.
    """
    ismrmrd, heads = import_ismrmrd(), scan.heads
    numbers = np.flatnonzero((heads["flags"] & flag_mask(ismrmrd, *SKIPPED)) == 0)
    calibration = (heads["flags"] & flag_mask(ismrmrd, CALIBRATION)) != 0
    calibration &= (heads["flags"] & flag_mask(ismrmrd, f"{CALIBRATION}_AND_IMAGING")) == 0
    calibration = calibration[numbers]
    if calibration.all():
        raise ValueError(
            f"{scan.path} must have acquisitions of an image, got {len(numbers)} of calibration and "
            f"{len(heads) - len(numbers)} of noise, navigators and the like"
        )
    imaging = numbers[~calibration]
    for name, option in OPTIONS.items():
        value = _choose(scan, imaging, name, option, chosen.get(name))
        imaging = imaging[heads[name][imaging] == value]
        kept = heads[name][numbers] == value
        numbers, calibration = numbers[kept], calibration[kept]
    encoding = _find_encoding(scan, imaging)
    _check_sizes(scan.path, heads, imaging)
    first = heads[imaging[0]]
    mode = getattr(getattr(encoding, "parallelImaging", None), "calibrationMode", None)
    kept = ~calibration
    if getattr(mode, "value", mode) not in ("separate", "external"):
        for name in ("encoding_space_ref", "number_of_samples", "active_channels"):
            calibration = calibration & (heads[name][numbers] == first[name])
        kept = kept | calibration
    return numbers[kept], calibration[kept], encoding


def place_lines(
    scan: RawScan, numbers: np.ndarray, calibration: np.ndarray, geometry: Geometry, *, average_repeats: bool = False
) -> Lines:
    """Where lines go.

        place = kspace_encode_step - center of its limits + encoded matrix // 2

    Args:
        scan: the file.
        numbers, calibration: see `select_lines`. A calibration line is left out where the image has a line.
        geometry: of the grid.
        average_repeats: take repeated lines for averages.

    Raises:
        ValueError: if a line is outside the grid or repeated, or slices have different lines.
    """
    heads, (rows, cols) = scan.heads, geometry.size
    first = _place(scan, numbers, "kspace_encode_step_1", geometry.shifts[0], rows if geometry.is_3d else cols)
    if geometry.is_3d:
        _check_single(
            scan, numbers, "slice", "slabs, each to be reconstructed by itself: put one into a file of its own"
        )
        points = first * cols + _place(scan, numbers, "kspace_encode_step_2", geometry.shifts[1], cols)
        slices, size = np.zeros_like(points), rows * cols
    else:
        _check_single(
            scan, numbers, "kspace_encode_step_2", "steps of a 3D scan, for which matrixSize.z must be above 1"
        )
        points, slices, size = first, _index_slices(scan, numbers), cols
    places = slices * size + points
    kept = ~calibration | ~np.isin(places, places[~calibration])
    numbers, slices, points, places = numbers[kept], slices[kept], points[kept], places[kept]
    if not average_repeats:
        _check_repeats(scan, numbers, places)
    counts = np.bincount(places, minlength=(int(slices.max()) + 1) * size).reshape(-1, size)
    _check_slices(scan.path, heads["slice"][numbers].min(), counts, geometry.shifts[0])
    return Lines(numbers, slices, points, _rank(places), counts, _place_readouts(scan, numbers, geometry.samples))


def _choose(scan: RawScan, numbers: np.ndarray, name: str, option: str, chosen: int | None) -> int:
    values = np.unique(scan.heads[name][numbers]).tolist()
    listed = ", ".join(map(str, values[:20])) + ("..." if len(values) > 20 else "")
    if chosen is None and len(values) == 1:
        return int(values[0])
    if chosen is None:
        raise ValueError(f"{scan.path} must have one {name}, got {listed}: choose one by {option}=")
    if chosen not in values:
        raise ValueError(f"{scan.path}: {option} must be one of those in the file, {listed}, got {chosen}")
    return chosen


def _find_encoding(scan: RawScan, numbers: np.ndarray) -> Any:
    references = np.unique(scan.heads["encoding_space_ref"][numbers]).tolist()
    if len(references) > 1:
        raise ValueError(
            f"{scan.path} must have acquisitions of one encoding, got those of encodings {references} "
            "(encoding_space_ref): put each into a file of its own"
        )
    encodings = scan.header.encoding
    if references[0] >= len(encodings):
        raise ValueError(
            f"{scan.path}: acquisitions refer to encoding {references[0]} (encoding_space_ref), but the header has "
            f"{len(encodings)}: correct it"
        )
    return encodings[references[0]]


def _check_sizes(path: Path, heads: np.ndarray, numbers: np.ndarray) -> None:
    for name, word in (("active_channels", "coils"), ("number_of_samples", "samples")):
        values = heads[name][numbers]
        other = np.flatnonzero(values != values[0])
        if other.size:
            raise ValueError(
                f"{path} must have the same number of {word} in all acquisitions, got {values[0]} in acquisition "
                f"{numbers[0]}, {values[other[0]]} in acquisition {numbers[other[0]]} ({other.size} differ from the "
                "first): leave out those that are not of the image"
            )
        if values[0] < 1:
            raise ValueError(f"{path}: acquisition {numbers[0]} has no {word}: the file is damaged")


def _check_single(scan: RawScan, numbers: np.ndarray, name: str, meaning: str) -> None:
    values = np.unique(scan.heads[name][numbers]).tolist()
    if len(values) > 1:
        other = "'2d'" if name == "slice" else "'3d'"
        raise ValueError(
            f"{scan.path} must have one {name}, got {len(values)} from {values[0]} to {values[-1]}: they are "
            f"{meaning}; or choose dimensions {other}"
        )


def _place(scan: RawScan, numbers: np.ndarray, name: str, shift: int, size: int) -> np.ndarray:
    values = scan.heads[name][numbers]
    places = values + shift
    outside = np.flatnonzero((places < 0) | (places >= size))
    if outside.size:
        one = outside[0]
        raise ValueError(
            f"{scan.path}: {name} must be from {-shift} to {size - 1 - shift}, for {size} encoded lines and the "
            f"centre {size // 2 - shift}, got {values[one]} in acquisition {numbers[one]}: correct matrixSize or the "
            "encodingLimits of the header"
        )
    return np.asarray(places)


def _index_slices(scan: RawScan, numbers: np.ndarray) -> np.ndarray:
    slices = scan.heads["slice"][numbers]
    values = np.unique(slices)
    missing = sorted(set(range(int(values[0]), int(values[-1]) + 1)) - set(values.tolist()))
    if missing:
        raise ValueError(
            f"{scan.path} has missing lines: none of slices {missing[:10]}, but of {values[0]} to {values[-1]}"
        )
    return np.asarray(slices - values[0])


def _check_repeats(scan: RawScan, numbers: np.ndarray, places: np.ndarray) -> None:
    averages = scan.heads["average"][numbers]
    order = np.lexsort((numbers, averages, places))
    same = (np.diff(places[order]) == 0) & (np.diff(averages[order]) == 0)
    if same.any():
        first, second = order[np.flatnonzero(same)[0] :][:2]
        head = scan.heads[numbers[first]]
        raise ValueError(
            f"{scan.path} has {np.count_nonzero(same)} repeated lines: acquisitions {numbers[first]} and "
            f"{numbers[second]} are both of slice {head['slice']}, kspace_encode_step_1 "
            f"{head['kspace_encode_step_1']}, kspace_encode_step_2 {head['kspace_encode_step_2']}, average "
            f"{head['average']}: if they are averages, set average_repeats"
        )


def _check_slices(path: Path, first_slice: int, counts: np.ndarray, shift: int) -> None:
    sampled = counts > 0
    complete = sampled.any(axis=0)
    for index in np.flatnonzero((sampled != complete).any(axis=1))[:1].tolist():
        lines = (np.flatnonzero(complete & ~sampled[index]) - shift).tolist()
        raise ValueError(
            f"{path} has missing lines: slice {first_slice + index} has no lines {lines[:10]} "
            f"(kspace_encode_step_1; {len(lines)} in all), which other slices have"
        )


def _rank(places: np.ndarray) -> np.ndarray:
    """How many of the same value come before each."""
    order = np.argsort(places, kind="stable")
    ordered = places[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    ranks = np.empty(len(places), dtype=np.int64)
    ranks[order] = np.arange(len(places)) - np.repeat(starts, np.diff(starts, append=len(places)))
    return ranks


def _place_readouts(scan: RawScan, numbers: np.ndarray, samples: int) -> np.ndarray:
    """See `Lines`. The centre sample is that of the readout in the order of k-space, as scanners write it."""
    heads = scan.heads[numbers]
    pre, post, size = heads["discard_pre"], heads["discard_post"], heads["number_of_samples"]
    reverse = ((heads["flags"] & flag_mask(import_ismrmrd(), "ACQ_IS_REVERSE")) != 0).astype(np.int64)
    center = heads["center_sample"] - np.where(reverse == 1, post, pre)
    left = size - pre - post
    # some writers leave the centre at 0; a full readout has one place only
    center = np.where((heads["center_sample"] == 0) & (left == samples), samples // 2, center)
    start = samples // 2 - center
    outside = np.flatnonzero((start < 0) | (start + left > samples) | (left < 1))
    if outside.size:
        one = outside[0]
        raise ValueError(
            f"{scan.path}: the readout must be in the encoded matrix of {samples} samples, got {size[one]} samples, "
            f"center_sample {heads['center_sample'][one]}, discard_pre {pre[one]} and discard_post {post[one]} in "
            f"acquisition {numbers[one]}: correct matrixSize.x of the header, or the acquisitions"
        )
    return np.stack([start, pre, post, reverse], axis=1)
