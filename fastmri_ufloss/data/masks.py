"""Sampling masks: fastMRI's own and three more, checked before the first file is read."""

import math
from collections.abc import Sequence

import fastmri.data.subsample
import numpy as np
from fastmri.data.subsample import MaskFunc
from torch import Tensor

from fastmri_ufloss.data.checks import check
from fastmri_ufloss.data.masks_2d import (
    MIN_SIDE,
    PointMaskFunc,
    Poisson2DMaskFunc,
    VariableDensity2DMaskFunc,
    draw_without_replacement,
    possible_pairs,
)

__all__ = ["MASK_TYPES", "POINT_MASKS", "Gaussian1DMaskFunc", "create_mask_for_mask_type", "min_center_shape"]

POINT_MASKS = {"variable_density_2d": VariableDensity2DMaskFunc, "poisson_2d": Poisson2DMaskFunc}
MASK_TYPES = (
    "random",
    "equispaced",
    "equispaced_fraction",
    "magic",
    "magic_fraction",
    "gaussian_1d",
    "variable_density_2d",
    "poisson_2d",
)


class Gaussian1DMaskFunc(MaskFunc):
    """Random columns whose density falls with the distance from the center of k-space, like a Gaussian.

        w(k) = exp(-(k - N / 2)^2 / (2 (N / 10)^2)) + 1 / (2 R),    sum(mask) = round(N / R)

    N is the number of columns, R the acceleration. The center lines, ``round(N * center_fraction)`` and at least
    one, are fully sampled, where fastMRI has them; the others are drawn one after another without replacement,
    each with a probability in proportion to its w(k). The density is that of the code of adversarial and perceptual
    refinement for compressed sensing MRI: M. Seitzer et al., MICCAI 2018. Arguments as for fastMRI's ``MaskFunc``;
    a call takes a shape (..., rows, cols, 2) and returns a mask (1, ..., 1, cols, 1) of 0 and 1, float32, and the
    number of center lines.

    Raises:
        ValueError: at a call, if there are fewer than 4 columns, or if for one of the pairs of center fraction and
            acceleration the center alone takes the lines that the acceleration leaves.
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
        lines = self.calculate_acceleration_mask(cols, acceleration, offset, num_center)
        return self.reshape_mask(center, shape), self.reshape_mask(lines, shape), num_center

    def calculate_acceleration_mask(
        self, num_cols: int, acceleration: float, offset: int | None, num_low_frequencies: int
    ) -> np.ndarray:
        """The lines out of the center, bool (num_cols,); ``offset`` means nothing here."""
        away = np.arange(num_cols) - num_cols / 2
        weights = np.exp(-(away**2) / (2 * (num_cols / 10) ** 2)) + 1 / (2 * acceleration)
        weights[self.calculate_center_mask((num_cols, 2), num_low_frequencies) > 0] = 0
        count = max(0, round(num_cols / acceleration) - num_low_frequencies)
        return draw_without_replacement(weights, count, self.rng)


def create_mask_for_mask_type(
    mask_type: str,
    center_fractions: Sequence[float],
    accelerations: Sequence[float],
    *,
    center_size: int | None = None,
    elliptical: bool = False,
) -> MaskFunc:
    """The mask function of that name: fastMRI's, or one of this package's.

    Args:
        mask_type: one of ``MASK_TYPES``.
        center_fractions: fractions of the columns that are fully sampled in the center, each in (0, 1]. For the
            masks of points, whose names end in ``_2d``, the center is a square with that many rows.
        accelerations: one for each center fraction, each >= 1; integers for 'equispaced' and 'magic'.
        center_size: for masks of points, the side of the square center in place of ``center_fractions``, which
            may then be empty.
        elliptical: for masks of points, sample nothing out of the ellipse that touches the borders of k-space. The
            acceleration still counts the whole grid.

    Returns:
        A function that draws one of the pairs with each mask.

    Raises:
        ValueError: if an argument is not as above.
    """
    if mask_type not in MASK_TYPES:
        raise ValueError(f"mask_type must be one of {', '.join(MASK_TYPES)}, got {mask_type!r}")
    if mask_type not in POINT_MASKS:
        only = f"only for the mask types {', '.join(POINT_MASKS)}"
        check(center_size is None, "center_size", only, f"{center_size} for {mask_type!r}")
        check(not elliptical, "elliptical", only, f"{elliptical} for {mask_type!r}")
    if center_size is None or center_fractions:
        _check_fractions(center_fractions, accelerations)
    _check_accelerations(mask_type, center_fractions, accelerations)
    if mask_type in POINT_MASKS:
        return POINT_MASKS[mask_type](center_fractions, accelerations, center_size=center_size, elliptical=elliptical)
    if mask_type == "gaussian_1d":
        return Gaussian1DMaskFunc(center_fractions, accelerations)
    # fastMRI takes its steps from them, which must be integers and not 4.0
    accelerations = [int(a) if a == int(a) else a for a in accelerations]
    return fastmri.data.subsample.create_mask_for_mask_type(mask_type, center_fractions, accelerations)


def _check_fractions(center_fractions: Sequence[float], accelerations: Sequence[float]) -> None:
    if not center_fractions or len(center_fractions) != len(accelerations):
        raise ValueError(
            "center_fractions and accelerations must have the same number of values, at least one, got "
            f"{list(center_fractions)} and {list(accelerations)}"
        )
    for fraction in center_fractions:
        if not 0 < fraction <= 1:
            raise ValueError(f"center_fractions must be above 0 and at most 1, got {fraction}")


def _check_accelerations(mask_type: str, center_fractions: Sequence[float], accelerations: Sequence[float]) -> None:
    check(len(accelerations) > 0, "accelerations", "at least one", list(accelerations))
    for acceleration in accelerations:
        if not 1 <= acceleration < math.inf:
            raise ValueError(f"accelerations must be at least 1, got {acceleration}")
        if mask_type in ("equispaced", "magic") and acceleration != int(acceleration):
            raise ValueError(f"accelerations must be integers for mask_type {mask_type!r}, got {acceleration}")
    if mask_type not in ("random", "equispaced_fraction", "gaussian_1d"):
        return
    for fraction, acceleration in zip(center_fractions, accelerations, strict=True):
        if fraction * acceleration >= 1 < acceleration:
            raise ValueError(
                f"a center fraction of {fraction} alone takes the samples that acceleration {acceleration} "
                f"leaves: lower one of the two, or take mask_type 'equispaced', which adds to the center"
            )


def min_center_shape(mask_func: MaskFunc, rows: int, cols: int) -> tuple[int, int]:
    """(rows, cols) of a center that every mask of ``mask_func`` samples fully, for k-space of rows x cols.

    It lies where the centers of the masks do, from ``(size - n + 1) // 2`` to there plus n along a side. Masks of
    columns sample all rows of it; for masks of points it is a square. At least 1 along a side.
    """
    if isinstance(mask_func, PointMaskFunc):
        side = min(mask_func.center_side(rows, cols, fraction) for fraction in mask_func.center_fractions)
        return side, side
    return rows, _min_center_lines(mask_func, cols)


def _min_center_lines(mask_func: MaskFunc, num_cols: int) -> int:
    """A number of center lines that every mask of ``mask_func`` samples fully, for images of ``num_cols``."""
    fewest = round(num_cols * min(mask_func.center_fractions))
    # 'magic_fraction' does not let the center exceed the lines that the acceleration leaves
    return max(1, min(fewest, round(num_cols / max(mask_func.accelerations))))
