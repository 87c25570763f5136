"""From images to fastMRI volumes: simulated coils, phase and noise, and the HDF5 file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import RectBivariateSpline

from fastmri_ufloss.data.checks import check
from fastmri_ufloss.data.volume_file import VolumeWriter, fft2c, write_volume

__all__ = ["simulate_kspace", "simulate_phase", "simulate_sens_maps", "simulate_volume", "write_volume"]

COARSE_GRID = 48  # points a side for the coil fields, which are smooth
NUM_SEGMENTS = 32  # of a loop; the sum converges exponentially with them
PHASE_ORDER = 3  # highest number of half waves of the phase along a side
OBJECT_THRESHOLD = 0.1  # of the maximum: what is below is background


def loop_field(points: np.ndarray, center: ArrayLike, normal: ArrayLike, radius: float) -> np.ndarray:
    """Magnetic field of a circular current loop, by the law of Biot and Savart.

        B(r) = 1 / (4 pi) * sum_l dl x (r - l) / |r - l|^3

    Args:
        points: places r, (..., 3).
        center: of the loop, (3,).
        normal: of the loop's plane, (3,), of any length but zero.
        radius: of the loop, in the unit of the places.

    Returns:
        The field, (..., 3), in units of mu0 times the current per unit of length. On the axis, at the distance z from
        the center, its strength is ``radius**2 / (2 * (radius**2 + z**2) ** 1.5)``.
    """
    axis = np.array(normal, dtype=float)
    axis /= np.linalg.norm(axis)
    first = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    angles = 2 * np.pi * np.arange(NUM_SEGMENTS)[:, None] / NUM_SEGMENTS
    wire = np.asarray(center, dtype=float) + radius * (np.cos(angles) * first + np.sin(angles) * second)
    steps = 2 * np.pi * radius / NUM_SEGMENTS * (np.cos(angles) * second - np.sin(angles) * first)
    away = np.asarray(points, dtype=float)[..., None, :] - wire
    weights = (away**2).sum(axis=-1) ** -1.5 / (4 * np.pi)
    # sum_l dl x (r - l) w = (sum_l w dl) x r - sum_l w (dl x l): two products of matrices
    return np.cross(weights @ steps, points) - weights @ np.cross(steps, wire)


def coil_fields(
    points: np.ndarray,
    num_coils: int,
    *,
    distance: float,
    radius: float,
    jitter: float,
    seed: int,
    heights: ArrayLike = 0.0,
) -> Iterator[np.ndarray]:
    """B_x - i B_y (...) of loops around the z axis, at ``heights``, coil by coil; see `simulate_sens_maps`."""
    check(num_coils >= 1, "num_coils", "at least 1", num_coils)
    check(distance > 1.42, "distance", "above 1.42", distance)
    check(radius > 0, "radius", "above 0", radius)
    check(0 <= jitter <= 0.5, "jitter", "from 0 to 0.5", jitter)
    spacing = 2 * np.pi / num_coils
    moves = jitter * np.random.default_rng([seed, 0]).uniform(-1, 1, (num_coils, 3)) * min(spacing, 1)

    def field(coil: int, height: float) -> np.ndarray:
        turn, outward, lift = moves[coil]
        angle = spacing * coil + turn
        direction = np.array([np.cos(angle), np.sin(angle), 0.0])
        center = (distance + abs(outward)) * direction + [0, 0, height + lift]
        vectors = loop_field(points, center, -direction, radius)
        return vectors[..., 0] - 1j * vectors[..., 1]

    return map(field, range(num_coils), np.broadcast_to(heights, num_coils))


def simulate_sens_maps(
    num_coils: int,
    shape: tuple[int, int],
    *,
    distance: float = 1.6,
    radius: float = 0.6,
    jitter: float = 0.1,
    normalize: bool = True,
    seed: int = 0,
) -> np.ndarray:
    """Sensitivity maps of circular loops placed evenly around the field of view.

        s_c = B_x - i B_y,    sum_c |s_c|^2 = 1 if normalized

    Args:
        num_coils: number of coils; a single one has a sensitivity of one everywhere.
        shape: (rows, cols).
        distance: of the loops' centers from that of the field of view, whose longer half side is 1; above 1.42, where
            the loops are out of the field of view.
        radius: of the loops, in the same unit.
        jitter: how far, in their spacing, the loops are moved at random along the circle, outwards and out of the
            plane; 0 to 0.5.
        normalize: divide by the root of the sum of squares over the coils.
        seed: of the places of the loops.

    Returns:
        The maps, complex64 (num_coils, rows, cols).

    Raises:
        ValueError: if an argument is out of its range.
    """
    check(len(shape) == 2 and min(shape) >= 2, "shape", "(rows, cols), at least 2 each", shape)
    y, x = fine = pixel_centers(shape)
    coarse_y, coarse_x = (np.linspace(side[0], side[-1], min(COARSE_GRID, side.size)) for side in fine)
    plane = np.stack([*np.meshgrid(coarse_x, coarse_y), np.zeros((coarse_y.size, coarse_x.size))], axis=-1)
    fields = coil_fields(plane, num_coils, distance=distance, radius=radius, jitter=jitter, seed=seed)
    if num_coils == 1:
        return np.ones((1, *shape), dtype=np.complex64)

    def refine(values: np.ndarray) -> np.ndarray:
        if values.shape == (y.size, x.size):
            return values
        order_y, order_x = (min(3, side.size - 1) for side in (coarse_y, coarse_x))
        return RectBivariateSpline(coarse_y, coarse_x, values, kx=order_y, ky=order_x)(y, x)

    maps = np.stack([(refine(field.real) + 1j * refine(field.imag)).astype(np.complex64) for field in fields])
    if normalize:
        maps /= np.sqrt((np.abs(maps) ** 2).sum(axis=0))
    return maps


def simulate_phase(shape: tuple[int, ...], *, strength: float = 1.0, seed: int = 0) -> np.ndarray:
    """A smooth random phase of unit magnitude.

        exp(i phi),    phi = sum_kl a_kl cos(pi k y) cos(pi l x) / (1 + k^2 + l^2),    k, l = 0...3

    Args:
        shape: (rows, cols), or (readout, rows, cols) for a sum over three axes.
        strength: standard deviation of phi over the image, in radians; at least 0.
        seed: of the coefficients a_kl.

    Returns:
        The phase factor, complex64, of this shape.

    Raises:
        ValueError: if an argument is out of its range.
    """
    fits = len(shape) in (2, 3) and min(shape) >= 2
    check(fits, "shape", "(rows, cols) or (readout, rows, cols), at least 2 each", shape)
    check(strength >= 0, "strength", "at least 0", strength)
    orders = np.arange(PHASE_ORDER + 1)
    weights = np.random.default_rng([seed, 1]).standard_normal((orders.size,) * len(shape))
    weights /= 1 + sum(grid**2 for grid in np.meshgrid(*[orders] * len(shape), indexing="ij"))
    offset, weights.flat[0] = weights.flat[0], 0
    dtype = np.float64 if len(shape) == 2 else np.float32  # volumes are large
    phase = weights.astype(dtype)
    for size in shape:  # the axis made last goes to the end: after all of them the order is right again
        waves = np.cos(np.pi * np.outer((np.arange(size) + 0.5) / size, orders)).astype(dtype)
        phase = np.tensordot(phase, waves, axes=(0, 1))
    return np.exp(1j * dtype(strength) * (phase / phase.std() + dtype(offset))).astype(np.complex64)


def simulate_kspace(
    images: np.ndarray,
    *,
    num_coils: int | None = 8,
    snr: float = 30.0,
    phase_strength: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """K-space of images, in fastMRI's centered orthonormal convention, with complex white noise.

        y_c = F (s_c x exp(i phi)) + n_c,    E |n_c|^2 = (mean |x| / snr)^2

    where the mean goes over the object: the pixels above a tenth of the maximum.

    Args:
        images: (slices, rows, cols), real or complex. Real ones get a smooth phase, see `simulate_phase`; complex
            ones keep their own.
        num_coils: number of coils, see `simulate_sens_maps`; None for single-coil data without a coil axis.
        snr: mean magnitude of the object divided by the standard deviation of the complex noise of a coil's image;
            infinite for none.
        phase_strength: of the phase of real images, in radians.
        seed: of coils, phase and noise.

    Returns:
        K-space, complex64 (slices, num_coils, rows, cols), or (slices, rows, cols) without coils.

    Raises:
        ValueError: if an argument is out of its range, or the images are not finite.
    """
    return np.stack(list(_scan_slices(images, num_coils, snr, phase_strength, seed)))


def _scan_slices(
    images: np.ndarray, num_coils: int | None, snr: float, phase_strength: float, seed: int
) -> Iterator[np.ndarray]:
    """`simulate_kspace` slice by slice, since k-space is many times larger than images; errors come at once."""
    images = np.asarray(images)
    check(num_coils is None or num_coils >= 1, "num_coils", "at least 1, or None", num_coils)
    deviation = noise_deviation(images, snr, "images", "(slices, rows, cols)")
    shape = (images.shape[1], images.shape[2])
    phase = None if np.iscomplexobj(images) else simulate_phase(shape, strength=phase_strength, seed=seed)
    maps = None if num_coils is None else simulate_sens_maps(num_coils, shape, seed=seed)
    generator = np.random.default_rng([seed, 2])

    def scan(image: np.ndarray) -> np.ndarray:
        image = image if phase is None else image * phase
        image = image if maps is None else image * maps
        kspace = fft2c(image.astype(np.complex64))
        return kspace + deviation * white_noise(generator, kspace.shape)

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
    slices = _scan_slices(images, num_coils, snr, phase_strength, seed)
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
        for index, kspace in enumerate(slices):
            writer.write(index, kspace)


def pixel_centers(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Places along each axis; the longest goes from -1 to 1."""
    return [(2 * np.arange(size) + 1 - size) / max(shape) for size in shape]


def noise_deviation(images: np.ndarray, snr: float, name: str, axes: str) -> np.float32:
    """Standard deviation of the real part of the noise of images (three axes), which are checked."""
    check(images.ndim == 3 and images.size > 0, name, f"of shape {axes}", images.shape)
    check(bool(np.isfinite(images).all()), name, "finite", "NaN or infinite values")
    check(snr > 0, "snr", "above 0", snr)
    magnitude = np.abs(images)
    brightest = magnitude.max()
    if not brightest > 0:
        return np.float32(0)
    return np.float32(float(magnitude[magnitude > OBJECT_THRESHOLD * brightest].mean()) / snr / np.sqrt(2))


def white_noise(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Complex noise whose real and imaginary parts have a variance of 1, complex64."""
    return generator.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
