"""From images to k-space: simulated coils, phase and noise, in slices (fastMRI volumes) and in three dimensions.

Axes of volumes are (readout, rows, cols): from head to foot, from left to right (ky) and from front to back (kz).
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft
from scipy.interpolate import make_interp_spline

from fastmri_ufloss.checks import check
from fastmri_ufloss.simulation.volume_file import fft2c, write_volume

__all__ = [
    "fft3c",
    "simulate_kspace",
    "simulate_kspace_3d",
    "simulate_phase",
    "simulate_sens_maps",
    "simulate_slices",
    "write_volume",
]

# coils by the number of axes
DISTANCE = {2: 1.6, 3: 1.8}  # of the loops from the center, in half sides of the field of view
NUM_RINGS = {2: 1, 3: 2}  # of loops, evenly over the readout
COARSE_GRID = {2: 48, 3: 24}  # points a side for the fields, which are smooth
RADIUS = 0.6
JITTER = 0.1  # how far, in their spacing, the loops are moved at random
NUM_SEGMENTS = 32  # of a loop; the sum converges exponentially with them

PHASE_ORDER = 3  # highest number of half waves of the phase along a side
OBJECT_THRESHOLD = 0.1  # of the maximum: what is below is background
AXES = (-3, -2, -1)
EITHER_SHAPE = "(rows, cols) or (readout, rows, cols), at least 2 each"


def fft3c(volume: np.ndarray) -> np.ndarray:
    """Centered orthonormal Fourier transform of the last three axes."""
    return fft.fftshift(fft.fftn(fft.ifftshift(volume, axes=AXES), axes=AXES, norm="ortho"), axes=AXES)


def loop_field(points: np.ndarray, center: ArrayLike, normal: ArrayLike, radius: float) -> np.ndarray:
    """Magnetic field of a circular current loop, in units of mu0 times the current per unit of length.

        B(r) = 1 / (4 pi) * sum_l dl x (r - l) / |r - l|^3

    The places r and the field are (..., 3); center and normal are (3,).
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


def simulate_sens_maps(num_coils: int, shape: tuple[int, ...], *, seed: int = 0) -> Iterator[np.ndarray]:
    """Sensitivity maps of circular loops around the field of view, coil by coil, complex64.

        s_c = (B_x - i B_y) / sqrt(sum_c |B_x - i B_y|^2)

    The loops around a volume (readout, rows, cols) are on a cylinder around the readout axis. A single coil is
    uniform. ValueError, at once, if an argument is out of its range.
    """
    check(num_coils >= 1, "num_coils", "at least 1", num_coils)
    check(len(shape) in (2, 3) and min(shape) >= 2, "shape", EITHER_SHAPE, shape)
    if num_coils == 1:
        return iter([np.ones(shape, dtype=np.complex64)])
    places = [(2 * np.arange(size) + 1 - size) / max(shape) for size in shape]
    grid = COARSE_GRID[len(shape)]
    nodes = [np.linspace(side[0], side[-1], min(grid, side.size)) for side in places]
    fields = list(_coil_fields(num_coils, nodes, shape[0] / max(shape), seed))
    squares = (np.abs(_interpolate(field, nodes, places)) ** 2 for field in fields)
    norm = np.sqrt(sum(squares, np.zeros(shape, dtype=np.float32)))
    return (_interpolate(field, nodes, places) / norm for field in fields)


def _coil_fields(num_coils: int, nodes: list[np.ndarray], height: float, seed: int) -> Iterator[np.ndarray]:
    """B_x - i B_y of each loop on a grid; the height of the field of view is for rings of loops."""
    distance, num_rings = DISTANCE[len(nodes)], NUM_RINGS[len(nodes)]
    z, y, x = np.meshgrid(*[np.zeros(1), *nodes][-3:], indexing="ij")
    points = np.stack([x, y, z], axis=-1).reshape(*map(len, nodes), 3)
    spacing = 2 * np.pi / num_coils
    moves = JITTER * np.random.default_rng([seed, 0]).uniform(-1, 1, (num_coils, 3)) * min(spacing, 1)
    for coil, (turn, outward, lift) in enumerate(moves):
        angle = spacing * coil + turn
        direction = np.array([np.cos(angle), np.sin(angle), 0.0])
        ring = (2 * (coil % num_rings) + 1 - num_rings) / num_rings * height
        center = (distance + abs(outward)) * direction + [0, 0, ring + lift]
        field = loop_field(points, center, -direction, RADIUS)
        yield field[..., 0] - 1j * field[..., 1]


def _interpolate(field: np.ndarray, nodes: list[np.ndarray], places: list[np.ndarray]) -> np.ndarray:
    """A field at all places from that at the nodes, by cubic splines, complex64."""
    for axis, (coarse, fine) in enumerate(zip(nodes, places, strict=True)):
        if coarse.size < fine.size:
            field = make_interp_spline(coarse, field, k=3, axis=axis)(fine)
        if field.ndim == 3:  # volumes are large
            field = field.astype(np.complex64)
    return np.ascontiguousarray(field, dtype=np.complex64)


def simulate_phase(shape: tuple[int, ...], *, strength: float = 1.0, seed: int = 0) -> np.ndarray:
    """A smooth random phase factor (rows, cols), complex64; of a volume the sum goes over three axes.

        exp(i phi),    phi = sum_kl a_kl cos(pi k y) cos(pi l x) / (1 + k^2 + l^2),    k, l = 0...3

    The strength is the standard deviation of phi over the image, in radians. ValueError if it is below 0.
    """
    check(len(shape) in (2, 3) and min(shape) >= 2, "shape", EITHER_SHAPE, shape)
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
    images: np.ndarray, *, num_coils: int | None = 8, snr: float = 30.0, phase_strength: float = 1.0, seed: int = 0
) -> np.ndarray:
    """K-space of images, complex64 (slices, num_coils, rows, cols), in fastMRI's convention, with white noise.

        y_c = F (s_c x exp(i phi)) + n_c,    E |n_c|^2 = (mean |x| / snr)^2

    where the mean goes over the object: the pixels above a tenth of the maximum. ValueError if an argument is out of
    its range, or the images are not finite.

    Args:
        images: (slices, rows, cols). Real ones get a smooth phase, see `simulate_phase`; complex ones keep their own.
        num_coils: None for single-coil data without a coil axis.
        snr: above 0; infinite for no noise.
        phase_strength: in radians, of real images.
    """
    return np.stack(list(simulate_slices(images, num_coils, snr, phase_strength, seed)))


def simulate_slices(
    images: np.ndarray, num_coils: int | None, snr: float, phase_strength: float, seed: int
) -> Iterator[np.ndarray]:
    """`simulate_kspace` slice by slice, because k-space is many times larger than images; errors come at once."""
    deviation = _noise_deviation(images, snr, "images", "(slices, rows, cols)")
    shape = images.shape[1:]
    phase = 1 if np.iscomplexobj(images) else simulate_phase(shape, strength=phase_strength, seed=seed)
    maps = 1 if num_coils is None else np.stack(list(simulate_sens_maps(num_coils, shape, seed=seed)))
    return _add_noise((fft2c((image * phase * maps).astype(np.complex64)) for image in images), deviation, seed)


def simulate_kspace_3d(
    volume: np.ndarray, *, num_coils: int = 8, snr: float = 30.0, phase_strength: float = 1.0, seed: int = 0
) -> Iterator[np.ndarray]:
    """K-space of a volume (readout, rows, cols), as `simulate_kspace` of images, coil by coil; errors at once."""
    deviation = _noise_deviation(volume, snr, "volume", "(readout, rows, cols)")
    maps = simulate_sens_maps(num_coils, volume.shape, seed=seed)
    if not np.iscomplexobj(volume):
        volume = volume * simulate_phase(volume.shape, strength=phase_strength, seed=seed)
    return _add_noise((fft3c((volume * sens_map).astype(np.complex64)) for sens_map in maps), deviation, seed)


def _noise_deviation(images: np.ndarray, snr: float, name: str, axes: str) -> np.float32:
    """Standard deviation of the real part of the noise of images (three axes), which are checked."""
    check(images.ndim == 3 and images.size > 0, name, f"of shape {axes}", images.shape)
    check(bool(np.isfinite(images).all()), name, "finite", "NaN or infinite values")
    check(snr > 0, "snr", "above 0", snr)
    magnitude = np.abs(images)
    inside = magnitude[magnitude > OBJECT_THRESHOLD * magnitude.max()]
    return np.float32(float(inside.mean()) / snr / np.sqrt(2) if inside.size else 0)


def _add_noise(kspace: Iterable[np.ndarray], deviation: np.float32, seed: int) -> Iterator[np.ndarray]:
    """Complex white noise; the deviation is that of real and imaginary parts."""
    generator = np.random.default_rng([seed, 2])
    for clean in kspace:
        noise = generator.standard_normal((*clean.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
        yield clean + deviation * noise
