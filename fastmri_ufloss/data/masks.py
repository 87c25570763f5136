"""Sampling masks: fastMRI's own, checked before the first file is read."""

from collections.abc import Sequence

import fastmri.data.subsample
from fastmri.data.subsample import MaskFunc

__all__ = ["MASK_TYPES", "create_mask_for_mask_type", "min_center_lines"]

MASK_TYPES = ("random", "equispaced", "equispaced_fraction", "magic", "magic_fraction")


def create_mask_for_mask_type(
    mask_type: str, center_fractions: Sequence[float], accelerations: Sequence[int]
) -> MaskFunc:
    """fastMRI's mask function of that name.

    Args:
        mask_type: one of ``MASK_TYPES``.
        center_fractions: fractions of the columns that are fully sampled in the centre, each in (0, 1].
        accelerations: one for each centre fraction, each >= 1.

    Returns:
        A function that draws one of the pairs with each mask.

    Raises:
        ValueError: if an argument is not as above.
    """
    if mask_type not in MASK_TYPES:
        raise ValueError(f"mask_type must be one of {', '.join(MASK_TYPES)}, got {mask_type!r}")
    if not center_fractions or len(center_fractions) != len(accelerations):
        raise ValueError(
            "center_fractions and accelerations must have the same number of values, at least one, got "
            f"{list(center_fractions)} and {list(accelerations)}"
        )
    for fraction in center_fractions:
        if not 0 < fraction <= 1:
            raise ValueError(f"center_fractions must be above 0 and at most 1, got {fraction}")
    for acceleration in accelerations:
        if acceleration < 1:
            raise ValueError(f"accelerations must be at least 1, got {acceleration}")
    for fraction, acceleration in zip(center_fractions, accelerations, strict=True):
        if mask_type in ("random", "equispaced_fraction") and fraction * acceleration >= 1 < acceleration:
            raise ValueError(
                f"a centre fraction of {fraction} alone takes the samples that acceleration {acceleration} "
                f"leaves: lower one of the two, or take mask_type 'equispaced', which adds to the centre"
            )
    return fastmri.data.subsample.create_mask_for_mask_type(mask_type, center_fractions, accelerations)


def min_center_lines(mask_func: MaskFunc, num_cols: int) -> int:
    """A number of centre lines that every mask of ``mask_func`` samples fully, for images of ``num_cols``."""
    fewest = round(num_cols * min(mask_func.center_fractions))
    # 'magic_fraction' does not let the centre exceed the lines that the acceleration leaves
    return max(1, min(fewest, round(num_cols / max(mask_func.accelerations))))
