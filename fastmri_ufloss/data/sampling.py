"""What was sampled, seen in the zeros of k-space, and the fully sampled centre of a mask."""

import numpy as np
import torch

from fastmri_ufloss.mri.center import count_center_lines

__all__ = ["center_shape", "find_sampling", "padding_of", "sampled_points"]


def sampled_points(kspace: np.ndarray) -> np.ndarray:
    """Points of a slice's k-space (coils, rows, cols), or (rows, cols), that are not zero in every coil."""
    nonzero = kspace != 0
    return nonzero.any(axis=0) if nonzero.ndim == 3 else nonzero


def find_sampling(sampled: np.ndarray) -> np.ndarray | None:
    """The mask of k-space that was undersampled when it was acquired, None if it was not.

    K-space counts as fully sampled if no gap lies between two samples of a row or of a column: what is missing
    at the borders only (partial Fourier, zero-filling, the corners that a 3D scan leaves out) is no undersampling.

    Args:
        sampled: boolean (rows, cols), see `sampled_points`.

    Returns:
        None, or boolean (cols,) if the rows that have samples have the same, and no gap between them, or
        boolean (rows, cols).

    Raises:
        ValueError: if the shape is another.
    """
    sampled = np.asarray(sampled).astype(bool)
    if sampled.ndim != 2:
        raise ValueError(f"sampled must have shape (rows, cols), got {sampled.shape}")
    if not (_has_gap(sampled) or _has_gap(sampled.T)):
        return None
    used = sampled.any(axis=1)
    rows = sampled[used]
    is_columns = (rows == rows[0]).all() and not _has_gap(used[None])
    return rows[0].copy() if is_columns else sampled.copy()


def _has_gap(sampled: np.ndarray) -> bool:
    """Whether a row has more than one run of samples."""
    edges = np.diff(np.pad(sampled, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    return bool(((edges == 1).sum(axis=1) > 1).any())


def padding_of(sampled: np.ndarray) -> tuple[int, int]:
    """The range [left, right) of columns that have a sample; all columns if there is none."""
    columns = np.flatnonzero(np.asarray(sampled).any(axis=0))
    return (int(columns[0]), int(columns[-1]) + 1) if columns.size else (0, sampled.shape[1])


def center_shape(mask: np.ndarray, rows: int) -> tuple[int, int]:
    """(rows, cols) of the fully sampled centre of a mask (cols,) or (rows, cols): lines, or a square.

    See `count_center_lines`; of lines all ``rows`` count.
    """
    mask = np.asarray(mask).astype(bool)
    tensor = torch.from_numpy(mask.reshape(1, 1, 1 if mask.ndim == 1 else -1, mask.shape[-1], 1))
    count = int(count_center_lines(tensor))
    return (rows if mask.ndim == 1 else count, count)
