"""What was sampled, seen in the zeros of k-space, and the fully sampled center of a mask."""

import h5py
import numpy as np
import torch

from fastmri_ufloss.checks import check, require
from fastmri_ufloss.mri.center import count_center_lines

__all__ = ["center_shape", "find_sampling", "mask_of_size", "padding_of", "sampled_points", "volume_sampling"]

MAX_ZEROS = 1e-4  # share of acquired points that may be zero by chance: less than a line of any image
MAX_GAPS = 0.05  # of a line of k-space: so many points may be zero by chance


def sampled_points(kspace: np.ndarray) -> np.ndarray:
    """Points of a slice's k-space (coils, rows, cols), or (rows, cols), that are not zero in every coil."""
    nonzero = kspace != 0
    return nonzero.any(axis=0) if nonzero.ndim == 3 else nonzero


def find_sampling(sampled: np.ndarray, *, max_zeros: float = MAX_ZEROS) -> np.ndarray | None:
    """The mask of k-space that was acquired undersampled.

    K-space without gaps is full: in every row and column, the sampled points are one run. So are rectangles
    (partial Fourier, asymmetric echoes) and ellipses; what is around them counts as zero-filled.

    ``sampled`` (rows, cols) is where k-space is not zero, ValueError if nowhere. Returns None for full k-space;
    columns (cols,) if all rows between the first and the last sampled row are alike; otherwise ``sampled`` itself.
    """
    check(sampled.ndim == 2, "sampled", "of shape (rows, cols)", sampled.shape)
    sampled = np.asarray(sampled, dtype=bool)
    require(bool(sampled.any()), "k-space must have a signal", "zeros only")
    allowed = max_zeros * np.count_nonzero(sampled)
    gaps = (_between(sampled, 0) | _between(sampled, 1)) & ~sampled
    if np.count_nonzero(gaps) <= allowed:
        return None
    rows = np.flatnonzero(sampled.any(axis=1))
    inside = sampled[rows[0] : rows[-1] + 1]
    columns = np.asarray(inside.any(axis=0))
    return columns if np.count_nonzero(inside != columns) <= allowed else sampled


def _between(sampled: np.ndarray, axis: int) -> np.ndarray:
    """From the first to the last sampled point along an axis."""
    after = np.logical_or.accumulate(sampled, axis=axis)
    before = np.flip(np.logical_or.accumulate(np.flip(sampled, axis=axis), axis=axis), axis=axis)
    return after & before


def mask_of_size(mask: np.ndarray, rows: int, cols: int, *, where: str) -> np.ndarray:
    """A mask of columns as boolean (cols,), a mask of points as boolean (rows, cols); otherwise ValueError."""
    mask = np.asarray(mask).astype(bool)
    if mask.size == cols:
        return mask.ravel()
    fits = mask.shape == (rows, cols)
    require(fits, f"{where}: mask must have shape {(cols,)} or {(rows, cols)}", mask.shape)
    return mask


def volume_sampling(kspace: h5py.Dataset, *, where: str) -> np.ndarray | None:
    """`find_sampling` of a volume without a mask: of the slice with a signal that is nearest to the middle.

    ``kspace`` is a data set (slices, coils, rows, cols) or (slices, rows, cols). The result is None for full k-space,
    and where nothing was acquired; a full slice beside others that are not raises ValueError.
    """
    middle = kspace.shape[0] // 2
    for number in sorted(range(kspace.shape[0]), key=lambda number: abs(number - middle)):
        sampled = sampled_points(kspace[number])
        if sampled.any():
            mask = find_sampling(sampled)
            if mask is None:
                _check_slices(kspace, full=number, where=where)
            return mask
    return None


def _check_slices(kspace: h5py.Dataset, *, full: int, where: str) -> None:
    """No slice has gaps if one has none: the row and the column through the center tell."""
    rows, cols = kspace.shape[-2:]
    for number in range(kspace.shape[0]):
        for line in (kspace[number, ..., rows // 2, :], kspace[number, ..., :, cols // 2]):
            sampled = np.flatnonzero((line != 0).reshape(-1, line.shape[-1]).any(axis=0))
            if sampled.size and sampled.size < (1 - MAX_GAPS) * (sampled[-1] + 1 - sampled[0]):
                raise ValueError(
                    f"{where}: slice {number} is undersampled, there are gaps of zeros in its k-space, and slice "
                    f"{full} is not: put slices that were sampled alike into a file of their own"
                )


def padding_of(sampled: np.ndarray) -> tuple[int, int]:
    """The range [left, right) of columns with a sample of (cols,) or (rows, cols); ValueError without the center."""
    cols = sampled.shape[-1]
    columns = np.flatnonzero(sampled.reshape(-1, cols).any(axis=0))
    left, right = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
    if not left < max(cols // 2, 1) or not cols // 2 < right:
        raise ValueError(f"columns from {left} to {right} were sampled, which leave out the center of {cols}")
    return left, right


def center_shape(mask: np.ndarray, rows: int) -> tuple[int, int]:
    """(rows, cols) of the fully sampled center of a mask (cols,) or (rows, cols): all rows of lines, or a square."""
    mask = np.asarray(mask).astype(bool)
    tensor = torch.from_numpy(mask.reshape(1, 1, 1 if mask.ndim == 1 else -1, mask.shape[-1], 1))
    count = int(count_center_lines(tensor))
    return (rows if mask.ndim == 1 else count, count)
