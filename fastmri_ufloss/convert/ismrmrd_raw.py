"""Cartesian raw data of scanners (ISMRMRD): which acquisitions are lines of the image, and where they go."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import fft

from fastmri_ufloss.convert.ismrmrd_file import (
    Geometry,
    RawScan,
    acquisition_name,
    anonymous_header,
    field_of,
    header_attributes,
    open_scan,
    read_geometry,
)
from fastmri_ufloss.convert.volumes import naming, noise_covariance, warn_if_undersampled, whitening_matrix
from fastmri_ufloss.data.checks import check
from fastmri_ufloss.data.sampling import find_sampling, padding_of
from fastmri_ufloss.data.volume_file import VolumeWriter
from fastmri_ufloss.files import name_some
from fastmri_ufloss.simulation.mrd_file import flag_mask, import_ismrmrd

__all__ = ["convert_ismrmrd"]

DIMENSIONS = ("auto", "2d", "3d")
TURNED = 16  # slices that are turned at once: their values are next to each other in memory
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
    """Acquisitions and their places."""

    numbers: np.ndarray  # of the acquisitions in the file, rising
    slices: np.ndarray  # index of the slice of each; 0 in 3D
    points: np.ndarray  # place in the slice's k-space of each: the column, or in 3D row * cols + col
    ranks: np.ndarray  # 0 for the first acquisition of a place, 1 for the second...
    counts: np.ndarray  # acquisitions of each place, (slices, cols) or in 3D (1, rows * cols)
    # (start, pre, post, reverse) of each: samples but the first pre and last post, reversed or not, begin at start
    readouts: np.ndarray


def convert_ismrmrd(
    source: Path,
    output: Path,
    *,
    dimensions: Literal["auto", "2d", "3d"] = "auto",
    contrast: int | None = None,
    phase: int | None = None,
    repetition: int | None = None,
    set_: int | None = None,
    average_repeats: bool = False,
    prewhiten: bool = True,
    noise_file: Path | None = None,
    patient_id: str = "",
    acquisition: str | None = None,
    max_memory: int = 2**30,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write the Cartesian raw data of an MRD file as a fastMRI volume.

        image = ifft2c(kspace) of the volume = the image of the file's k-space, cropped to its field of view

    All transforms are centered and orthonormal, so the scale is that of the file. In 2D, slices are those of the file
    (``idx.slice``), rows the readout without its oversampling, columns the phase encoding. In 3D, the readout is
    transformed and its positions become slices; rows are ``kspace_encode_step_1`` and columns ``_step_2``. What was
    not acquired is zero. Averages are averaged, whatever their segment. Lines that were read backwards are turned.
    Lines for calibration only are taken where the image has none, unless the header calls them separate or external.
    Noise, navigators, phase correction, dummies and feedback are left out.

    K-space counts as full if there is no gap in it, see `find_sampling`; what is missing at its borders (partial
    Fourier, the corners of an ellipse) is no gap. With gaps the volume gets the mask of what was acquired, and no
    reconstruction. With a scan of noise, coils are whitened, see `whitening_matrix`: the noise of an acquisition then
    has the covariance 1, and that of n averages 1 / n.

    The volume is made in blocks of slices, for each of which the file is read once: that needs no space on the disk,
    and values do not depend on ``max_memory``. The header is kept as the data set ``source_header`` without what
    identifies the subject.

    Args:
        source: the MRD file, with its acquisitions in the group ``dataset``, or in the only one there is.
        output: path of the volume.
        dimensions: ``"auto"`` is 3D if the header encodes more than one step along z.
        contrast, phase, repetition, set_: which one, if there are several.
        average_repeats: average lines that were acquired twice without being marked as averages.
        prewhiten: whiten the coils by the noise measurements of the file, if it has any.
        noise_file: another MRD file whose noise measurements are taken instead.
        patient_id: of the subject; that of the file is not copied.
        acquisition: fastMRI's name of the contrast; by default the name of the protocol.
        max_memory: bytes of a block, of at least one slice; some 200 MB are needed besides.
        attributes: further attributes of the volume.

    Raises:
        ImportError: if the package ismrmrd is missing.
        ValueError: if the file is broken, not Cartesian, of several images, inconsistent or not finite, or an
            argument does not fit; the message names the file, what it has, and a way out.
        OSError: if a file cannot be read, or the volume cannot be written.
    """
    import_ismrmrd()
    check(dimensions in DIMENSIONS, "dimensions", f"one of {', '.join(DIMENSIONS)}", repr(dimensions))
    check(max_memory >= 1, "max_memory", "at least 1", max_memory)
    check(prewhiten or noise_file is None, "noise_file", "left out without prewhiten", noise_file)
    check(Path(source).resolve() != Path(output).resolve(), "output", "another file than source", output)
    chosen = {"contrast": contrast, "phase": phase, "repetition": repetition, "set": set_}
    with open_scan(Path(source)) as scan:
        numbers, calibration, encoding = _select_lines(scan, chosen)
        geometry = read_geometry(scan.path, encoding, dimensions)
        lines = _place_lines(scan, numbers, calibration, geometry, average_repeats=average_repeats)
        whitener = _find_whitener(scan, lines, noise_file) if prewhiten else None
        mask, padding = _find_mask(scan.path, lines, geometry)
        warn_if_undersampled(Path(output), mask)
        coils = int(scan.heads["active_channels"][lines.numbers[0]])
        facts = {"source_format": "ISMRMRD", "prewhitened": whitener is not None, **header_attributes(scan.header)}
        with VolumeWriter(
            output,
            (geometry.readout if geometry.is_3d else len(lines.counts), coils, *geometry.size),
            recon_size=geometry.recon_size,
            mask=mask,
            padding=padding,
            acquisition=acquisition or acquisition_name(scan.header),
            patient_id=patient_id,
            voxel_size=geometry.voxel_size,
            attributes={**facts, **(attributes or {})},
            datasets={"source_header": anonymous_header(scan)},
        ) as writer:
            for index, kspace in enumerate(_grid_slices(scan, lines, geometry, whitener, writer.shape, max_memory)):
                writer.write(index, kspace)


def _select_lines(scan: RawScan, chosen: Mapping[str, int | None]) -> tuple[np.ndarray, np.ndarray, Any]:
    """The acquisitions of one image.

    Helpers of the scanner are skipped. Lines of calibration only (ACS) are taken if they are part of the image's
    k-space: not if the header says that the calibration is separate or external, nor if they have another encoding
    space or size.

    Returns:
        Indices of the acquisitions, whether each is for calibration only, and the encoding of the header.
    """
    heads = scan.heads
    numbers = np.flatnonzero((heads["flags"] & flag_mask(*SKIPPED)) == 0)
    calibration = (heads["flags"] & flag_mask(CALIBRATION)) != 0
    calibration &= (heads["flags"] & flag_mask(f"{CALIBRATION}_AND_IMAGING")) == 0
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
    mode = field_of(encoding, "parallelImaging.calibrationMode")
    kept = ~calibration
    if getattr(mode, "value", mode) not in ("separate", "external"):
        for name in ("encoding_space_ref", "number_of_samples", "active_channels"):
            calibration = calibration & (heads[name][numbers] == first[name])
        kept = kept | calibration
    return numbers[kept], calibration[kept], encoding


def _place_lines(
    scan: RawScan, numbers: np.ndarray, calibration: np.ndarray, geometry: Geometry, *, average_repeats: bool = False
) -> Lines:
    """Where lines go.

        place = kspace_encode_step - center of its limits + encoded matrix // 2

    A calibration line is left out where the image has a line.
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
    listed = name_some(values, shown=20)
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
        first = outside[0]
        raise ValueError(
            f"{scan.path}: {name} must be from {-shift} to {size - 1 - shift}, for {size} encoded lines and the "
            f"center {size // 2 - shift}, got {values[first]} in acquisition {numbers[first]}: correct matrixSize or "
            "the encodingLimits of the header"
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
    """See `Lines`. The center sample is that of the readout in the order of k-space, as scanners write it."""
    heads = scan.heads[numbers]
    pre, post, size = heads["discard_pre"], heads["discard_post"], heads["number_of_samples"]
    reverse = ((heads["flags"] & flag_mask("ACQ_IS_REVERSE")) != 0).astype(np.int64)
    center = heads["center_sample"] - np.where(reverse == 1, post, pre)
    left = size - pre - post
    # some writers leave the center at 0; a full readout has one place only
    center = np.where((heads["center_sample"] == 0) & (left == samples), samples // 2, center)
    start = samples // 2 - center
    outside = np.flatnonzero((start < 0) | (start + left > samples) | (left < 1))
    if outside.size:
        first = outside[0]
        raise ValueError(
            f"{scan.path}: the readout must be in the encoded matrix of {samples} samples, got {size[first]} "
            f"samples, center_sample {heads['center_sample'][first]}, discard_pre {pre[first]} and discard_post "
            f"{post[first]} in acquisition {numbers[first]}: correct matrixSize.x of the header, or the acquisitions"
        )
    return np.stack([start, pre, post, reverse], axis=1)


def _find_mask(path: Path, lines: Lines, geometry: Geometry) -> tuple[np.ndarray | None, tuple[int, int]]:
    """The mask of undersampled k-space, or None, and the padding."""
    sampled = lines.counts[0].reshape(geometry.size if geometry.is_3d else (1, -1)) > 0
    with naming(path, advice=": correct the encodingLimits of the header"):
        padding = padding_of(sampled)
    return find_sampling(sampled, max_zeros=0), padding


def _find_whitener(scan: RawScan, lines: Lines, noise_file: Path | None) -> np.ndarray | None:
    """The whitening matrix of the noise measurements of a file, or None if there are none."""
    head = scan.heads[lines.numbers[0]]
    if noise_file is None:
        return _read_whitener(scan, head)
    with open_scan(Path(noise_file)) as noise_scan:
        whitener = _read_whitener(noise_scan, head)
    if whitener is None:
        raise ValueError(f"{noise_file} must have noise measurements (ACQ_IS_NOISE_MEASUREMENT), got none")
    return whitener


def _read_whitener(scan: RawScan, head: np.ndarray) -> np.ndarray | None:
    """The whitening matrix for acquisitions with this head, None without noise measurements."""
    numbers = np.flatnonzero(scan.heads["flags"] & flag_mask(NOISE))
    if not numbers.size:
        return None
    heads = scan.heads[numbers]
    coils = int(head["active_channels"])
    other = np.flatnonzero(heads["active_channels"] != coils)
    if other.size:
        raise ValueError(
            f"{scan.path}: noise measurements must have the {coils} coils of the image, got "
            f"{heads['active_channels'][other[0]]} in acquisition {numbers[other[0]]}: set prewhiten to False, or "
            "give another noise_file"
        )
    noise = []
    for index, noise_head in zip(numbers, heads, strict=True):
        for _, samples in scan.read_slabs(np.array([index])):
            stop = samples.shape[2] - int(noise_head["discard_post"])
            noise.append(samples[0, :, int(noise_head["discard_pre"]) : stop])
    bandwidth = field_of(scan.header, "acquisitionSystemInformation.relativeReceiverNoiseBandwidth") or 1.0
    dwell, noise_dwell = float(head["sample_time_us"]), float(heads["sample_time_us"][0])
    ratio = bandwidth * dwell / noise_dwell if dwell > 0 and noise_dwell > 0 else 1.0
    with naming(f"{scan.path}: noise measurements", advice=": set prewhiten to False to skip them"):
        matrix = whitening_matrix(noise_covariance(np.concatenate(noise, axis=1)), bandwidth_ratio=ratio)
    return matrix.astype(np.complex64)


def _grid_slices(
    scan: RawScan,
    lines: Lines,
    geometry: Geometry,
    whitener: np.ndarray | None,
    shape: tuple[int, ...],
    max_memory: int,
) -> Iterator[np.ndarray]:
    """K-space (coils, rows, cols) of one slice after the other."""
    slices, *rest = shape
    block = int(min(max(max_memory // (8 * np.prod(rest)), 1), slices))
    for start in range(0, slices, block):
        yield from _fill_block(scan, lines, geometry, whitener, (min(block, slices - start), *rest), start)


def _fill_block(
    scan: RawScan,
    lines: Lines,
    geometry: Geometry,
    whitener: np.ndarray | None,
    shape: tuple[int, ...],
    start: int,
) -> Iterator[np.ndarray]:
    """K-space (coils, rows, cols) of a block of slices, of this shape, from ``start`` on."""
    slices, coils, rows, cols = shape
    stop = start + slices
    inside, places, counts = np.ones(len(lines.numbers), dtype=bool), lines.points, lines.counts
    if not geometry.is_3d:
        inside = (start <= lines.slices) & (lines.slices < stop)
        places, counts = places + (lines.slices - start) * cols, counts[start:stop]
    # lines as a whole, which is how they come: they are turned at the end
    grid = np.zeros((counts.size, coils, slices if geometry.is_3d else rows), dtype=np.complex64)
    # all lines of a slab are transformed, also those of other blocks: values must not depend on the block
    for part, samples in scan.read_slabs(lines.numbers, inside):
        readouts = _transform_readouts(samples, lines.readouts[part], geometry)
        if whitener is not None:
            readouts = whitener @ readouts
        if geometry.is_3d:
            readouts = readouts[:, :, start:stop]
        for rank in np.unique(lines.ranks[part]):
            chosen = np.flatnonzero(inside[part] & (lines.ranks[part] == rank))
            if rank == 0:
                grid[places[part][chosen]] = readouts[chosen]
            else:
                grid[places[part][chosen]] += readouts[chosen]
    if counts.max() > 1:
        grid *= (1 / np.maximum(counts, 1)).astype(np.float32).reshape(-1, 1, 1)
    if not geometry.is_3d:
        yield from grid.reshape(slices, cols, coils, rows).transpose(0, 2, 3, 1)
        return
    for first in range(0, slices, TURNED):
        turned = grid[:, :, first : first + TURNED].transpose(2, 1, 0)
        yield from np.ascontiguousarray(turned).reshape(-1, coils, rows, cols)


def _transform_readouts(samples: np.ndarray, readouts: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Acquisitions (n, coils, samples) on the grid of the readout and without oversampling, for 3D transformed."""
    count, coils, size = samples.shape
    if (readouts == (0, 0, 0, 0)).all() and size == geometry.samples:
        full = samples
    else:
        full = np.zeros((count, coils, geometry.samples), dtype=np.complex64)
        kinds, which = np.unique(readouts, axis=0, return_inverse=True)
        for number, (start, pre, post, reverse) in enumerate(kinds.tolist()):
            chosen = which.ravel() == number
            kept = samples[chosen, :, pre : size - post]
            full[chosen, :, start : start + kept.shape[2]] = kept[:, :, ::-1] if reverse else kept
    if not geometry.is_3d and geometry.readout == geometry.samples:
        return full
    images = fft.fftshift(fft.ifft(fft.ifftshift(full, axes=2), norm="ortho", overwrite_x=True), axes=2)
    first = geometry.samples // 2 - geometry.readout // 2  # the centers stay the same
    images = images[:, :, first : first + geometry.readout]
    if geometry.is_3d:
        return images
    return fft.fftshift(fft.fft(fft.ifftshift(images, axes=2), norm="ortho", overwrite_x=True), axes=2)
