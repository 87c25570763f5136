"""The mask of a slice: that of its file, or one that is drawn."""

import zlib
from typing import Any, NamedTuple

import numpy as np
import torch
from fastmri.data.subsample import MaskFunc
from fastmri.data.transforms import apply_mask, to_tensor
from torch import Tensor

from fastmri_ufloss.data.sampling import center_shape, find_sampling, sampled_points

__all__ = ["MaskedSlice", "SliceMasking"]


class MaskedSlice(NamedTuple):
    """K-space of a slice before and after masking.

    Args:
        kspace: (coils, rows, cols, 2), all that the file has; one coil of single-coil data.
        masked_kspace: the same shape, zero where not acquired.
        mask: (1, 1, cols, 1), or (1, rows, cols, 1) of points; true where acquired.
        num_low_frequencies: fully sampled centre lines; with a mask of points, the side of the centre's square.
        undersampled: whether the file itself is, so that ``kspace`` is no more than ``masked_kspace``.
    """

    kspace: Tensor
    masked_kspace: Tensor
    mask: Tensor
    num_low_frequencies: int
    undersampled: bool


class SliceMasking:
    """Masks the slices of ``fastmri.data.SliceDataset``, for the transforms of this package.

    With ``use_seed`` (validation, test) a volume's mask is the one of fastMRI's own transforms: it depends on
    the file name alone. Without (training) it depends on (seed, epoch, file, slice) and on nothing else, so not
    on workers, processes or the order of the slices. A mask of points never claims what the scan has left out:
    points that are zero in all coils, such as the corners in many 3D scans.

    Args:
        mask_func: draws the masks. A file that has a mask keeps it, and so does one whose zeros show how it was
            sampled; None is for such files, and for fully sampled ones.
        use_seed: one mask for each file.
        seed: of the training masks.
        mask_per_volume: training masks do not depend on the slice.
    """

    def __init__(self, mask_func: MaskFunc | None, *, use_seed: bool, seed: int, mask_per_volume: bool) -> None:
        self.mask_func = mask_func
        self.use_seed = use_seed
        self.seed = seed
        self.mask_per_volume = mask_per_volume

    def __call__(
        self,
        kspace: np.ndarray,
        mask: np.ndarray | None,
        attrs: dict[str, Any],
        fname: str,
        slice_num: int,
        *,
        epoch: int,
    ) -> MaskedSlice:
        """Mask a slice; the arguments are those of ``fastmri.data.SliceDataset``, and the epoch of the training.

        Raises:
            ValueError: if k-space is not finite, or the mask does not fit.
        """
        if not np.isfinite(kspace).all():
            raise ValueError(f"{fname}, slice {slice_num}: k-space has NaN or infinite values")
        full = to_tensor(kspace.astype(np.complex64, copy=False))
        full = full if full.ndim == 4 else full[None]  # single coil: one coil
        if mask is None and attrs.get("sampling") is not None:
            mask = self._find_mask(kspace, attrs["sampling"], fname, slice_num)
        if mask is not None:
            return MaskedSlice(full, *_apply_file_mask(full, mask, attrs, fname), undersampled=True)
        return MaskedSlice(full, *self._apply_mask_func(full, attrs, fname, slice_num, epoch), undersampled=False)

    def _apply_mask_func(
        self, full: Tensor, attrs: dict[str, Any], fname: str, slice_num: int, epoch: int
    ) -> tuple[Tensor, Tensor, int]:
        if self.mask_func is None:
            return full, torch.ones(1, 1, full.shape[-2], 1, dtype=torch.bool), full.shape[-2]
        if self.use_seed:
            seed: tuple[int, ...] = tuple(map(ord, fname))
        else:
            slices = () if self.mask_per_volume else (slice_num,)
            seed = (self.seed, epoch, zlib.crc32(fname.encode()), *slices)
        padding = (attrs["padding_left"], attrs["padding_right"])
        masked, mask, num_low = apply_mask(full, self.mask_func, seed=seed, padding=padding)
        mask = mask.bool()
        if mask.shape[1] > 1:
            mask = mask & (full != 0).any(dim=-1, keepdim=True).any(dim=0, keepdim=True)
        return masked, mask, int(num_low)

    def _find_mask(self, kspace: np.ndarray, sampling: str, fname: str, slice_num: int) -> np.ndarray:
        """The mask of a slice without one that was undersampled when it was acquired."""
        if self.mask_func is not None and not self.use_seed:
            raise ValueError(
                f"{fname} is undersampled: there are gaps of zeros in its k-space, and training needs all of it; "
                "reconstruct.py takes such a file as it is"
            )
        sampled = sampled_points(kspace)
        if not sampled.any():
            sampled = np.ones_like(sampled)
        else:
            found = find_sampling(sampled)
            if found is None or (found.ndim == 2 and sampling == "columns"):
                raise ValueError(f"{fname}: slice {slice_num} is sampled in another way than the others")
        return np.asarray(sampled if sampling == "points" else sampled.any(axis=0))


def _apply_file_mask(full: Tensor, mask: np.ndarray, attrs: dict[str, Any], fname: str) -> tuple[Tensor, Tensor, int]:
    rows, cols = full.shape[-3:-1]
    mask = np.asarray(mask).astype(bool)
    if mask.size == cols:
        sampled = mask.reshape(1, cols).copy()
    elif mask.shape == (rows, cols):
        sampled = mask.copy()
    else:
        raise ValueError(f"{fname}: mask must have shape {(cols,)} or {(rows, cols)}, got {mask.shape}")
    sampled[:, : attrs["padding_left"]] = False
    sampled[:, attrs["padding_right"] :] = False
    mask_tensor = torch.from_numpy(sampled).reshape(1, -1, cols, 1)
    center = center_shape(sampled[0] if len(sampled) == 1 else sampled, rows)
    return full * mask_tensor, mask_tensor, center[1]
