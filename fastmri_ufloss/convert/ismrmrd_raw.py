"""Cartesian raw data of scanners (ISMRMRD): which acquisitions are lines of the image, and where they go."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import fft

from fastmri_ufloss.convert.ismrmrd_file import (
    Geometry,
    RawScan,
    anonymous_header,
    field_of,
    header_attributes,
    open_scan,
    read_geometry,
)
from fastmri_ufloss.convert.volumes import naming, noise_covariance, warn_if_undersampled, whitening_matrix
from fastmri_ufloss.data.checks import check
from fastmri_ufloss.data.sampling import find_sampling, padding_of
from fastmri_ufloss.files import name_some
from fastmri_ufloss.simulation.mrd_file import flag_mask, import_ismrmrd
from fastmri_ufloss.simulation.volume_file import write_volume

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


@dataclass(frozen=True)
class Lines:
    """Acquisitions and their places."""

    numbers: np.ndarray  # of the acquisitions in the file, rising
    places: np.ndarray  # of each in the k-space: slice * cols + col, or in 3D row * cols + col
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

    Transforms are centered and orthonormal. K-space with gaps gets a mask and no reconstruction; with a scan of
    noise, coils are whitened, see `whitening_matrix`. Axes, and which acquisitions are taken: docs/data.md.

    Args:
        source: the MRD file, with its acquisitions in the group ``dataset``, or in the only one there is.
        output: path of the volume.
        dimensions: of the encoding; auto is 3D if the header encodes more than one step along z.
        contrast, phase, repetition, set_: which one, if there are several.
        average_repeats: average lines that were acquired twice without being marked as averages.
        prewhiten: whiten the coils by the noise measurements of the file, if it has any.
        noise_file: another MRD file whose noise measurements are taken instead.
        patient_id: of the subject; that of the file is not copied.
        acquisition: fastMRI's name of the contrast, such as AXT2; by default the name of the protocol.
        max_memory: bytes of the slices that are made at once; less takes longer, the volume is the same.
        attributes: further attributes of the volume.

    Raises:
        ImportError: if the package ismrmrd is missing.
        ValueError: if the file is broken, not Cartesian, of several images, inconsistent or not finite, or an
            argument does not fit.
        OSError: if a file cannot be read, or the volume cannot be written.
    """
    import_ismrmrd()
    check(dimensions in DIMENSIONS, "dimensions", f"one of {', '.join(DIMENSIONS)}", repr(dimensions))
    check(max_memory >= 1, "max_memory", "at least 1", max_memory)
    check(prewhiten or noise_file is None, "noise_file", "left out without prewhiten", noise_file)
    check(Path(source).resolve() != Path(output).resolve(), "output", "another file than source", output)
    chosen = {"contrast": contrast, "phase": phase, "repetition": repetition, "set_": set_}
    with open_scan(Path(source)) as scan:
        numbers, calibration, encoding = _select_lines(scan, chosen)
        geometry = read_geometry(scan.path, encoding, dimensions)
        lines = _place_lines(scan, numbers, calibration, geometry, average_repeats=average_repeats)
        whitener = _find_whitener(scan, scan.heads[lines.numbers[0]], noise_file) if prewhiten else None
        sampled = lines.counts[0].reshape(geometry.size if geometry.is_3d else (1, -1)) > 0
        with naming(scan.path, advice=": correct the encodingLimits of the header"):
            padding = padding_of(sampled)
        mask = find_sampling(sampled, max_zeros=0)
        warn_if_undersampled(Path(output), mask)
        coils = int(scan.heads["active_channels"][lines.numbers[0]])
        shape = (geometry.readout if geometry.is_3d else len(lines.counts), coils, *geometry.size)
        header = scan.header
        names = [field_of(header, f"measurementInformation.{kind}Name") for kind in ("protocol", "sequence")]
        facts = {"source_format": "ISMRMRD", "prewhitened": whitener is not None, **header_attributes(header)}
        write_volume(
            output,
            _grid_slices(scan, lines, geometry, whitener, shape, max_memory),
            shape=shape,
            recon_size=geometry.recon_size,
            mask=mask,
            padding=padding,
            acquisition=acquisition or names[0] or names[1] or "UNKNOWN",
            patient_id=patient_id,
            voxel_size=geometry.voxel_size,
            attributes={**facts, **(attributes or {})},
            datasets={"source_header": anonymous_header(header)},
        )


def _select_lines(scan: RawScan, chosen: Mapping[str, int | None]) -> tuple[np.ndarray, np.ndarray, Any]:
    """The acquisitions of one image, whether each is for calibration only, and the encoding of the header."""
    heads = scan.heads
    numbers = np.flatnonzero((heads["flags"] & flag_mask(*SKIPPED)) == 0)
    calibration = (heads["flags"] & flag_mask(CALIBRATION)) != 0
    calibration &= (heads["flags"] & flag_mask(f"{CALIBRATION}_AND_IMAGING")) == 0
    calibration = calibration[numbers]
    if calibration.all():
        got = f"{len(numbers)} of calibration and {len(heads) - len(numbers)} of noise, navigators and the like"
        raise ValueError(f"{scan.path} must have acquisitions of an image, got {got}")
    for option, value in chosen.items():
        name = option.rstrip("_")
        values = np.unique(heads[name][numbers[~calibration]]).tolist()
        if value is None:
            value = _single(scan, numbers[~calibration], name, f"choose one by {option}=")
        check(value in values, f"{scan.path}: {option}", f"one of those in the file, {name_some(values)}", value)
        kept = heads[name][numbers] == value
        numbers, calibration = numbers[kept], calibration[kept]
    imaging = numbers[~calibration]
    for name in ("number_of_samples", "active_channels"):
        if _single(scan, imaging, name, "leave out those that are not of the image") < 1:
            raise ValueError(f"{scan.path}: {name} must be at least 1, got 0: the file is damaged")
    reference = _single(scan, imaging, "encoding_space_ref", "put each into a file of its own")
    encodings = scan.header.encoding
    if reference >= len(encodings):
        text = f"acquisitions refer to encoding {reference} (encoding_space_ref), but the header has {len(encodings)}"
        raise ValueError(f"{scan.path}: {text}: correct it")
    encoding = encodings[reference]
    # lines of calibration only (ACS) may be no part of the image's k-space
    mode = field_of(encoding, "parallelImaging.calibrationMode")
    fits = np.full(len(numbers), getattr(mode, "value", mode) not in ("separate", "external"))
    for name in ("encoding_space_ref", "number_of_samples", "active_channels"):
        fits &= heads[name][numbers] == heads[name][imaging[0]]
    kept = ~calibration | fits
    return numbers[kept], calibration[kept], encoding


def _place_lines(
    scan: RawScan, numbers: np.ndarray, calibration: np.ndarray, geometry: Geometry, *, average_repeats: bool
) -> Lines:
    """Where lines go; a calibration line is left out where the image has a line.

    place = kspace_encode_step - center of its limits + encoded matrix // 2
    """
    heads, (rows, cols) = scan.heads, geometry.size
    first_slice = heads["slice"][numbers].min()
    if geometry.is_3d:
        _single(scan, numbers, "slice", "they are slabs, put one into a file of its own; or choose dimensions '2d'")
        steps = _place(scan, numbers, "kspace_encode_step_1", geometry.shifts[0], rows)
        places = steps * cols + _place(scan, numbers, "kspace_encode_step_2", geometry.shifts[1], cols)
    else:
        advice = "they are steps of a 3D scan, with matrixSize.z above 1; or choose dimensions '3d'"
        _single(scan, numbers, "kspace_encode_step_2", advice)
        steps = _place(scan, numbers, "kspace_encode_step_1", geometry.shifts[0], cols)
        places = (heads["slice"][numbers] - first_slice) * cols + steps
    kept = ~calibration | ~np.isin(places, places[~calibration])
    numbers, places = numbers[kept], places[kept]
    if not average_repeats:
        _check_repeats(scan, numbers, places)
    size = rows * cols if geometry.is_3d else cols
    counts = np.bincount(places, minlength=(int(places.max()) // size + 1) * size).reshape(-1, size)
    _check_slices(scan.path, first_slice, counts, geometry.shifts[0])
    return Lines(numbers, places, _rank(places), counts, _place_readouts(scan, numbers, geometry.samples))


def _single(scan: RawScan, numbers: np.ndarray, name: str, advice: str) -> int:
    """The value that a field has in all of some acquisitions."""
    values, firsts = np.unique(scan.heads[name][numbers], return_index=True)
    if len(values) > 1:
        got = [f"{value} in acquisition {number}" for value, number in zip(values, numbers[firsts], strict=True)]
        raise ValueError(f"{scan.path} must have one {name}, got {name_some(got)}: {advice}")
    return int(values[0])


def _place(scan: RawScan, numbers: np.ndarray, name: str, shift: int, size: int) -> np.ndarray:
    values = scan.heads[name][numbers]
    places = values + shift
    outside = np.flatnonzero((places < 0) | (places >= size))
    if outside.size:
        first = outside[0]
        limits = f"from {-shift} to {size - 1 - shift}, for {size} encoded lines and the center {size // 2 - shift}"
        got = f"{values[first]} in acquisition {numbers[first]}: correct matrixSize or encodingLimits in the header"
        raise ValueError(f"{scan.path}: {name} must be {limits}, got {got}")
    return np.asarray(places)


def _check_repeats(scan: RawScan, numbers: np.ndarray, places: np.ndarray) -> None:
    averages = scan.heads["average"][numbers]
    order = np.lexsort((numbers, averages, places))
    same = (np.diff(places[order]) == 0) & (np.diff(averages[order]) == 0)
    if same.any():
        first, second = order[np.flatnonzero(same)[0] :][:2]
        head, names = scan.heads[numbers[first]], ("slice", "kspace_encode_step_1", "kspace_encode_step_2", "average")
        line = ", ".join(f"{name} {head[name]}" for name in names)
        text = f"acquisitions {numbers[first]} and {numbers[second]} are both of {line}: set average_repeats?"
        raise ValueError(f"{scan.path} has {np.count_nonzero(same)} repeated lines: {text}")


def _check_slices(path: Path, first_slice: int, counts: np.ndarray, shift: int) -> None:
    sampled = counts > 0
    complete = sampled.any(axis=0)
    for index in np.flatnonzero((sampled != complete).any(axis=1))[:1].tolist():
        lines = (np.flatnonzero(complete & ~sampled[index]) - shift).tolist()
        text = f"{lines[:10]} (kspace_encode_step_1; {len(lines)} in all), which other slices have"
        raise ValueError(f"{path} has missing lines: slice {first_slice + index} has no lines {text}")


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
        names = ("center_sample", "discard_pre", "discard_post")
        got = ", ".join([f"{size[first]} samples", *(f"{name} {heads[name][first]}" for name in names)])
        layout = f"in the encoded matrix of {samples} samples"
        raise ValueError(f"{scan.path}: the readout must be {layout}, got {got} in acquisition {numbers[first]}")
    return np.stack([start, pre, post, reverse], axis=1)


def _find_whitener(scan: RawScan, head: np.ndarray, noise_file: Path | None) -> np.ndarray | None:
    """The whitening matrix for acquisitions with this head, or None if their file has no noise measurements."""
    with contextlib.nullcontext(scan) if noise_file is None else open_scan(Path(noise_file)) as noise_scan:
        numbers = np.flatnonzero(noise_scan.heads["flags"] & flag_mask(NOISE))
        if not numbers.size:
            if noise_file is None:
                return None
            raise ValueError(f"{noise_file} must have noise measurements ({NOISE}), got none")
        heads, coils = noise_scan.heads[numbers], int(head["active_channels"])
        other = np.flatnonzero(heads["active_channels"] != coils)
        if other.size:
            got = f"{heads['active_channels'][other[0]]} in acquisition {numbers[other[0]]}: set prewhiten to False"
            raise ValueError(
                f"{noise_scan.path}: noise measurements must have the {coils} coils of the image, got {got}"
            )
        noise = []
        for number, pre, post in zip(numbers, heads["discard_pre"], heads["discard_post"], strict=True):
            _, samples = next(noise_scan.read_slabs(np.array([number])))
            noise.append(samples[0, :, pre : samples.shape[2] - post])
    name = "acquisitionSystemInformation.relativeReceiverNoiseBandwidth"
    dwell, noise_dwell = float(head["sample_time_us"]), float(heads["sample_time_us"][0])
    ratio = (field_of(noise_scan.header, name) or 1.0) * dwell / noise_dwell if dwell > 0 and noise_dwell > 0 else 1.0
    with naming(f"{noise_scan.path}: noise measurements", advice=": set prewhiten to False to skip them"):
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
    """K-space (coils, rows, cols) of one slice after the other, in blocks for each of which the file is read once."""
    slices, coils, rows, cols = shape
    block = int(min(max(max_memory // (8 * coils * rows * cols), 1), slices))
    for start in range(0, slices, block):
        stop = min(start + block, slices)
        inside, places, counts = np.ones(len(lines.numbers), dtype=bool), lines.places, lines.counts
        if not geometry.is_3d:
            places, counts = places - start * cols, counts[start:stop]
            inside = (places >= 0) & (places < counts.size)
        # lines as a whole, which is how they come: they are turned at the end
        grid = np.zeros((counts.size, coils, stop - start if geometry.is_3d else rows), dtype=np.complex64)
        # all lines of a slab are transformed, also those of other blocks: values must not depend on the block
        for part, samples in scan.read_slabs(lines.numbers, inside):
            readouts = _transform_readouts(samples, lines.readouts[part], geometry)
            if whitener is not None:
                readouts = whitener @ readouts
            if geometry.is_3d:
                readouts = readouts[:, :, start:stop]
            for rank in np.unique(lines.ranks[part]):
                chosen = np.flatnonzero(inside[part] & (lines.ranks[part] == rank))
                where = places[part][chosen]
                grid[where] = readouts[chosen] if rank == 0 else grid[where] + readouts[chosen]
        if counts.max() > 1:
            grid *= (1 / np.maximum(counts, 1)).astype(np.float32).reshape(-1, 1, 1)
        if not geometry.is_3d:
            yield from grid.reshape(-1, cols, coils, rows).transpose(0, 2, 3, 1)
            continue
        for first in range(0, stop - start, TURNED):
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
