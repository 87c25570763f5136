"""K-space of a volume in three dimensions, from simulated coils around the readout axis.

Axes are (readout, rows, cols): from head to foot, from left to right (ky) and from front to back (kz).
"""

from collections.abc import Iterator

import numpy as np
from scipy import fft
from scipy.interpolate import make_interp_spline

from fastmri_ufloss.data.checks import check
from fastmri_ufloss.simulation.coils import PHASE_ORDER, loop_field
from fastmri_ufloss.simulation.simulate import OBJECT_THRESHOLD

__all__ = ["fft3c", "ifft3c", "simulate_kspace_3d", "simulate_phase_3d", "simulate_sens_maps_3d"]

COARSE_GRID = 24  # points a side for the coil fields, which are smooth
AXES = (-3, -2, -1)
Shape = tuple[int, int, int]


def fft3c(volume: np.ndarray) -> np.ndarray:
    """Centred orthonormal Fourier transform of the last three axes."""
    return fft.fftshift(fft.fftn(fft.ifftshift(volume, axes=AXES), axes=AXES, norm="ortho"), axes=AXES)


def ifft3c(kspace: np.ndarray) -> np.ndarray:
    """The inverse of `fft3c`."""
    return fft.fftshift(fft.ifftn(fft.ifftshift(kspace, axes=AXES), axes=AXES, norm="ortho"), axes=AXES)


def simulate_sens_maps_3d(
    num_coils: int,
    shape: Shape,
    *,
    num_rings: int = 2,
    distance: float = 1.8,
    radius: float = 0.6,
    jitter: float = 0.1,
    seed: int = 0,
) -> np.ndarray:
    """Sensitivity maps of circular loops on a cylinder around the readout axis, as `simulate_sens_maps` in 2D.

        s_c = B_x - i B_y,    sum_c |s_c|^2 = 1,    x along cols, y along rows

    The coils go around the cylinder one after the other, from ring to ring. Half a side of the field of view,
    whose longest side goes from -1 to 1, is the unit of length.

    Args:
        num_coils: number of coils; a single one has a sensitivity of one everywhere.
        shape: (readout, rows, cols).
        num_rings: rings of coils, evenly over the readout axis.
        distance: of the loops' centres from the axis; above 1.42, out of the field of view.
        radius: of the loops.
        jitter: how far, in their spacing, the loops are moved at random around the axis, outwards and along
            it; 0 to 0.5.
        seed: of the places of the loops.

    Returns:
        The maps, complex64 (num_coils, readout, rows, cols).

    Raises:
        ValueError: if an argument is out of its range.
    """
    options = {"num_rings": num_rings, "distance": distance, "radius": radius, "jitter": jitter}
    return np.stack(list(_coil_maps(num_coils, shape, seed=seed, **options)))  # type: ignore[arg-type]


def simulate_phase_3d(shape: Shape, *, strength: float = 1.0, seed: int = 0) -> np.ndarray:
    """A smooth random phase of unit magnitude, as `simulate_phase` in 2D.

        exp(i phi),    phi = sum_klm a_klm cos(pi k z) cos(pi l y) cos(pi m x) / (1 + k^2 + l^2 + m^2)

    Args:
        shape: (readout, rows, cols).
        strength: standard deviation of phi over the volume, in radians; at least 0.
        seed: of the coefficients a_klm, k, l, m = 0...3.

    Returns:
        The phase factor, complex64 (readout, rows, cols).

    Raises:
        ValueError: if an argument is out of its range.
    """
    _check_shape(shape)
    check(strength >= 0, "strength", "at least 0", strength)
    orders = np.arange(PHASE_ORDER + 1)
    weights = np.random.default_rng([seed, 1]).standard_normal((orders.size,) * 3)
    weights /= 1 + orders[:, None, None] ** 2 + orders[:, None] ** 2 + orders**2
    offset, weights[0, 0, 0] = weights[0, 0, 0], 0
    phase = weights
    for size in shape:  # the last axis made goes to the end: after three of them the order is right again
        waves = np.cos(np.pi * np.outer((np.arange(size) + 0.5) / size, orders)).astype(np.float32)
        phase = np.tensordot(phase.astype(np.float32), waves, axes=(0, 1))
    return np.exp(1j * np.float32(strength) * (phase / phase.std() + np.float32(offset))).astype(np.complex64)


def simulate_kspace_3d(
    volume: np.ndarray, *, num_coils: int = 8, snr: float = 30.0, phase_strength: float = 1.0, seed: int = 0
) -> Iterator[np.ndarray]:
    """K-space of a volume coil by coil, in the centred orthonormal convention, with complex white noise.

        y_c = F (s_c x exp(i phi)) + n_c,    E |n_c|^2 = (mean |x| / snr)^2

    where the mean goes over the object: the voxels above a tenth of the maximum. A coil takes a few volumes of
    memory, whatever the number of coils.

    Args:
        volume: (readout, rows, cols), real or complex. A real one gets a smooth phase, see `simulate_phase_3d`;
            a complex one keeps its own.
        num_coils: number of coils, see `simulate_sens_maps_3d`.
        snr: mean magnitude of the object divided by the standard deviation of the complex noise of a coil's
            image; infinite for none.
        phase_strength: of the phase of a real volume, in radians.
        seed: of coils, phase and noise.

    Returns:
        An iterator over the coils' k-space, complex64 (readout, rows, cols).

    Raises:
        ValueError: at once, if an argument is out of its range, or the volume is not finite.
    """
    volume = np.asarray(volume)
    check(volume.ndim == 3 and volume.size > 0, "volume", "of shape (readout, rows, cols)", volume.shape)
    check(bool(np.isfinite(volume).all()), "volume", "finite", "NaN or infinite values")
    check(snr > 0, "snr", "above 0", snr)
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    maps = _coil_maps(num_coils, shape, seed=seed)
    magnitude = np.abs(volume)
    brightest, deviation = float(magnitude.max()), 0.0
    if brightest > 0:
        deviation = float(magnitude[magnitude > OBJECT_THRESHOLD * brightest].mean()) / snr
    if not np.iscomplexobj(volume):
        volume = volume * simulate_phase_3d(shape, strength=phase_strength, seed=seed)
    generator = np.random.default_rng([seed, 2])

    def scan(sens_map: np.ndarray) -> np.ndarray:
        kspace = fft3c((volume * sens_map).astype(np.complex64, copy=False))
        noise = generator.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
        kspace += np.float32(deviation / np.sqrt(2)) * noise
        return kspace

    return map(scan, maps)


def _coil_maps(
    num_coils: int,
    shape: Shape,
    *,
    num_rings: int = 2,
    distance: float = 1.8,
    radius: float = 0.6,
    jitter: float = 0.1,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """The maps of `simulate_sens_maps_3d` coil by coil; arguments are checked at once."""
    _check_shape(shape)
    check(num_coils >= 1, "num_coils", "at least 1", num_coils)
    check(num_rings >= 1, "num_rings", "at least 1", num_rings)
    check(distance > 1.42, "distance", "above 1.42", distance)
    check(radius > 0, "radius", "above 0", radius)
    check(0 <= jitter <= 0.5, "jitter", "from 0 to 0.5", jitter)
    if num_coils == 1:
        return iter([np.ones(shape, dtype=np.complex64)])
    fine = [(2 * np.arange(size) + 1 - size) / max(shape) for size in shape]
    coarse = [np.linspace(side[0], side[-1], min(COARSE_GRID, side.size)) for side in fine]
    points = np.stack(np.meshgrid(*coarse, indexing="ij")[::-1], axis=-1)  # (x, y, z), z along the readout
    spacing = 2 * np.pi / num_coils
    moves = jitter * np.random.default_rng([seed, 0]).uniform(-1, 1, (num_coils, 3)) * min(spacing, 1)
    fields = []
    for coil, (turn, outward, lift) in enumerate(moves):
        angle = spacing * coil + turn
        ring = (2 * (coil % num_rings) + 1 - num_rings) / num_rings * shape[0] / max(shape)
        direction = np.array([np.cos(angle), np.sin(angle), 0.0])
        field = loop_field(points, (distance + abs(outward)) * direction + [0, 0, ring + lift], -direction, radius)
        fields.append(field[..., 0] - 1j * field[..., 1])
    # the coils' maps of a full scan are too many to keep: each is refined twice
    squares = np.zeros(shape, dtype=np.float32)
    for field in fields:
        squares += np.abs(_refine(field, coarse, fine)) ** 2
    norm = np.sqrt(squares)
    return (_refine(field, coarse, fine) / norm for field in fields)


def _refine(values: np.ndarray, coarse: list[np.ndarray], fine: list[np.ndarray]) -> np.ndarray:
    """Values on a coarse grid by cubic splines on a fine one, complex64."""
    for axis, (nodes, places) in enumerate(zip(coarse, fine, strict=True)):
        if nodes.size < places.size:
            values = make_interp_spline(nodes, values, k=3, axis=axis)(places)
        values = values.astype(np.complex64)
    return values


def _check_shape(shape: Shape) -> None:
    check(len(shape) == 3 and min(shape) >= 2, "shape", "(readout, rows, cols), at least 2 each", shape)
