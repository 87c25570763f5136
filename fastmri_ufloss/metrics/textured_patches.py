"""Patches of an image that are worth looking at: those with the largest gradients."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["textured_corners"]

_BRIGHTEST = 95.0  # percentile; above it, fat rather than the organ would be found


def textured_corners(image: Tensor, patch_size: int, *, count: int = 1) -> Tensor:
    """Upper left corners of patches that do not overlap, that with the largest sum of gradients first.

    The gradients are those of the magnitude, which is clipped at its 95th percentile.

    Args:
        image: (rows, cols), complex or real.
        patch_size: rows and columns of a patch.
        count: number of patches; fewer where there is no room for another one beside those found.

    Returns:
        (number found, 2) int64, at least one.

    Raises:
        ValueError: if the image has another shape or is smaller than a patch, or count is below 1.
    """
    if image.ndim != 2 or min(image.shape) < patch_size:
        raise ValueError(
            f"image must be (rows, cols), at least as large as a patch of {patch_size}x{patch_size}, got "
            f"{tuple(image.shape)}"
        )
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    magnitude = image.detach().abs().cpu().double().numpy()
    gradients = np.hypot(*np.gradient(np.minimum(magnitude, np.percentile(magnitude, _BRIGHTEST))))
    sums = np.pad(gradients, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    p = patch_size
    texture = sums[p:, p:] - sums[:-p, p:] - sums[p:, :-p] + sums[:-p, :-p]
    corners: list[tuple[int, int]] = []
    while len(corners) < count:
        row, col = (int(i) for i in np.unravel_index(int(np.argmax(texture)), texture.shape))
        if texture[row, col] < 0:
            break
        corners.append((row, col))
        texture[max(row - p + 1, 0) : row + p, max(col - p + 1, 0) : col + p] = -1
    return torch.tensor(corners)
