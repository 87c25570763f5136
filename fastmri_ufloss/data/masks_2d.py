"""Masks of points for two phase encoding directions: random of varying density, and Poisson discs."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from fastmri.data.subsample import MaskFunc
from torch import Tensor

from fastmri_ufloss.data.checks import check
from fastmri_ufloss.data.poisson_disk import poisson_disk, spacing_for_count

__all__ = ["PointMaskFunc", "Poisson2DMaskFunc", "VariableDensity2DMaskFunc", "draw_without_replacement"]

MIN_SIDE = 4
POLYNOMIAL_ORDER = 4


class PointMaskFunc(MaskFunc):
    """What the masks of points have in common: a fully sampled square, and an exact number of samples.

        sum(mask) = round(rows * cols / acceleration)

    of which n x n are the center, rows ``(rows - n + 1) // 2`` to there plus n and columns alike, where fastMRI
    has its center lines. A call takes a shape (..., rows, cols, 2) and returns a mask (1, ..., 1, rows, cols, 1)
    of 0 and 1, float32, and n for the number of low frequencies.

    Args:
        center_fractions: n is the nearest integer to this fraction of the columns, at least 1 and at most the
            shorter side. May be empty with ``center_size``, which takes their place.
        accelerations: all grid points over the samples; one for each center fraction.
        allow_any_combination: draw the two independently, as in fastMRI, rather than one of the pairs.
        seed: of the masks that are drawn without a seed.
        center_size: n itself, for every acceleration.
        elliptical: sample nothing beyond the ellipse that touches the borders of k-space.

    Raises:
        ValueError: if an argument is not as above. A call raises it if the shape is below 4 x 4, or if for one of
            the pairs the center alone takes the samples, or the ellipse has too few points or does not hold it.
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
            check(
                center_size == int(center_size) and center_size >= 1, "center_size", "an integer from 1", center_size
            )
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
        inside = ellipse(rows, cols) if self.elliptical else np.ones((rows, cols), dtype=bool)
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
                raise ValueError(
                    f"a center of {side} x {side} reaches out of the ellipse in {rows} x {cols}: lower it, or take "
                    "elliptical=False"
                )
            if inside.sum() < count:
                raise ValueError(
                    f"the ellipse has {inside.sum()} of {rows} x {cols} points, and acceleration {acceleration} "
                    f"takes {count}: raise it, or take elliptical=False"
                )


class VariableDensity2DMaskFunc(PointMaskFunc):
    """Random points whose density falls with the distance from the center of k-space.

        w(k) = max(1 - |k|, 0)^4 + 1 / (2 R),    |k|^2 = (k_row / (rows / 2))^2 + (k_col / (cols / 2))^2

    |k| = 1 is the ellipse that touches the borders, R the acceleration. The points around the center are drawn one
    after another without replacement, each with a probability in proportion to its w(k). Arguments, shapes and
    errors: see ``PointMaskFunc``. The polynomial density is that of Lustig et al., Sparse MRI, Magn. Reson. Med. 58
    (2007).
    """

    def draw(self, inside: np.ndarray, center: np.ndarray, count: int, acceleration: float) -> np.ndarray:
        falling = np.clip(1 - distance_from_middle(*center.shape), 0, None) ** POLYNOMIAL_ORDER
        weights = (falling + 1 / (2 * acceleration)) * (inside & ~center)
        return draw_without_replacement(weights, count, self.rng)


class Poisson2DMaskFunc(PointMaskFunc):
    """Random points that keep a distance from each other which grows with that from the center: Poisson discs.

        r(k) = s (1 + a |k|),    |k|^2 = (d_row / (rows / 2 - n / 2))^2 + (d_col / (cols / 2 - n / 2))^2

    d_row and d_col are how far a point is out of the square center, r is in steps of the grid, and one sample
    takes r^2 points. As in sigpy.mri.poisson s = 1, so that the density falls steadily from the fully sampled
    center, and a follows from the acceleration; beyond a = 8 it is s that grows (``spacing_for_count``). Samples
    are about 0.8 r apart at least; a few of them, to get the number right, about 0.6 r. Arguments, shapes and
    errors: see ``PointMaskFunc``; the method: ``poisson_disk``.
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


def possible_pairs(mask_func: MaskFunc) -> list[tuple[float, float]]:
    """The (center fraction, acceleration) that a mask may be drawn with.

    A pair that cannot work must fail at the first mask, and not when chance draws it hours later.
    """
    if mask_func.allow_any_combination:
        return list(itertools.product(mask_func.center_fractions, mask_func.accelerations))
    return list(zip(mask_func.center_fractions, mask_func.accelerations, strict=True))


def draw_without_replacement(weights: np.ndarray, count: int, rng: np.random.RandomState) -> np.ndarray:
    """So many elements, one after another, each with a probability in proportion to its weight.

    They are those with the shortest of the random times -log(u) / w, u uniform in (0, 1]: P. Efraimidis and P.
    Spirakis, Weighted random sampling with a reservoir, Inf. Process. Lett. 97 (2006).

    Args:
        weights: at least 0, of any shape, above 0 for ``count`` elements or more.
        count: how many.
        rng: gives the random numbers.

    Returns:
        True for those elements, bool of the shape of ``weights``.
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


def ellipse(rows: int, cols: int) -> np.ndarray:
    """True in the ellipse around the zero frequency that touches the borders, bool (rows, cols)."""
    return distance_from_middle(rows, cols) <= 1


def distance_from_square(shape: tuple[int, ...], side: int, *, margin: int = 0) -> np.ndarray:
    """Distances of the grid's points, and ``margin`` more on each side, from the square center, 1 at the borders."""
    axes = []
    for size in shape:
        start = (size - side + 1) // 2
        points = np.arange(-margin, size + margin)
        out = np.maximum(start - points, points - (start + side - 1)).clip(min=0)
        axes.append(out / max((size - side) / 2, 0.5))
    return np.hypot(axes[0][:, None], axes[1])
