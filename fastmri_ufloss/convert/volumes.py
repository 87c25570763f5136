"""From acquired k-space, or from images, to volumes: what was sampled, whitened coils, and the file."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from scipy import fft

from fastmri_ufloss.checks import check
from fastmri_ufloss.data.sampling import MAX_ZEROS, find_sampling, padding_of, sampled_points
from fastmri_ufloss.simulation.simulate import simulate_slices
from fastmri_ufloss.simulation.volume_file import write_volume

__all__ = ["scan_sampling", "transform_readout", "whitening_matrix", "write_kspace"]

AFFINE_CONVENTION = "(slice, row, column, 1) to (left, posterior, superior, 1) of the patient, in mm"
SIMULATED = "simulated k-space makes optimistic results: exact coils, white noise; it is no substitute for raw data"
Converter = TypeVar("Converter", bound=Callable[..., Any])


@contextlib.contextmanager
def naming(place: object) -> Iterator[None]:
    """Put the place that a ValueError is about before its text, unless the text has the place."""
    try:
        yield
    except ValueError as error:
        if str(place) in str(error):
            raise
        raise ValueError(f"{place}: {error}") from error


def naming_source(convert: Converter) -> Converter:
    """A function of ``source``, a file, and further arguments, whose ValueErrors name the file."""

    @functools.wraps(convert)
    def named(source: Path, *args: Any, **options: Any) -> Any:
        if (path := Path(source)).exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for
            raise ValueError(f"{source} is no regular file")
        with naming(source):
            return convert(Path(source), *args, **options)

    return cast(Converter, named)


def whitening_matrix(noise: np.ndarray, *, bandwidth_ratio: float = 1.0) -> np.ndarray:
    """The matrix that gives the coils of a scan uncorrelated noise of unit variance, complex128 (coils, coils).

        W = sqrt(r) L^-1,    L L^H = Psi = 1 / N sum_n eta_n eta_n^H,    E[(W n) (W n)^H] = I

    The noise n of the scan has the covariance Psi / r. In a receiver of flat noise density the variance of a sample
    goes with the bandwidth, one over the dwell time T, and the filter of the noise scan passes a fraction b of its
    bandwidth only: r = b T_scan / T_noise. Unit variance is that of the complex sample, E|n|^2 = 1; the ISMRMRD and
    Gadgetron tools scale by sqrt(2 r) for unit variance of the real and of the imaginary part.

    Reference: Pruessmann et al., Magn Reson Med 46:638 (2001); Kellman and McVeigh, Magn Reson Med 54:1439 (2005).

    Args:
        noise: eta, a scan without signal, complex (coils, ...), of N samples per coil.
        bandwidth_ratio: r, above 0.

    Raises:
        ValueError: if the noise does not have a positive definite covariance, or the ratio is not above 0.
    """
    check(0 < bandwidth_ratio < np.inf, "bandwidth_ratio", "above 0", bandwidth_ratio)
    fits = np.iscomplexobj(noise) and noise.ndim >= 2 and noise.size > 0
    check(fits, "noise", "complex (coils, samples)", f"{noise.dtype} {noise.shape}")
    noise = noise.reshape(len(noise), -1).astype(np.complex128)
    coils, samples = noise.shape
    check(samples > coils, "noise", f"of more samples than its {coils} coils", samples)
    check(bool(np.isfinite(noise).all()), "noise", "finite", "NaN or infinite values")
    covariance = noise @ noise.conj().T / samples  # without a mean, which noise does not have
    scales = np.sqrt(covariance.diagonal().real)
    silent = np.flatnonzero(scales == 0).tolist()
    check(not silent, "noise", "of all coils", f"coils without noise: {silent}")
    # of coils that are scaled alike, so that a weak one is no singular one
    smallest = np.linalg.eigvalsh(covariance / np.outer(scales, scales))[0]
    got = f"an eigenvalue of the correlation of {smallest:.1e}: a coil's noise is made of that of the others"
    check(smallest > coils * np.finfo(np.float64).eps, "covariance", "positive definite", got)
    return np.sqrt(bandwidth_ratio) * np.linalg.inv(np.linalg.cholesky(covariance))


def scan_sampling(kspace: np.ndarray) -> np.ndarray:
    """Where the k-space of a volume, (slices, [coils,] rows, cols), is not zero, boolean (rows, cols).

    Raises:
        ValueError: if slices were sampled differently, but for those without signal, or none has a signal.
    """
    sampled = np.stack([sampled_points(values) for values in kspace])
    union, counts = np.asarray(sampled.any(axis=0)), np.count_nonzero(sampled, axis=(1, 2))
    total = np.count_nonzero(union)
    if total == 0:
        raise ValueError("k-space must have a signal, got zeros only")
    counts[counts == 0] = total  # slices without a signal
    fewest = counts.argmin()
    if total - counts[fewest] > MAX_ZEROS * total:
        part = f"{counts[fewest]} of the {total} points of all slices together"
        raise ValueError(f"all slices must be sampled alike, but slice {fewest} has {part}")
    return union


def transform_readout(kspace: np.ndarray, *, max_memory: int = 2**30) -> Iterator[np.ndarray]:
    """Centered orthonormal inverse Fourier transform of k-space (readout, ...) along the first axis.

    Yields:
        (...) of each readout position, complex64, made in blocks of ``max_memory`` bytes, at least one position, for
        each of which the k-space, which may be a memory map, is read once.
    """
    readout, *rest = kspace.shape
    block = int(min(max(max_memory // (8 * np.prod(rest)), 1), readout))
    for start in range(0, readout, block):
        stop = min(start + block, readout)
        positions = np.empty((stop - start, *rest), dtype=np.complex64)
        for index in np.ndindex(*rest[:-1]):
            part = (slice(None), *index)  # a row of a coil at a time: results must not depend on max_memory
            lines = fft.ifftshift(kspace[part].astype(np.complex64, copy=False), axes=0)
            lines = fft.fftshift(fft.ifft(lines, axis=0, norm="ortho", overwrite_x=True), axes=0)
            positions[part] = lines[start:stop]
        yield from positions


def write_kspace(
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

    Args:
        kspace: centered, (slices, coils, rows, cols) or (slices, rows, cols), read twice if it is a memory map.
        along_readout: the first axis is the readout of a 3D scan, which becomes slices by `transform_readout`.
        mask: what was sampled, (cols,) or (rows, cols); by default `find_sampling` tells.
        whitener: complex64 (coils, coils), multiplied to the coils.
        max_memory: bytes of 3D k-space that are made at once; less takes longer, the volume is the same.
        acquisition: fastMRI's name of the contrast, such as AXT2; "UNKNOWN" by default.

    Raises:
        ValueError: if the k-space is not finite, slices were sampled differently, or an argument does not fit.
    """
    slices: Iterable[np.ndarray] = kspace
    if along_readout:
        sampled = np.zeros(kspace.shape[-2:], dtype=bool)
        for index in np.ndindex(*kspace.shape[1:-1]):
            part = (slice(None), *index)
            sampled[index[-1]] |= (kspace[part] != 0).any(axis=0)
        slices = transform_readout(kspace, max_memory=max_memory)
    else:
        sampled = scan_sampling(kspace)
    if whitener is not None:
        slices = (np.tensordot(whitener, values.astype(np.complex64), axes=1) for values in slices)
    padding = padding_of(sampled if mask is None else mask)
    mask = find_sampling(sampled) if mask is None else mask
    warn_if_undersampled(output, mask)
    write_volume(
        output, slices, shape=kspace.shape, mask=mask, padding=padding, acquisition=acquisition, attributes=attributes
    )


def warn_if_undersampled(path: Path, mask: np.ndarray | None) -> None:
    """Say that a volume gets a mask: a line may be missing that should not be."""
    if mask is not None:
        what = "columns" if mask.ndim == 1 else "points"
        acquired = f"{np.count_nonzero(mask)} of {mask.size} {what} of k-space were acquired, with gaps"
        warnings.warn(f"{path.name}: {acquired}: the volume has this mask and no reconstruction", stacklevel=3)


def scan_images(
    images: np.ndarray, num_coils: int | None, snr: float, phase_strength: float, seed: int
) -> tuple[Iterator[np.ndarray], tuple[int, ...], dict[str, Any]]:
    """Simulated k-space, slice by slice, its shape, and the attributes that a volume keeps of its simulation."""
    warnings.warn(SIMULATED, stacklevel=3)
    shape = images.shape if num_coils is None else (len(images), num_coils, *images.shape[1:])
    settings = {
        "simulated_snr": float(snr),
        "simulated_phase_strength": float(phase_strength),
        "simulated_seed": seed,
    }
    return simulate_slices(images, num_coils, snr, phase_strength, seed), shape, settings


def check_magnitude(images: np.ndarray) -> np.ndarray:
    """The images (slices, rows, cols) in float32; a ValueError if they cannot be magnitudes."""
    with np.errstate(over="ignore"):  # beyond float32: infinite, and refused below
        images = np.ascontiguousarray(images, dtype=np.float32)
    check(min(images.shape[1:]) >= 2, "slices", "at least 2 rows and 2 columns", images.shape[1:])
    if num_bad := int((~np.isfinite(images)).sum()):
        advice = "set them to what they stand for, such as 0 for the background"
        raise ValueError(f"{num_bad} of {images.size} voxels are NaN or infinite in float32; {advice}")
    lowest = float(images.min())
    advice = "(CT numbers, phase, z-scores, an interpolation?); clip or shift the values"
    check(lowest >= 0, "magnitudes", "at least 0", f"a minimum of {lowest:g} {advice}")
    if not images.any():
        raise ValueError(f"all of its {images.size} voxels are 0; leave it out")
    return images
