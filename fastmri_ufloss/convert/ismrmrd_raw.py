"""ISMRMRD files (MRD): Cartesian raw data of scanners."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import fft

from fastmri_ufloss.convert.ismrmrd_file import RawScan, import_ismrmrd, open_scan
from fastmri_ufloss.convert.ismrmrd_header import (
    Geometry,
    acquisition_name,
    anonymous_header,
    header_attributes,
    read_geometry,
)
from fastmri_ufloss.convert.ismrmrd_lines import Lines, noise_numbers, place_lines, select_lines
from fastmri_ufloss.convert.prewhitening import noise_covariance, whitening_matrix
from fastmri_ufloss.convert.sampling import warn_if_undersampled
from fastmri_ufloss.data.checks import check
from fastmri_ufloss.data.sampling import find_sampling, padding_of
from fastmri_ufloss.data.volume_file import VolumeWriter

__all__ = ["convert_ismrmrd"]

DIMENSIONS = ("auto", "2d", "3d")
TURNED = 16  # slices that are turned at once: their values are next to each other in memory


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

    All transforms are centred and orthonormal, so the scale is that of the file. In 2D, slices are those of the
    file (``idx.slice``), rows the readout without its oversampling, columns the phase encoding. In 3D, the readout is
    transformed and its positions become slices; rows are ``kspace_encode_step_1`` and columns ``_step_2``. What was
    not acquired is zero. Averages are averaged, whatever their segment. Lines that were read backwards
    (``ACQ_IS_REVERSE``) are turned. Lines for calibration only are taken where the image has none, unless the header
    calls them separate or external. Noise, navigators, phase correction, dummies and feedback are left out.

    K-space counts as full if there is no gap in it, see `find_sampling`; what is missing at its borders (partial
    Fourier, the corners of an ellipse) is no gap. With gaps the volume gets the mask of what was acquired, and no
    reconstruction.

    If there is a scan of noise, coils are whitened: the noise of an acquisition then has the covariance 1, and that
    of n averages 1 / n. See `whitening_matrix` for the scale.

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
            argument does not fit; the message names the file, what was found, and a way out.
        OSError: if a file cannot be read, or the volume cannot be written.
    """
    import_ismrmrd()
    check(dimensions in DIMENSIONS, "dimensions", f"one of {', '.join(DIMENSIONS)}", repr(dimensions))
    check(max_memory >= 1, "max_memory", "at least 1", max_memory)
    check(prewhiten or noise_file is None, "noise_file", "left out without prewhiten", noise_file)
    check(Path(source).resolve() != Path(output).resolve(), "output", "another file than source", output)
    chosen = {"contrast": contrast, "phase": phase, "repetition": repetition, "set": set_}
    with open_scan(Path(source)) as scan:
        numbers, calibration, encoding = select_lines(scan, chosen)
        geometry = read_geometry(scan.path, encoding, dimensions)
        lines = place_lines(scan, numbers, calibration, geometry, average_repeats=average_repeats)
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
            for number, kspace in enumerate(_grid_slices(scan, lines, geometry, whitener, writer.shape, max_memory)):
                writer.write(number, kspace)


def _find_mask(path: Path, lines: Lines, geometry: Geometry) -> tuple[np.ndarray | None, tuple[int, int]]:
    """The mask of undersampled k-space, or None, and the padding."""
    sampled = lines.counts[0].reshape(geometry.size if geometry.is_3d else (1, -1)) > 0
    try:
        padding = padding_of(sampled)
    except ValueError as error:
        raise ValueError(f"{path}: {error}: correct the encodingLimits of the header") from error
    return find_sampling(sampled, max_zeros=0), padding


def _find_whitener(scan: RawScan, lines: Lines, noise_file: Path | None) -> np.ndarray | None:
    """The whitening matrix of the noise measurements of a file, or None if there are none."""
    head = scan.heads[lines.numbers[0]]
    if noise_file is None:
        return _read_whitener(scan, head) if noise_numbers(scan).size else None
    with open_scan(Path(noise_file)) as noise_scan:
        if not noise_numbers(noise_scan).size:
            raise ValueError(f"{noise_file} must have noise measurements (ACQ_IS_NOISE_MEASUREMENT), got none")
        return _read_whitener(noise_scan, head)


def _read_whitener(scan: RawScan, head: np.ndarray) -> np.ndarray:
    """The whitening matrix for acquisitions with this head, of a file with noise measurements."""
    numbers = noise_numbers(scan)
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
    for one in numbers:
        for _, samples in scan.read_slabs(np.array([one])):
            stop = samples.shape[2] - int(scan.heads["discard_post"][one])
            noise.append(samples[0, :, int(scan.heads["discard_pre"][one]) : stop])
    system = scan.header.acquisitionSystemInformation
    bandwidth = getattr(system, "relativeReceiverNoiseBandwidth", None) or 1.0
    dwell, noise_dwell = float(head["sample_time_us"]), float(heads["sample_time_us"][0])
    ratio = bandwidth * dwell / noise_dwell if dwell > 0 and noise_dwell > 0 else 1.0
    try:
        matrix = whitening_matrix(noise_covariance(np.concatenate(noise, axis=1)), bandwidth_ratio=ratio)
    except ValueError as error:
        raise ValueError(f"{scan.path}: noise measurements: {error}: set prewhiten to False to skip them") from error
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
    first = geometry.samples // 2 - geometry.readout // 2  # the centres stay the same
    images = images[:, :, first : first + geometry.readout]
    if geometry.is_3d:
        return images
    return fft.fftshift(fft.fft(fft.ifftshift(images, axes=2), norm="ortho", overwrite_x=True), axes=2)
