"""Poisson discs whose radius grows with the distance from a center, on a grid of points."""

import math

import numpy as np
from numpy import ndarray
from scipy.ndimage import distance_transform_edt

__all__ = ["poisson_disk", "spacing_for_count"]

# Grid points per sample when discs that keep others out up to a squared distance of 0, 1, 2, 4, 5, 8... (number 0,
# 1, 2, 3...) have been thrown until none fits, measured on 500 x 500 points; 0.5 is half of number 0, half of 1.
JAMMED_LEVELS = (0, 0.5, 1, 1.5, 2, 3, 3.5, 4, 5, 6, 7, 8, 9, 10, 11)
JAMMED_AREAS = (1, 1.955, 2.746, 4.121, 5.338, 7.165, 9.21, 11.53, 13.21, 15.14, 19.05, 23.09, 24.57, 28.42, 30.60)
WIDE_DISC = 2.04  # for wider discs: their number of points for each of the samples
# Grid points per sample below which darts choose the points that are left out, from ... to: drawn for each mask, as
# the line where the two ways meet has a little fewer samples, which in one mask does not show.
DENSE = (1.6, 2.5)
FIRST_PASS = 0.98  # part of the samples for which the first pass makes room; the widest holes get the rest
MAX_SLOPE = 8.0
SHRINK = (0.8, 0.6, 0.4, 0.0)  # of the discs in the passes after it


def spacing_for_count(distances: ndarray, count: int) -> tuple[float, float]:
    """How the spacing of samples must grow with the distance for a number of samples.

        r(k) = s (1 + a |k|),    sum_k 1 / r(k)^2 = count

    with s = 1 and the a >= 0 that the number takes; if that is more than 8, with a = 8 and an s > 1.

    ``distances`` |k| are those of the points that may be sampled, ``count`` is from 1 to their number. Returns s in
    steps of the grid, and a.
    """
    # the sum over every point, again and again, would take longer than the sampling
    points, edges = np.histogram(distances, bins=1024)
    bins = (edges[:-1] + edges[1:]) / 2

    def too_many(growth: float) -> bool:
        scale, slope = max(1.0, growth / MAX_SLOPE), min(growth, MAX_SLOPE)
        return bool((points / (scale * (1 + slope * bins)) ** 2).sum() > count)

    low, high = 0.0, 1.0
    while too_many(high):
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if too_many(middle) else (low, middle)
    return max(1.0, high / MAX_SLOPE), min(high, MAX_SLOPE)


def poisson_disk(
    spacing: ndarray, inside: ndarray, taken: ndarray, count: int, rng: np.random.RandomState
) -> ndarray:
    """Samples at random points of a grid that keep a distance from each other: Poisson discs.

    Darts are thrown at the points in random order. A dart that hits a free point takes the point and blocks those
    nearer than about 0.83 r(k), the distance at which discs thrown until none fits have the density 1 / r(k)^2: at
    random one of the two distances on a grid next to the wanted one. The widest holes then get smaller and smaller
    discs, until the number of samples is reached (hierarchical dart throwing). Where more than half of the points
    are to be sampled, the others keep their distance from each other.

    ``spacing`` is r(k), in steps of the grid, at least 1; ``inside`` are the points that count: darts are thrown at
    the others as well, since without neighbors beyond a border the border would get more samples than its share;
    ``taken`` are samples that are there already. Returns the ``count`` added samples; all arrays are (rows, cols).

    M. McCool and E. Fiume, Hierarchical Poisson disk sampling distributions, Graphics Interface 1992; S. Vasanawala
    et al., Practical parallel imaging compressed sensing MRI, ISBI 2011.
    """
    dense = spacing**2 < rng.uniform(*DENSE)
    sampled = taken | _take_dense(spacing, inside, dense & ~taken, count, rng)
    squares, levels = _random_discs(spacing / FIRST_PASS**0.5, rng)
    free = ~(taken | dense)
    if sampled.any():
        free &= distance_transform_edt(~sampled) > np.sqrt(squares[levels])
    wanted = inside & ~taken
    left = count - np.count_nonzero(sampled & wanted)
    if left:
        _throw(sampled, free, rng.permutation(np.flatnonzero(free)), levels, squares, inside, left)
    for shrink in SHRINK:
        left = count - np.count_nonzero(sampled & wanted)
        if not left:
            break
        nearest = distance_transform_edt(~sampled)
        limits = shrink**2 * squares[levels]
        free = nearest > np.sqrt(limits)
        points = np.flatnonzero(free)
        # The widest holes first. Distances on a grid are often equal, and against a spacing of a point or two
        # the least of them is wide: less a bit, and with a random part, the holes of all spacings have their turn.
        width = ((nearest - 0.25) / spacing).ravel()[points] + 0.1 * rng.random_sample(points.size)
        smaller = np.searchsorted(squares, limits, side="right") - 1
        _throw(sampled, free, points[np.argsort(-width)], smaller, squares, inside, left)
    return sampled & wanted


def _take_dense(spacing: ndarray, inside: ndarray, dense: ndarray, count: int, rng: np.random.RandomState) -> ndarray:
    """The dense points, but for holes that keep a distance from each other, and at most so many inside."""
    if not dense.any():
        return dense
    # of holes rather too many, as samples are added afterwards
    apart = (FIRST_PASS / (1 - np.clip(1 / spacing**2, 1 / DENSE[1], 0.99))) ** 0.5
    squares, levels = _random_discs(apart, rng)
    holes = np.zeros_like(dense)
    _throw(holes, dense, rng.permutation(np.flatnonzero(dense)), levels, squares, inside, dense.size + 1)
    samples = dense & ~holes
    too_many = np.count_nonzero(samples & inside) - count
    if too_many > 0:
        samples.ravel()[rng.permutation(np.flatnonzero(samples & inside))[:too_many]] = False
    return samples


def _random_discs(spacing: ndarray, rng: np.random.RandomState) -> tuple[ndarray, ndarray]:
    """The squares of distances on a grid, ascending, and the number of the one that each point's disc has."""
    reach = math.ceil(1.1 * float(spacing.max())) + 4
    steps = np.arange(-reach, reach + 1) ** 2
    squares, points = np.unique(steps[:, None] + steps, return_counts=True)
    complete = squares <= reach**2
    squares, areas = squares[complete], points[complete].cumsum() / WIDE_DISC
    wide = np.arange(JAMMED_LEVELS[-1] + 1, squares.size)
    level = np.interp(spacing**2, [*JAMMED_AREAS, *areas[wide]], [*JAMMED_LEVELS, *wide])
    return squares, (level + rng.random_sample(spacing.shape)).astype(int)


def _throw(
    sampled: ndarray, free: ndarray, order: ndarray, levels: ndarray, squares: ndarray, inside: ndarray, count: int
) -> None:
    """Take free points in this order, each of which blocks its disc, until as many as that are inside."""
    cols = free.shape[1]
    used = np.unique(levels.ravel()[order])
    margin = math.isqrt(int(squares[used[-1]])) if used.size else 0
    width = cols + 2 * margin
    discs = {}
    for level, square in zip(used.tolist(), squares[used].tolist(), strict=True):
        halves = [(y, math.isqrt(square - y * y)) for y in range(-math.isqrt(square), math.isqrt(square) + 1)]
        discs[level] = [(y * width - x, y * width + x + 1, bytes(2 * x + 1)) for y, x in halves]
    # slices of bytes are faster than arrays for discs of a few points; the margin spares the look at borders
    flags = bytearray(np.pad(free, margin).tobytes())
    flags_view = np.frombuffer(flags, dtype=bool)
    # the further, the more of the points are blocked already: those need not go through the loop
    for part in np.split(order, [order.size // 8, order.size // 4, order.size // 2]):
        places = (part // cols + margin) * width + part % cols + margin
        points = part[flags_view[places]]
        hits = []
        columns = (points, places[flags_view[places]], levels.ravel()[points], inside.ravel()[points])
        for point, place, level, counts in zip(*(c.tolist() for c in columns), strict=True):
            if flags[place]:
                hits.append(point)
                count -= counts
                if count == 0:
                    break
                for start, stop, zeros in discs[level]:
                    flags[place + start : place + stop] = zeros
        sampled.ravel()[hits] = True
        if count == 0:
            break
