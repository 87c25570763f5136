"""From images to k-space: simulated coils, phase and noise, in slices (fastMRI volumes) and in three dimensions.

Axes of volumes are (readout, rows, cols): from head to foot, from left to right (ky) and from front to back (kz).
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft
from scipy.interpolate import RectBivariateSpline, make_interp_spline

from fastmri_ufloss.data.checks import check
from fastmri_ufloss.simulation.volume_file import fft2c, write_volume

__all__ = [
    "fft3c",
    "simulate_kspace",
    "simulate_kspace_3d",
    "simulate_phase",
    "simulate_sens_maps",
    "simulate_sens_maps_3d",
    "simulate_slices",
    "write_volume",
]

COARSE_GRID, COARSE_GRID_3D = 48, 24  # points a side for the coil fields, which are smooth
NUM_SEGMENTS = 32  # of a loop; the sum converges exponentially with them
PHASE_ORDER = 3  # highest number of half waves of the phase along a side
OBJECT_THRESHOLD = 0.1  # of the maximum: what is below is background
AXES = (-3, -2, -1)
Shape3D = tuple[int, int, int]


def fft3c(volume: np.ndarray) -> np.ndarray:
    """Centered orthonormal Fourier transform of the last three axes."""
    return fft.fftshift(fft.fftn(fft.ifftshift(volume, axes=AXES), axes=AXES, norm="ortho"), axes=AXES)


def loop_field(points: np.ndarray, center: ArrayLike, normal: ArrayLike, radius: float) -> np.ndarray:
    """Magnetic field of a circular current loop, by the law of Biot and Savart.

        B(r) = 1 / (4 pi) * sum_l dl x (r - l) / |r - l|^3

    Args:
        points: places r, (..., 3), and so is the field, in units of mu0 times the current per unit of length.
        center: (3,).
        normal: of the loop's plane, (3,), of any length but zero.
        radius: in the unit of the places.
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


def _coil_fields(
    axes: list[np.ndarray],
    num_coils: int,
    distance: float,
    radius: float,
    jitter: float,
    seed: int,
    heights: ArrayLike,
) -> Iterator[np.ndarray]:
    """B_x - i B_y of loops around the z axis, coil by coil, on a grid with these places along (z, y, x)."""
    check(num_coils >= 1, "num_coils", "at least 1", num_coils)
    check(distance > 1.42, "distance", "above 1.42", distance)
    check(radius > 0, "radius", "above 0", radius)
    check(0 <= jitter <= 0.5, "jitter", "from 0 to 0.5", jitter)
    points = np.stack(np.meshgrid(*axes, indexing="ij")[::-1], axis=-1)
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
    """Sensitivity maps of circular loops placed evenly around the field of view, whose longer half side is 1.

        s_c = B_x - i B_y,    sum_c |s_c|^2 = 1 if normalized

    Args:
        num_coils: a single one has a sensitivity of one everywhere.
        shape: (rows, cols) of the maps, which are complex64 (num_coils, rows, cols).
        distance: from the center of the field of view to those of the loops, above 1.42.
        radius: above 0.
        jitter: how far, in their spacing, the loops are moved at random, from 0 to 0.5.

    Raises:
        ValueError: if an argument is out of its range.
    """
    check(len(shape) == 2 and min(shape) >= 2, "shape", "(rows, cols), at least 2 each", shape)
    y, x = _pixel_centers(shape)
    coarse_y, coarse_x = (np.linspace(side[0], side[-1], min(COARSE_GRID, side.size)) for side in (y, x))
    fields = _coil_fields([np.zeros(1), coarse_y, coarse_x], num_coils, distance, radius, jitter, seed, 0.0)
    if num_coils == 1:
        return np.ones((1, *shape), dtype=np.complex64)

    def refine(values: np.ndarray) -> np.ndarray:
        if values.shape == (y.size, x.size):
            return values
        order_y, order_x = (min(3, side.size - 1) for side in (coarse_y, coarse_x))
        return RectBivariateSpline(coarse_y, coarse_x, values, kx=order_y, ky=order_x)(y, x)

    maps = np.stack([(refine(field.real) + 1j * refine(field.imag)).astype(np.complex64) for (field,) in fields])
    if normalize:
        maps /= np.sqrt((np.abs(maps) ** 2).sum(axis=0))
    return maps


def simulate_sens_maps_3d(
    num_coils: int,
    shape: Shape3D,
    *,
    num_rings: int = 2,
    distance: float = 1.8,
    radius: float = 0.6,
    jitter: float = 0.1,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Sensitivity maps as of `simulate_sens_maps`, coil by coil, of loops on a cylinder around the readout axis.

    Args:
        num_coils, distance, radius, jitter: see `simulate_sens_maps`.
        shape: (readout, rows, cols) of a map, which is complex64.
        num_rings: of coils, evenly over the readout axis; a coil is on another ring than the one before.

    Raises:
        ValueError: at once, if an argument is out of its range.
    """
    check(len(shape) == 3 and min(shape) >= 2, "shape", "(readout, rows, cols), at least 2 each", shape)
    check(num_rings >= 1, "num_rings", "at least 1", num_rings)
    fine = _pixel_centers(shape)
    coarse = [np.linspace(side[0], side[-1], min(COARSE_GRID_3D, side.size)) for side in fine]
    rings = (2 * (np.arange(num_coils) % num_rings) + 1 - num_rings) / num_rings * shape[0] / max(shape)
    fields = _coil_fields(coarse, num_coils, distance, radius, jitter, seed, rings)
    if num_coils == 1:
        return iter([np.ones(shape, dtype=np.complex64)])

    def refine(values: np.ndarray) -> np.ndarray:
        for axis, (nodes, places) in enumerate(zip(coarse, fine, strict=True)):
            if nodes.size < places.size:
                values = make_interp_spline(nodes, values, k=3, axis=axis)(places)
            values = values.astype(np.complex64)
        return values

    kept = list(fields)
    norm = np.sqrt(sum((np.abs(refine(field)) ** 2 for field in kept), np.zeros(shape, dtype=np.float32)))
    return (refine(field) / norm for field in kept)


def simulate_phase(shape: tuple[int, ...], *, strength: float = 1.0, seed: int = 0) -> np.ndarray:
    """A smooth random phase factor, complex64.

        exp(i phi),    phi = sum_kl a_kl cos(pi k y) cos(pi l x) / (1 + k^2 + l^2),    k, l = 0...3

    Args:
        shape: (rows, cols), or (readout, rows, cols) for a sum over three axes.
        strength: standard deviation of phi over the image, in radians; at least 0.

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
    """K-space of images, complex64 (slices, num_coils, rows, cols), in fastMRI's convention, with white noise.

        y_c = F (s_c x exp(i phi)) + n_c,    E |n_c|^2 = (mean |x| / snr)^2

    where the mean goes over the object: the pixels above a tenth of the maximum.

    Args:
        images: (slices, rows, cols). Real ones get a smooth phase, see `simulate_phase`; complex ones keep their own.
        num_coils: None for single-coil data without a coil axis.
        snr: above 0; infinite for no noise.
        phase_strength: in radians, of real images.

    Raises:
        ValueError: if an argument is out of its range, or the images are not finite.
    """
    return np.stack(list(simulate_slices(images, num_coils, snr, phase_strength, seed)))


def simulate_slices(
    images: np.ndarray, num_coils: int | None, snr: float, phase_strength: float, seed: int
) -> Iterator[np.ndarray]:
    """`simulate_kspace` slice by slice, because k-space is many times larger than images; errors come at once."""
    images = np.asarray(images)
    check(num_coils is None or num_coils >= 1, "num_coils", "at least 1, or None", num_coils)
    deviation = _noise_deviation(images, snr, "images", "(slices, rows, cols)")
    shape = (images.shape[1], images.shape[2])
    phase = 1 if np.iscomplexobj(images) else simulate_phase(shape, strength=phase_strength, seed=seed)
    maps = 1 if num_coils is None else simulate_sens_maps(num_coils, shape, seed=seed)
    return _add_noise((fft2c((image * phase * maps).astype(np.complex64)) for image in images), deviation, seed)


def simulate_kspace_3d(
    volume: np.ndarray, *, num_coils: int = 8, snr: float = 30.0, phase_strength: float = 1.0, seed: int = 0
) -> Iterator[np.ndarray]:
    """K-space of a volume (readout, rows, cols), as `simulate_kspace` of images, coil by coil to save memory.

    Raises:
        ValueError: at once, if an argument is out of its range, or the volume is not finite.
    """
    volume = np.asarray(volume)
    deviation = _noise_deviation(volume, snr, "volume", "(readout, rows, cols)")
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    maps = simulate_sens_maps_3d(num_coils, shape, seed=seed)
    if not np.iscomplexobj(volume):
        volume = volume * simulate_phase(shape, strength=phase_strength, seed=seed)
    return _add_noise((fft3c((volume * sens_map).astype(np.complex64)) for sens_map in maps), deviation, seed)


def _pixel_centers(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Places along each axis; the longest goes from -1 to 1."""
    return [(2 * np.arange(size) + 1 - size) / max(shape) for size in shape]


def _noise_deviation(images: np.ndarray, snr: float, name: str, axes: str) -> np.float32:
    """Standard deviation of the real part of the noise of images (three axes), which are checked."""
    check(images.ndim == 3 and images.size > 0, name, f"of shape {axes}", images.shape)
    check(bool(np.isfinite(images).all()), name, "finite", "NaN or infinite values")
    check(snr > 0, "snr", "above 0", snr)
    magnitude = np.abs(images)
    brightest = magnitude.max()
    if not brightest > 0:
        return np.float32(0)
    return np.float32(float(magnitude[magnitude > OBJECT_THRESHOLD * brightest].mean()) / snr / np.sqrt(2))


def _add_noise(kspace: Iterable[np.ndarray], deviation: np.float32, seed: int) -> Iterator[np.ndarray]:
    """Complex white noise; the deviation is that of real and imaginary parts."""
    generator = np.random.default_rng([seed, 2])
    for clean in kspace:
        noise = generator.standard_normal((*clean.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
        yield clean + deviation * noise
