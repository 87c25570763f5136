"""The fully sampled center of k-space: lines, or a square."""

import torch
from torch import Tensor

__all__ = ["MIN_CENTER_LINES", "center_regions", "count_center_lines", "crop_center"]

MIN_CENTER_LINES = 4  # for coil maps: the smallest kernel is 2 wide, and its blocks must overlap


def count_center_lines(mask: Tensor) -> Tensor:
    """Size n of the fully sampled center [pad, pad + n), pad = (size - n + 1) // 2: of lines, or of a square.

    In a mask of columns n is the number of contiguous sampled columns around the center, counted symmetrically as
    by ``fastmri.models.varnet.SensitivityModel``; in a mask of points the largest n for which n columns are sampled
    in n rows at least.

    Args:
        mask: (batch, 1, 1 or rows, cols, 1), of columns or, with rows, of points; otherwise ValueError.

    Returns:
        (batch,) int64; of columns: even, or 1 if the center is alone, or 0 if the center is missing, or cols if all
        are sampled; of points: from 0 to cols.
    """
    if mask.ndim != 5 or mask.shape[1] != 1 or mask.shape[-1] != 1:
        raise ValueError(f"mask must have shape (batch, 1, 1 or rows, cols, 1), got {tuple(mask.shape)}")
    sampled = mask[:, 0, ..., 0] != 0
    lines = _count_symmetric(sampled.all(dim=1))
    return lines if sampled.shape[1] == 1 else torch.maximum(lines, _count_square(sampled))


def _count_square(sampled: Tensor) -> Tensor:
    """Side of the largest fully sampled square in the center of each mask (batch, rows, cols)."""
    rows, cols = sampled.shape[1:]
    # the squares lie in each other, so a point is in all of them from some side on
    sides = torch.maximum(_first_side(rows, sampled.device)[:, None], _first_side(cols, sampled.device))
    smallest_without = torch.where(sampled, torch.iinfo(torch.int64).max, sides).flatten(1).amin(dim=1)
    return (smallest_without - 1).clamp(max=min(rows, cols))


def _first_side(size: int, device: torch.device) -> Tensor:
    """For each position the smallest n whose center [pad, pad + n), pad = (size - n + 1) // 2, holds it."""
    offset = torch.arange(size, device=device) - size // 2
    # n grows to the left and to the right in turn; which comes first depends on the parity of the size
    left, right = size % 2, 1 - size % 2
    return torch.where(offset < 0, left - 2 * offset, torch.where(offset > 0, right + 2 * offset, 1))


def _count_symmetric(sampled: Tensor) -> Tensor:
    cols = sampled.shape[1]
    center = cols // 2
    left = sampled[:, :center].flip(1).cumprod(dim=1).sum(dim=1)
    right = sampled[:, center:].cumprod(dim=1).sum(dim=1)
    # for an odd number of columns fastMRI's center reaches one further to the right than to the left
    count = 2 * torch.minimum(left, right - cols % 2)
    count = torch.where((count <= 0) & (right > 0), 1, count.clamp(min=0))
    return torch.where(sampled.all(dim=1), cols, count)


def crop_center(kspace: Tensor, size: int = 24) -> Tensor:
    """The center of k-space (..., rows, cols, 2) that holds every region for calibration of up to ``size``.

    It has ``size`` rows and columns, one more where their number in k-space differs by an odd number (the centers of
    all smaller regions then stay where they are), and no more than k-space has.
    """
    for dim in (-3, -2):
        total = kspace.shape[dim]
        count = min(size + (total - size) % 2, total)
        kspace = kspace.narrow(dim, (total - count + 1) // 2, count)
    return kspace


def center_regions(
    masked_kspace: Tensor, num_low_frequencies: int | Tensor | None, mask: Tensor | None, calibration_size: int
) -> list[tuple[int, int]]:
    """(rows, cols) of the region for calibration of each sample; arguments as for `estimate_sens_maps`.

    Raises:
        ValueError: if num_low_frequencies has another shape, or is or counts less than 4, or more than cols.
    """
    batch, _, rows, cols, _ = masked_kspace.shape
    given = torch.as_tensor(0 if num_low_frequencies is None else num_low_frequencies)
    if given.numel() not in (1, batch):
        raise ValueError(f"num_low_frequencies must be one number or have shape ({batch},), got {tuple(given.shape)}")
    is_square = mask is not None and mask.shape[2] > 1
    centers = [(int(n), is_square) for n in given.flatten().expand(batch).tolist()]
    if any(n == 0 for n, _ in centers):
        counted = _count(masked_kspace, mask)
        centers = [center if center[0] else count for center, count in zip(centers, counted, strict=True)]
    sizes = [n for n, _ in centers]
    if min(sizes) < MIN_CENTER_LINES or max(sizes) > cols:
        raise ValueError(
            f"num_low_frequencies must be from {MIN_CENTER_LINES} to the number of columns ({cols}), got {sizes}"
        )
    heights = [min(n, rows) if square else rows for n, square in centers]
    return [(min(h, calibration_size), min(n, calibration_size)) for h, n in zip(heights, sizes, strict=True)]


def _count(masked_kspace: Tensor, mask: Tensor | None) -> list[tuple[int, bool]]:
    """Size of the center of each sample, and whether the center is a square; all columns of an empty sample."""
    batch, _, rows, cols, _ = masked_kspace.shape
    if mask is not None:
        return [(n, mask.shape[2] > 1) for n in count_center_lines(mask).expand(batch).tolist()]
    sampled = (masked_kspace != 0).any(dim=-1).any(dim=1)
    # the middle rows only: the outer ones may be zero, or undersampled in both directions
    size = min(rows, 24)
    lines = _count_symmetric(sampled.narrow(1, (rows - size + 1) // 2, size).all(dim=1))
    side = _count_square(sampled)
    # lines are counted symmetrically: one more on a side does not make them a square
    is_square = side > lines + 1
    is_empty = ~sampled.flatten(1).any(dim=1)
    sizes = torch.where(is_empty, cols, torch.where(is_square, side, lines))
    return list(zip(sizes.tolist(), (is_square & ~is_empty).tolist(), strict=True))
