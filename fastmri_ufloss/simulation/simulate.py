"""From images to fastMRI volumes: k-space of simulated coils with noise, and the HDF5 file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastmri_ufloss.data.checks import check
from fastmri_ufloss.data.volume_file import VolumeWriter, fft2c, write_volume
from fastmri_ufloss.simulation.coils import simulate_phase, simulate_sens_maps

__all__ = ["simulate_kspace", "simulate_slices", "simulate_volume", "write_volume"]

OBJECT_THRESHOLD = 0.1  # of the maximum: what is below is background


def simulate_kspace(
    images: np.ndarray,
    *,
    num_coils: int | None = 8,
    snr: float = 30.0,
    phase_strength: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """K-space of images, in fastMRI's centred orthonormal convention, with complex white noise.

        y_c = F (s_c x exp(i phi)) + n_c,    E |n_c|^2 = (mean |x| / snr)^2

    where the mean goes over the object: the pixels above a tenth of the maximum.

    Args:
        images: (slices, rows, cols), real or complex. Real ones get a smooth phase, see `simulate_phase`;
            complex ones keep their own.
        num_coils: number of coils, see `simulate_sens_maps`; None for single-coil data without a coil axis.
        snr: mean magnitude of the object divided by the standard deviation of the complex noise of a coil's
            image; infinite for none.
        phase_strength: of the phase of real images, in radians.
        seed: of coils, phase and noise.

    Returns:
        K-space, complex64 (slices, num_coils, rows, cols), or (slices, rows, cols) without coils.

    Raises:
        ValueError: if an argument is out of its range, or the images are not finite.
    """
    slices = simulate_slices(images, num_coils=num_coils, snr=snr, phase_strength=phase_strength, seed=seed)
    return np.stack(list(slices))


def simulate_slices(
    images: np.ndarray,
    *,
    num_coils: int | None = 8,
    snr: float = 30.0,
    phase_strength: float = 1.0,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """`simulate_kspace`, slice by slice: the k-space of a volume is many times larger than its images.

    Args:
        images, num_coils, snr, phase_strength, seed: see `simulate_kspace`.

    Returns:
        An iterator over the slices' k-space, (num_coils, rows, cols), or (rows, cols) without coils.

    Raises:
        ValueError: at once, see `simulate_kspace`.
    """
    images = np.asarray(images)
    check(images.ndim == 3 and images.size > 0, "images", "of shape (slices, rows, cols)", images.shape)
    check(bool(np.isfinite(images).all()), "images", "finite", "NaN or infinite values")
    check(num_coils is None or num_coils >= 1, "num_coils", "at least 1, or None", num_coils)
    check(snr > 0, "snr", "above 0", snr)
    shape = (images.shape[1], images.shape[2])
    phase = None if np.iscomplexobj(images) else simulate_phase(shape, strength=phase_strength, seed=seed)
    maps = None if num_coils is None else simulate_sens_maps(num_coils, shape, seed=seed)
    magnitude = np.abs(images)
    brightest = magnitude.max()
    deviation = 0.0
    if brightest > 0:
        deviation = float(magnitude[magnitude > OBJECT_THRESHOLD * brightest].mean()) / snr
    generator = np.random.default_rng([seed, 2])

    def scan(image: np.ndarray) -> np.ndarray:
        image = image if phase is None else image * phase
        image = image if maps is None else image * maps
        kspace = fft2c(image.astype(np.complex64))
        noise = generator.standard_normal((*kspace.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
        return kspace + np.float32(deviation / np.sqrt(2)) * noise

    return map(scan, images)


def simulate_volume(
    path: str | Path,
    images: np.ndarray,
    *,
    num_coils: int | None = 8,
    snr: float = 30.0,
    phase_strength: float = 1.0,
    seed: int = 0,
    recon_size: tuple[int, int] | None = None,
    acquisition: str = "CORPD_FBK",
    patient_id: str = "",
    mask: np.ndarray | None = None,
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
    attributes: Mapping[str, Any] | None = None,
    datasets: Mapping[str, ArrayLike] | None = None,
) -> None:
    """Write images as an HDF5 volume as if they had been scanned: `simulate_kspace`, written by a `VolumeWriter`.

    Args:
        path: of the file.
        images: (slices, rows, cols), real or complex.
        num_coils, snr, phase_strength, seed: see `simulate_kspace`.
        recon_size, acquisition, patient_id, mask, voxel_size, attributes, datasets: see `VolumeWriter`.

    Raises:
        ValueError: if an argument is out of its range.
    """
    slices = simulate_slices(images, num_coils=num_coils, snr=snr, phase_strength=phase_strength, seed=seed)
    shape = images.shape if num_coils is None else (len(images), num_coils, *images.shape[1:])
    with VolumeWriter(
        path,
        shape,
        recon_size=recon_size,
        mask=mask,
        acquisition=acquisition,
        patient_id=patient_id,
        voxel_size=voxel_size,
        attributes=attributes,
        datasets=datasets,
    ) as writer:
        for number, kspace in enumerate(slices):
            writer.write(number, kspace)
