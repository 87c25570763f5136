"""Sampling masks: fastMRI's own and three more, of columns and of points, checked before the first file is read."""

import itertools
import math
from collections.abc import Sequence

import fastmri.data.subsample
import numpy as np
import torch
from fastmri.data.subsample import MaskFunc
from torch import Tensor

from fastmri_ufloss.checks import check, require
from fastmri_ufloss.data.poisson_disk import poisson_disk, spacing_for_count

__all__ = ["MASK_TYPES", "POINT_MASKS", "Gaussian1DMaskFunc", "create_mask_for_mask_type", "min_center_shape"]

MIN_SIDE = 4
POLYNOMIAL_ORDER = 4


class Gaussian1DMaskFunc(MaskFunc):
    """Random columns whose density falls with the distance from the center of k-space, like a Gaussian.

        w(k) = exp(-(k - N / 2)^2 / (2 (N / 10)^2)) + 1 / (2 R),    sum(mask) = round(N / R)

    N is the number of columns, R the acceleration. The center lines, ``round(N * center_fraction)`` and at least
    one, are fully sampled; the others are drawn without replacement in proportion to w(k), the density of M. Seitzer
    et al., MICCAI 2018. Arguments as for fastMRI's ``MaskFunc``; a call takes a shape (..., rows, cols, 2) and gives
    a mask (1, ..., 1, cols, 1) of 0 and 1, float32, and the number of center lines. Fewer than 4 columns, or a center
    that alone takes the lines of one of the accelerations, raise ValueError.
    """

    def sample_mask(self, shape: Sequence[int], offset: int | None) -> tuple[Tensor, Tensor, int]:
        """The center lines, the lines around them, both (1, ..., 1, cols, 1), and the number of the first."""
        cols = shape[-2]
        check(cols >= MIN_SIDE, "shape", f"of at least {MIN_SIDE} columns", tuple(shape))
        for fraction, acceleration in possible_pairs(self):
            num_center, num_lines = max(1, round(cols * fraction)), round(cols / acceleration)
            if num_center >= num_lines < cols:
                raise ValueError(
                    f"{num_center} center lines alone take the {num_lines} that acceleration {acceleration} leaves "
                    f"of {cols}: lower the center fraction {fraction} or the acceleration"
                )
        fraction, acceleration = self.choose_acceleration()
        num_center = max(1, round(cols * fraction))
        center = self.calculate_center_mask(shape, num_center)
        away = np.arange(cols) - cols / 2
        weights = np.exp(-(away**2) / (2 * (cols / 10) ** 2)) + 1 / (2 * acceleration)
        weights[center > 0] = 0
        lines = draw_without_replacement(weights, max(0, round(cols / acceleration) - num_center), self.rng)
        return self.reshape_mask(center, shape), self.reshape_mask(lines, shape), num_center


class PointMaskFunc(MaskFunc):
    """What the masks of points have in common: a fully sampled square, and an exact number of samples.

        sum(mask) = round(rows * cols / acceleration)

    A call takes a shape (..., rows, cols, 2) and returns a mask (1, ..., 1, rows, cols, 1) of 0 and 1, float32, and
    the side n of the square in rows ``(rows - n + 1) // 2`` to there plus n and columns alike.

    Args:
        center_fractions: n is the nearest integer to this fraction of the columns, at least 1 and at most the
            shorter side. May be empty with ``center_size``.
        accelerations: all grid points over the samples; one for each center fraction.
        allow_any_combination, seed: see fastMRI's ``MaskFunc``.
        center_size: n itself, for every acceleration.
        elliptical: sample nothing beyond the ellipse that touches the borders of k-space.

    Raises:
        ValueError: if an argument is not as above; at a call, if the shape is below 4 x 4, or if for one of the
            pairs the center alone takes the samples, or the ellipse has too few points or does not hold the center.
    """

    def __init__(
        self,
        center_fractions: Sequence[float],
        accelerations: Sequence[float],
        allow_any_combination: bool = False,
        seed: int | None = None,
        *,
        center_size: int | None = None,
        elliptical: bool = False,
    ) -> None:
        if center_size is not None:
            check(center_size == int(center_size) >= 1, "center_size", "an integer from 1", center_size)
            center_fractions = center_fractions or [0.0] * len(accelerations)
        super().__init__(center_fractions, accelerations, allow_any_combination, seed)
        self.center_size = center_size
        self.elliptical = elliptical

    def center_side(self, rows: int, cols: int, center_fraction: float) -> int:
        """The side n of the fully sampled square."""
        side = self.center_size if self.center_size is not None else round(cols * center_fraction)
        return min(max(side, 1), rows, cols)

    def sample_mask(self, shape: Sequence[int], offset: int | None) -> tuple[Tensor, Tensor, int]:
        """The center, the samples around it, both (1, ..., 1, rows, cols, 1), and n; ``offset`` is fastMRI's."""
        rows, cols = shape[-3:-1]
        check(min(rows, cols) >= MIN_SIDE, "shape", f"of at least {MIN_SIDE} rows and columns", tuple(shape))
        inside = np.ones((rows, cols), dtype=bool)
        if self.elliptical:
            inside = distance_from_middle(rows, cols) <= 1
        self._check_pairs(inside)
        fraction, acceleration = self.choose_acceleration()
        side = self.center_side(rows, cols, fraction)
        center = self.calculate_center_mask(shape, side)
        count = round(rows * cols / acceleration) - side * side
        samples = self.draw(inside, center, count, acceleration) if count else np.zeros_like(center)
        return self.reshape_mask(center, shape), self.reshape_mask(samples, shape), side

    def draw(self, inside: np.ndarray, center: np.ndarray, count: int, acceleration: float) -> np.ndarray:
        """``count`` samples inside and out of the center; all are bool (rows, cols)."""
        raise NotImplementedError

    def calculate_center_mask(self, shape: Sequence[int], num_low_freqs: int) -> np.ndarray:
        """The square center, bool (rows, cols)."""
        top, left = ((size - num_low_freqs + 1) // 2 for size in shape[-3:-1])
        mask = np.zeros(tuple(shape[-3:-1]), dtype=bool)
        mask[top : top + num_low_freqs, left : left + num_low_freqs] = True
        return mask

    def reshape_mask(self, mask: np.ndarray, shape: Sequence[int]) -> Tensor:
        """A mask (rows, cols) as float32 (1, ..., 1, rows, cols, 1)."""
        return torch.from_numpy(mask.astype(np.float32)).reshape(*(1 for _ in shape[:-3]), *mask.shape, 1)

    def _check_pairs(self, inside: np.ndarray) -> None:
        rows, cols = inside.shape
        for fraction, acceleration in possible_pairs(self):
            side = self.center_side(rows, cols, fraction)
            count = round(rows * cols / acceleration)
            if side * side >= count < rows * cols:
                raise ValueError(
                    f"a center of {side} x {side} alone takes the {count} samples that acceleration {acceleration} "
                    f"leaves of {rows} x {cols}: lower one of the two"
                )
            if not inside[self.calculate_center_mask((rows, cols, 1), side)].all():
                raise ValueError(f"a center of {side} x {side} reaches out of the ellipse: take elliptical=False")
            demand = f"the ellipse in {rows} x {cols} must have the {count} samples of acceleration {acceleration}"
            require(inside.sum() >= count, demand, f"{inside.sum()} points: take elliptical=False")


class VariableDensity2DMaskFunc(PointMaskFunc):
    """Random points whose density falls with the distance from the center of k-space; see `PointMaskFunc`.

        w(k) = max(1 - |k|, 0)^4 + 1 / (2 R),    |k|^2 = (k_row / (rows / 2))^2 + (k_col / (cols / 2))^2

    R is the acceleration. The points around the center are drawn without replacement in proportion to w(k). (Lustig
    et al., Sparse MRI, Magn. Reson. Med. 58, 2007.)
    """

    def draw(self, inside: np.ndarray, center: np.ndarray, count: int, acceleration: float) -> np.ndarray:
        falling = np.clip(1 - distance_from_middle(*center.shape), 0, None) ** POLYNOMIAL_ORDER
        weights = (falling + 1 / (2 * acceleration)) * (inside & ~center)
        return draw_without_replacement(weights, count, self.rng)


class Poisson2DMaskFunc(PointMaskFunc):
    """Poisson discs: random points whose distances grow with that from the center; see `PointMaskFunc`.

        r(k) = s (1 + a |k|),    |k|^2 = (d_row / (rows / 2 - n / 2))^2 + (d_col / (cols / 2 - n / 2))^2

    d_row and d_col are how far a point is out of the square center, and r is in steps of the grid. As in
    sigpy.mri.poisson s = 1, and a follows from the acceleration; beyond a = 8 s grows (`spacing_for_count`). Samples
    are about 0.8 r apart at least; a few of them, to get their number right, about 0.6 r (`poisson_disk`).
    """

    def draw(self, inside: np.ndarray, center: np.ndarray, count: int, acceleration: float) -> np.ndarray:
        side = math.isqrt(int(center.sum()))
        distances = distance_from_square(center.shape, side)
        scale, slope = spacing_for_count(distances[inside & ~center], count)
        # samples beyond the border, out to a disc: without them those on it would have more room than others
        margin = math.ceil(min(scale * (1 + slope * distances[inside].max()), max(center.shape) / 8))
        spacing = scale * (1 + slope * distance_from_square(center.shape, side, margin=margin))
        samples = poisson_disk(spacing, np.pad(inside, margin), np.pad(center, margin), count, self.rng)
        return samples[margin:-margin, margin:-margin]


POINT_MASKS = {"variable_density_2d": VariableDensity2DMaskFunc, "poisson_2d": Poisson2DMaskFunc}
MASK_TYPES = ("random", "equispaced", "equispaced_fraction", "magic", "magic_fraction", "gaussian_1d", *POINT_MASKS)


def create_mask_for_mask_type(
    mask_type: str,
    center_fractions: Sequence[float],
    accelerations: Sequence[float],
    *,
    center_size: int | None = None,
    elliptical: bool = False,
) -> MaskFunc:
    """The mask function of that name, fastMRI's or one of this package's, which draws one of the pairs for each mask.

    Args:
        mask_type: one of ``MASK_TYPES``.
        center_fractions: fractions of the columns that are fully sampled in the center, each in (0, 1]. For the
            masks of points, whose names end in ``_2d``, the center is a square with that many rows.
        accelerations: one for each center fraction, each >= 1; integers for 'equispaced' and 'magic'.
        center_size: for masks of points, the side of the square center in place of ``center_fractions``, which
            may then be empty.
        elliptical: for masks of points, sample nothing out of the ellipse that touches the borders of k-space. The
            acceleration still counts the whole grid.

    Raises:
        ValueError: if an argument is not as above.
    """
    check(mask_type in MASK_TYPES, "mask_type", f"one of {', '.join(MASK_TYPES)}", repr(mask_type))
    if mask_type not in POINT_MASKS:
        only = f"only for the mask types {', '.join(POINT_MASKS)}"
        check(center_size is None, "center_size", only, f"{center_size} for {mask_type!r}")
        check(not elliptical, "elliptical", only, f"{elliptical} for {mask_type!r}")
    fits = 0 < len(center_fractions) == len(accelerations) or (center_size is not None and not center_fractions)
    demand = "center_fractions and accelerations must have the same number of values, at least one"
    require(fits, demand, f"{list(center_fractions)} and {list(accelerations)}")
    _check_values(mask_type, center_fractions, accelerations)
    if mask_type in POINT_MASKS:
        return POINT_MASKS[mask_type](center_fractions, accelerations, center_size=center_size, elliptical=elliptical)
    if mask_type == "gaussian_1d":
        return Gaussian1DMaskFunc(center_fractions, accelerations)
    # fastMRI takes its steps from them, which must be integers and not 4.0
    accelerations = [int(a) if a == int(a) else a for a in accelerations]
    return fastmri.data.subsample.create_mask_for_mask_type(mask_type, center_fractions, accelerations)


def _check_values(mask_type: str, center_fractions: Sequence[float], accelerations: Sequence[float]) -> None:
    for fraction in center_fractions:
        check(0 < fraction <= 1, "center_fractions", "above 0 and at most 1", fraction)
    check(len(accelerations) > 0, "accelerations", "at least one", list(accelerations))
    for acceleration in accelerations:
        check(1 <= acceleration < math.inf, "accelerations", "at least 1", acceleration)
        fits = mask_type not in ("equispaced", "magic") or acceleration == int(acceleration)
        check(fits, "accelerations", f"integers for mask_type {mask_type!r}", acceleration)
    if mask_type not in ("random", "equispaced_fraction", "gaussian_1d"):
        return
    for fraction, acceleration in zip(center_fractions, accelerations, strict=True):
        if fraction * acceleration >= 1 < acceleration:
            raise ValueError(
                f"a center fraction of {fraction} alone takes the samples that acceleration {acceleration} "
                f"leaves: lower one of the two, or take mask_type 'equispaced', which adds to the center"
            )


def min_center_shape(mask_func: MaskFunc, rows: int, cols: int) -> tuple[int, int]:
    """(rows, cols), at least 1, of a center that every mask samples fully: of all rows, or a square of points.

    Along a side the center lies from ``(size - n + 1) // 2`` to there plus n, as the centers of the masks.
    """
    if isinstance(mask_func, PointMaskFunc):
        side = min(mask_func.center_side(rows, cols, fraction) for fraction in mask_func.center_fractions)
        return side, side
    # 'magic_fraction' does not let the center exceed the lines that the acceleration leaves
    fewest = min(round(cols * min(mask_func.center_fractions)), round(cols / max(mask_func.accelerations)))
    return rows, max(1, fewest)


def possible_pairs(mask_func: MaskFunc) -> list[tuple[float, float]]:
    """The (center fraction, acceleration) that a mask may be drawn with."""
    # a pair that cannot work must fail at the first mask, and not when chance draws the pair hours later
    if mask_func.allow_any_combination:
        return list(itertools.product(mask_func.center_fractions, mask_func.accelerations))
    return list(zip(mask_func.center_fractions, mask_func.accelerations, strict=True))


def draw_without_replacement(weights: np.ndarray, count: int, rng: np.random.RandomState) -> np.ndarray:
    """True for ``count`` elements, drawn one after another, each with a probability in proportion to its weight.

    The elements have the shortest of the random times -log(u) / w, u uniform in (0, 1]: P. Efraimidis and P.
    Spirakis, Weighted random sampling with a reservoir, Inf. Process. Lett. 97 (2006).
    """
    times = np.full(weights.shape, np.inf)
    possible = weights > 0
    times[possible] = -np.log1p(-rng.random_sample(weights.shape)[possible]) / weights[possible]
    chosen = np.zeros(weights.size, dtype=bool)
    chosen[np.argpartition(times.ravel(), count - 1)[:count]] = True
    return chosen.reshape(weights.shape)


def distance_from_middle(rows: int, cols: int) -> np.ndarray:
    """Distances of k-space's points from its zero frequency, (rows, cols), 1 at the middle of each border."""
    y, x = ((np.arange(size) - size // 2) / (size / 2) for size in (rows, cols))
    return np.hypot(y[:, None], x)


def distance_from_square(shape: tuple[int, ...], side: int, *, margin: int = 0) -> np.ndarray:
    """Distances of the grid's points, and ``margin`` more on each side, from the square center, 1 at the borders."""
    axes = []
    for size in shape:
        start = (size - side + 1) // 2
        points = np.arange(-margin, size + margin)
        out = np.maximum(start - points, points - (start + side - 1)).clip(min=0)
        axes.append(out / max((size - side) / 2, 0.5))
    return np.hypot(axes[0][:, None], axes[1])
