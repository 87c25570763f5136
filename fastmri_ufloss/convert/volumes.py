"""From acquired k-space, or from images, to volumes: what was sampled, whitened coils, and the file."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import fft

from fastmri_ufloss.data.sampling import MAX_ZEROS, find_sampling, padding_of, sampled_points
from fastmri_ufloss.data.volume_file import VolumeWriter
from fastmri_ufloss.simulation.simulate import simulate_slices

__all__ = ["noise_covariance", "scan_sampling", "transform_readout", "whitening_matrix", "write_kspace"]

AFFINE_CONVENTION = "(slice, row, column, 1) to (left, posterior, superior, 1) of the patient, in mm"
CHUNK_BYTES = 2**25  # of readouts that are transformed at once; results must not depend on max_memory


@contextlib.contextmanager
def naming(place: object, *, advice: str = "") -> Iterator[None]:
    """Put the place that an error is about before its text, and what to do behind it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}{advice}") from error


def noise_covariance(noise: np.ndarray) -> np.ndarray:
    """Covariance of the noise of coils.

        Psi = 1 / N sum_n eta_n eta_n^H

    Noise has no mean, so none is subtracted.

    Args:
        noise: a scan without signal, complex (coils, ...), of N samples per coil.

    Returns:
        Psi, complex128 (coils, coils), in the squared unit of the noise: ``Psi[c, c]`` is E|eta_c|^2, the sum of the
        variances of real and imaginary part.

    Raises:
        ValueError: if the noise is not complex, not finite, or has no more samples than coils.
    """
    noise = np.asarray(noise)
    if not np.iscomplexobj(noise) or noise.ndim < 2 or noise.size == 0:
        raise ValueError(f"noise must be complex (coils, samples), got {noise.dtype} {noise.shape}")
    noise = noise.reshape(len(noise), -1).astype(np.complex128)
    coils, samples = noise.shape
    if samples <= coils:
        raise ValueError(f"noise must have more samples than its {coils} coils, got {samples}")
    if not np.isfinite(noise).all():
        raise ValueError("noise must be finite, got NaN or infinite values")
    return noise @ noise.conj().T / samples


def whitening_matrix(covariance: np.ndarray, *, bandwidth_ratio: float = 1.0) -> np.ndarray:
    """The matrix that gives the coils of a scan uncorrelated noise of unit variance.

        W = sqrt(r) L^-1,    Psi = L L^H,    E[(W n) (W n)^H] = I

    The noise n of the scan has the covariance Psi / r. In a receiver of flat noise density the variance of a sample
    goes with the bandwidth, one over the dwell time T, and the filter of the noise scan passes a fraction b of its
    bandwidth only: r = b T_scan / T_noise. L is lower triangular, so that the first coil stays by itself.

    Unit variance is that of the complex sample, E|n|^2 = 1. The ISMRMRD and Gadgetron tools scale by sqrt(2 r) for
    unit variance of the real and of the imaginary part.

    Reference: Pruessmann et al., Magn Reson Med 46:638 (2001); Kellman and McVeigh, Magn Reson Med 54:1439 (2005).

    Args:
        covariance: Psi, complex (coils, coils), Hermitian, see `noise_covariance`.
        bandwidth_ratio: r, above 0.

    Returns:
        W, complex128 (coils, coils), to be multiplied to k-space (coils, ...) from the left.

    Raises:
        ValueError: if the covariance is no positive definite Hermitian matrix, as of a coil without noise or a copy
            of another, or the ratio is not above 0.
    """
    covariance = np.asarray(covariance)
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or covariance.size == 0:
        raise ValueError(f"covariance must be of shape (coils, coils), got {covariance.shape}")
    if not np.isfinite(covariance).all() or not np.allclose(covariance, covariance.conj().T, atol=0, rtol=1e-5):
        raise ValueError("covariance must be finite and Hermitian")
    if not 0 < bandwidth_ratio < np.inf:
        raise ValueError(f"bandwidth_ratio must be above 0, got {bandwidth_ratio}")
    covariance = covariance.astype(np.complex128)
    variances = covariance.diagonal().real
    silent = np.flatnonzero(variances <= 0)
    if silent.size:
        raise ValueError(f"covariance must be positive definite, got coils without noise: {silent.tolist()}")
    # of coils that are scaled alike, so that a weak one is no singular one
    scales = np.sqrt(variances)
    correlation = covariance / np.outer(scales, scales)
    smallest = np.linalg.eigvalsh(correlation)[0]
    if smallest <= len(correlation) * np.finfo(np.float64).eps:
        raise ValueError(
            f"covariance must be positive definite, got {smallest:.1e} as the smallest eigenvalue of the "
            "correlation: a coil's noise is made of that of the others"
        )
    return np.sqrt(bandwidth_ratio) * np.linalg.inv(np.linalg.cholesky(covariance))


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
    for index, kspace in enumerate(slices):
        sampled = sampled_points(kspace)
        if sampled.any():
            counts[index] = int(np.count_nonzero(sampled))
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
    """Centered orthonormal inverse Fourier transform along the first axis, one position after the other.

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
    source: Path,
    output: Path,
    kspace: np.ndarray,
    *,
    attributes: Mapping[str, Any],
    along_readout: bool = False,
    mask: np.ndarray | None = None,
    whitener: np.ndarray | None = None,
    max_memory: int = 2**30,
    acquisition: str | None = None,
) -> None:
    """Write acquired k-space as a volume, with a mask and without a reconstruction if it is undersampled.

    The k-space is read twice, slice by slice: for what was sampled, and to be written.

    Args:
        source, output: where it comes from, for messages, and the volume.
        kspace: centered, (slices, coils, rows, cols) or (slices, rows, cols), which may be a memory map.
        along_readout: the first axis is the readout of a 3D scan, which becomes slices by `transform_readout`.
        mask: what was sampled, (cols,) or (rows, cols); by default `find_sampling` tells.
        whitener: (coils, coils), multiplied to the coils.
        acquisition: name of the contrast, by default ``"UNKNOWN"``.

    Raises:
        ValueError: if the k-space is not finite, has no signal, was sampled differently from slice to slice, or an
            argument does not fit.
    """
    with naming(source):
        slices: Iterable[np.ndarray] = kspace
        if along_readout:
            sampled = np.zeros(kspace.shape[-2:], dtype=bool)
            for part in _parts(kspace.shape):
                points = (kspace[part] != 0).any(axis=0)
                sampled[part[-2:]] |= points.reshape(-1, *points.shape[-2:]).any(axis=0)
            slices = transform_readout(kspace, max_memory=max_memory)
        else:
            sampled = scan_sampling(kspace)
        if mask is None:
            mask = find_sampling(sampled)
        else:
            sampled = mask
        padding = padding_of(sampled)
        warn_if_undersampled(output, mask)
        with VolumeWriter(
            output,
            kspace.shape,
            mask=mask,
            padding=padding,
            acquisition=acquisition or "UNKNOWN",
            attributes=attributes,
        ) as writer:
            for index, values in enumerate(slices):
                values = np.asarray(values, dtype=np.complex64)
                if whitener is not None:
                    whitened = whitener.astype(np.complex64) @ values.reshape(len(values), -1)
                    values = whitened.reshape(values.shape)
                writer.write(index, values)


def warn_if_undersampled(path: Path, mask: np.ndarray | None) -> None:
    """Say that a volume gets a mask: a line may be missing that should not be."""
    if mask is not None:
        what = "columns" if mask.ndim == 1 else "points"
        warnings.warn(
            f"{path.name}: {np.count_nonzero(mask)} of {mask.size} {what} of k-space were acquired, with gaps: the "
            "volume has this mask and no reconstruction",
            stacklevel=3,
        )


def write_images(
    source: Path,
    output: Path,
    images: np.ndarray,
    *,
    num_coils: int | None,
    snr: float,
    phase_strength: float,
    seed: int,
    acquisition: str | None,
    attributes: Mapping[str, Any],
    mask: np.ndarray | None = None,
    patient_id: str = "",
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> None:
    """Write images (slices, rows, cols) as if they had been scanned; the settings become attributes of the volume."""
    simulated = {"snr": float(snr), "phase_strength": float(phase_strength), "seed": seed}
    shape = images.shape if num_coils is None else (len(images), num_coils, *images.shape[1:])
    with naming(source):
        slices = simulate_slices(images, num_coils, snr, phase_strength, seed)
        with VolumeWriter(
            output,
            shape,
            mask=mask,
            acquisition=acquisition or "UNKNOWN",
            patient_id=patient_id,
            voxel_size=voxel_size,
            attributes={**{f"simulated_{name}": value for name, value in simulated.items()}, **attributes},
        ) as writer:
            for number, kspace in enumerate(slices):
                writer.write(number, kspace)


def check_magnitude(source: Path, images: np.ndarray) -> np.ndarray:
    """The images (slices, rows, cols) in float32, if they can be magnitudes.

    Raises:
        ValueError: if they are not finite, have values below 0 or nothing else than 0, or are too small.
    """
    with np.errstate(over="ignore"):  # beyond float32: infinite, and refused below
        images = np.ascontiguousarray(images, dtype=np.float32)
    if min(images.shape[1:]) < 2:
        raise ValueError(f"{source}: slices must have at least 2 rows and 2 columns, got {images.shape[1:]}")
    if num_bad := int((~np.isfinite(images)).sum()):
        raise ValueError(
            f"{source}: {num_bad} of {images.size} voxels are NaN or infinite in float32; "
            "set them to what they stand for, such as 0 for the background, and save the images anew"
        )
    if (lowest := float(images.min())) < 0:
        raise ValueError(
            f"{source}: magnitudes must be at least 0, got a minimum of {lowest:g} (CT numbers, phase, real or "
            "imaginary part, z-scores, or an interpolation?); clip or shift the values and save the images anew"
        )
    if not images.any():
        raise ValueError(f"{source}: all of its {images.size} voxels are 0; leave it out")
    return images


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[int | slice, ...]]:
    """Parts of (readout, [coils,] rows, cols): the readouts of a coil, of a few columns."""
    readout, *coils, rows, cols = shape
    step = max(CHUNK_BYTES // (8 * readout * rows), 1)
    for coil in np.ndindex(*coils):
        for first in range(0, cols, step):
            yield (slice(None), *coil, slice(None), slice(first, first + step))
