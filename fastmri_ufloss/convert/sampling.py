"""What was sampled of acquired k-space, and the volume that is written with it."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import fft

from fastmri_ufloss.data.sampling import MAX_ZEROS, find_sampling, padding_of, sampled_points
from fastmri_ufloss.data.volume_file import VolumeWriter

__all__ = ["scan_sampling", "transform_readout", "warn_if_undersampled", "write_kspace"]

CHUNK_BYTES = 2**25  # of readouts that are transformed at once; results must not depend on max_memory


def scan_sampling(slices: Iterable[np.ndarray]) -> np.ndarray:
    """Where the k-space of a volume is not zero.

    Args:
        slices: (coils, rows, cols) or (rows, cols) each; those without signal do not count.

    Returns:
        Boolean, (rows, cols).

    Raises:
        ValueError: if slices were sampled differently, or none has a signal.
    """
    union: np.ndarray | None = None
    counts: dict[int, int] = {}
    for number, kspace in enumerate(slices):
        sampled = sampled_points(kspace)
        if sampled.any():
            counts[number] = int(np.count_nonzero(sampled))
            union = sampled if union is None else union | sampled
    if union is None:
        raise ValueError("k-space must have a signal, got zeros only")
    total = np.count_nonzero(union)
    fewest = min(counts, key=counts.__getitem__)
    if total - counts[fewest] > MAX_ZEROS * total:
        raise ValueError(
            f"all slices must be sampled alike, but slice {fewest} has {counts[fewest]} of the {total} points "
            "that are sampled in all slices together"
        )
    return union


def transform_readout(kspace: np.ndarray, *, max_memory: int = 2**30) -> Iterator[np.ndarray]:
    """Centred orthonormal inverse Fourier transform along the first axis, one position after the other.

    The positions are made in blocks of ``max_memory``, for each of which the k-space is read once.

    Args:
        kspace: (readout, ...), which may be a memory map.
        max_memory: bytes of a block, of at least one position.

    Yields:
        (...) of each readout position, complex64.
    """
    readout, *rest = kspace.shape
    block = int(min(max(max_memory // (8 * np.prod(rest)), 1), readout))
    for start in range(0, readout, block):
        stop = min(start + block, readout)
        positions = np.empty((stop - start, *rest), dtype=np.complex64)
        for part in _parts(kspace.shape):
            lines = fft.ifftshift(kspace[part].astype(np.complex64, copy=False), axes=0)
            lines = fft.fftshift(fft.ifft(lines, axis=0, norm="ortho", overwrite_x=True), axes=0)
            positions[part] = lines[start:stop]
        yield from positions


def write_kspace(
    output: Path,
    kspace: np.ndarray,
    *,
    along_readout: bool = False,
    mask: np.ndarray | None = None,
    whitener: np.ndarray | None = None,
    max_memory: int = 2**30,
    acquisition: str = "UNKNOWN",
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write acquired k-space as a volume, with a mask and without a reconstruction if it is undersampled.

    The k-space is read twice, slice by slice: for what was sampled, and to be written.

    Args:
        output: path of the volume.
        kspace: centred, (slices, coils, rows, cols) or (slices, rows, cols), which may be a memory map.
        along_readout: the first axis is the readout of a 3D scan, which becomes slices by `transform_readout`.
        mask: what was sampled, (cols,) or (rows, cols), if it is known; see `find_sampling`.
        whitener: (coils, coils), multiplied to the coils.
        max_memory: see `transform_readout`.
        acquisition, attributes: see `VolumeWriter`.

    Raises:
        ValueError: if the k-space is not finite, has no signal, was sampled differently from slice to slice,
            or an argument does not fit.
    """
    if along_readout:
        shape = kspace.shape
        sampled = np.zeros(shape[-2:], dtype=bool)
        for part in _parts(shape):
            points = (kspace[part] != 0).any(axis=0)
            sampled[part[-2:]] |= points.reshape(-1, *points.shape[-2:]).any(axis=0)
        slices: Iterable[np.ndarray] = transform_readout(kspace, max_memory=max_memory)
    else:
        sampled, slices = scan_sampling(kspace), kspace
    if mask is None:
        mask = find_sampling(sampled)
    else:
        sampled = mask
    padding = padding_of(sampled)
    warn_if_undersampled(output, mask)
    with VolumeWriter(
        output, kspace.shape, mask=mask, padding=padding, acquisition=acquisition, attributes=attributes
    ) as writer:
        for number, one in enumerate(slices):
            one = np.asarray(one, dtype=np.complex64)
            writer.write(number, one if whitener is None else _mix_coils(whitener, one))


def warn_if_undersampled(path: Path, mask: np.ndarray | None) -> None:
    """Say that a volume gets a mask: a line may be missing that should not be."""
    if mask is not None:
        what = "columns" if mask.ndim == 1 else "points"
        warnings.warn(
            f"{path.name}: {np.count_nonzero(mask)} of {mask.size} {what} of k-space were acquired, with gaps: the "
            "volume has this mask and no reconstruction",
            stacklevel=3,
        )


def _mix_coils(matrix: np.ndarray, kspace: np.ndarray) -> np.ndarray:
    mixed = matrix.astype(np.complex64) @ kspace.reshape(len(kspace), -1)
    return mixed.reshape(kspace.shape)


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[int | slice, ...]]:
    """Parts of (readout, [coils,] rows, cols): the readouts of a coil, of a few columns."""
    readout, *coils, rows, cols = shape
    step = max(CHUNK_BYTES // (8 * readout * rows), 1)
    for coil in np.ndindex(*coils):
        for first in range(0, cols, step):
            yield (slice(None), *coil, slice(None), slice(first, first + step))
