"""Receive coils and the phase of an image, simulated."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import RectBivariateSpline

from fastmri_ufloss.data.checks import check

__all__ = ["loop_field", "simulate_phase", "simulate_sens_maps"]

COARSE_GRID = 48  # points a side for the coil fields, which are smooth
PHASE_ORDER = 3  # highest number of half waves of the phase along a side


def loop_field(
    points: np.ndarray, center: ArrayLike, normal: ArrayLike, radius: float, *, num_segments: int = 32
) -> np.ndarray:
    """Magnetic field of a circular current loop, by the law of Biot and Savart.

        B(r) = 1 / (4 pi) * sum_l dl x (r - l) / |r - l|^3

    Args:
        points: places r, (..., 3).
        center: of the loop, (3,).
        normal: of the loop's plane, (3,), of any length but zero.
        radius: of the loop, in the unit of the places.
        num_segments: of the loop; the sum converges exponentially with them.

    Returns:
        The field, (..., 3), in units of mu0 times the current per unit of length. On the axis, at the
        distance z from the centre, it is ``radius**2 / (2 * (radius**2 + z**2) ** 1.5)``.
    """
    axis = np.array(normal, dtype=float)
    axis /= np.linalg.norm(axis)
    first = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    angles = 2 * np.pi * np.arange(num_segments)[:, None] / num_segments
    wire = np.asarray(center, dtype=float) + radius * (np.cos(angles) * first + np.sin(angles) * second)
    steps = 2 * np.pi * radius / num_segments * (np.cos(angles) * second - np.sin(angles) * first)
    away = np.asarray(points, dtype=float)[..., None, :] - wire
    weights = (away**2).sum(axis=-1) ** -1.5 / (4 * np.pi)
    # sum_l dl x (r - l) w = (sum_l w dl) x r - sum_l w (dl x l): two products of matrices
    return np.cross(weights @ steps, points) - weights @ np.cross(steps, wire)


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

        s_c = B_x - i B_y,    sum_c |s_c|^2 = 1 if normalised

    Args:
        num_coils: number of coils; a single one has a sensitivity of one everywhere.
        shape: (rows, cols).
        distance: of the loops' centres from that of the field of view, whose longer half side is 1. The loops
            must be out of the field of view, where their field would be infinite: above 1.42.
        radius: of the loops, in the same unit.
        jitter: how far, in their spacing, the loops are moved at random along the circle, outwards and out
            of the plane; 0 to 0.5.
        normalize: divide by the root of the sum of squares over the coils.
        seed: of the places of the loops.

    Returns:
        The maps, complex64 (num_coils, rows, cols).

    Raises:
        ValueError: if an argument is out of its range.
    """
    _check_shape(shape)
    check(num_coils >= 1, "num_coils", "at least 1", num_coils)
    check(distance > 1.42, "distance", "above 1.42", distance)
    check(radius > 0, "radius", "above 0", radius)
    check(0 <= jitter <= 0.5, "jitter", "from 0 to 0.5", jitter)
    if num_coils == 1:
        return np.ones((1, *shape), dtype=np.complex64)
    generator = np.random.default_rng([seed, 0])
    spacing = 2 * np.pi / num_coils
    moves = jitter * generator.uniform(-1, 1, (num_coils, 3)) * min(spacing, 1)
    angles = spacing * np.arange(num_coils) + moves[:, 0]
    y, x = (_positions(size, max(shape)) for size in shape)
    coarse_y, coarse_x = (np.linspace(side[0], side[-1], min(COARSE_GRID, side.size)) for side in (y, x))
    plane = np.stack([*np.meshgrid(coarse_x, coarse_y), np.zeros((coarse_y.size, coarse_x.size))], axis=-1)
    maps = np.empty((num_coils, *shape), dtype=np.complex64)
    for coil, (angle, (_, outward, lift)) in enumerate(zip(angles, moves, strict=True)):
        direction = np.array([np.cos(angle), np.sin(angle), 0.0])
        center = (distance + abs(outward)) * direction + [0, 0, lift]
        field = loop_field(plane, center, -direction, radius)
        maps[coil] = _refine(field[..., 0], coarse_y, coarse_x, y, x)
        maps[coil] -= 1j * _refine(field[..., 1], coarse_y, coarse_x, y, x)
    if normalize:
        maps /= np.sqrt((np.abs(maps) ** 2).sum(axis=0))
    return maps


def simulate_phase(shape: tuple[int, int], *, strength: float = 1.0, seed: int = 0) -> np.ndarray:
    """A smooth random phase of unit magnitude.

        exp(i phi),    phi = sum_kl a_kl cos(pi k y) cos(pi l x) / (1 + k^2 + l^2),    k, l = 0...3

    Args:
        shape: (rows, cols).
        strength: standard deviation of phi over the image, in radians; at least 0.
        seed: of the coefficients a_kl.

    Returns:
        The phase factor, complex64 (rows, cols).

    Raises:
        ValueError: if an argument is out of its range.
    """
    _check_shape(shape)
    check(strength >= 0, "strength", "at least 0", strength)
    generator = np.random.default_rng([seed, 1])
    orders = np.arange(PHASE_ORDER + 1)
    weights = generator.standard_normal((orders.size, orders.size))
    weights /= 1 + orders[:, None] ** 2 + orders**2
    offset = weights[0, 0]
    weights[0, 0] = 0
    waves_y, waves_x = (np.cos(np.pi * np.outer((np.arange(n) + 0.5) / n, orders)) for n in shape)
    phase = waves_y @ weights @ waves_x.T
    return np.exp(1j * strength * (phase / phase.std() + offset)).astype(np.complex64)


def _check_shape(shape: tuple[int, int]) -> None:
    check(len(shape) == 2 and min(shape) >= 2, "shape", "(rows, cols), at least 2 each", shape)


def _positions(size: int, longest: int) -> np.ndarray:
    """Centres of the pixels along a side; the longest side goes from -1 to 1."""
    return (2 * np.arange(size) + 1 - size) / longest


def _refine(
    values: np.ndarray, coarse_y: np.ndarray, coarse_x: np.ndarray, y: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Values on a coarse grid, on a fine one."""
    if values.shape == (y.size, x.size):
        return values
    order_y, order_x = (min(3, side.size - 1) for side in (coarse_y, coarse_x))
    return RectBivariateSpline(coarse_y, coarse_x, values, kx=order_y, ky=order_x)(y, x)
