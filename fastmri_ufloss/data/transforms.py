"""From a slice of a volume to the sample that MoDL is trained with."""

import zlib
from typing import Any, NamedTuple

import numpy as np
import torch
from fastmri.data.subsample import MaskFunc
from fastmri.data.transforms import apply_mask, to_tensor
from torch import Tensor

from fastmri_ufloss.data.index import count_mask_center
from fastmri_ufloss.data.sens_maps import SensMapSource
from fastmri_ufloss.mri.sense import sens_reduce

__all__ = ["MIN_CENTER_LINES", "MoDLDataTransform", "MoDLSample"]

MIN_CENTER_LINES = 4


class MoDLSample(NamedTuple):
    """A slice for MoDL: ``fastmri.data.transforms.VarNetSample``, field by field, then what MoDL needs more.

    K-space, target and reference have the intensities of the file; ``scale`` is what to divide them by.
    A field that there is nothing for is an empty tensor.

    Args:
        masked_kspace: (coils, rows, cols, 2), zero where not acquired.
        mask: (1, 1, cols, 1), true where acquired.
        num_low_frequencies: fully sampled centre lines.
        target: root-sum-of-squares (or single-coil) image of the file, or 0.
        fname: file name.
        slice_num: slice.
        max_value: maximum of the target's volume.
        crop_size: of the image that is written.
        sens_maps: (coils, rows, cols, 2), if a source of maps was given to the transform.
        reference: complex coil-combined image (rows, cols) of the fully sampled k-space, if there are maps.
        scale: the volume's intensity scale, see `volume_scale`.
        kspace: (coils, rows, cols, 2) fully sampled, if there are no maps: to compute both on the device.
    """

    masked_kspace: Tensor
    mask: Tensor
    num_low_frequencies: int
    target: Tensor
    fname: str
    slice_num: int
    max_value: float
    crop_size: tuple[int, int]
    sens_maps: Tensor
    reference: Tensor
    scale: float
    kspace: Tensor


class MoDLDataTransform:
    """Transform of fastMRI's ``SliceDataset`` that makes a `MoDLSample`.

    With ``use_seed`` (validation, test) a volume's mask is the one of fastMRI's own transforms: it depends on
    the file name alone. Without (training) it depends on (seed, epoch, file, slice) and on nothing else, so not
    on workers, processes or the order of the slices.

    Args:
        mask_func: draws the masks. A file that has a mask keeps it; None is for such files, and for fully
            sampled ones.
        use_seed: one mask for each file.
        seed: of the training masks.
        sens_maps: where maps come from. None leaves them to the device.
        keep_reference: whether fully sampled k-space, or the reference made of it, is handed on.
    """

    def __init__(
        self,
        mask_func: MaskFunc | None = None,
        *,
        use_seed: bool = True,
        seed: int = 0,
        sens_maps: SensMapSource | None = None,
        keep_reference: bool = True,
    ) -> None:
        self.mask_func = mask_func
        self.use_seed = use_seed
        self.seed = seed
        self.sens_maps = sens_maps
        self.keep_reference = keep_reference
        self.epoch = 0

    def __call__(
        self,
        kspace: np.ndarray,
        mask: np.ndarray | None,
        target: np.ndarray | None,
        attrs: dict[str, Any],
        fname: str,
        slice_num: int,
    ) -> MoDLSample:
        """Make the sample of a slice; the arguments are those of ``fastmri.data.SliceDataset``.

        Raises:
            ValueError: if k-space is not finite, the mask does not fit, or too few centre lines are sampled.
        """
        if not np.isfinite(kspace).all():
            raise ValueError(f"{fname}, slice {slice_num}: k-space has NaN or infinite values")
        full = to_tensor(kspace.astype(np.complex64, copy=False))
        full = full if full.ndim == 4 else full[None]  # single coil: one coil
        if target is not None and "max" not in attrs:
            raise ValueError(f"{fname} has a target image but no attribute 'max', the data range of its scores")
        if mask is not None:
            masked, mask_tensor, num_low = _apply_file_mask(full, mask, attrs, fname)
        else:
            masked, mask_tensor, num_low = self._apply_mask_func(full, attrs, fname, slice_num)
        if num_low < MIN_CENTER_LINES:
            raise ValueError(
                f"{fname}: {num_low} fully sampled centre lines, at least {MIN_CENTER_LINES} are needed for "
                f"coil maps; raise center_fractions (the image has {full.shape[-2]} columns)"
            )
        empty = torch.empty(0)
        maps = reference = empty
        if self.sens_maps is not None:
            maps = self.sens_maps(masked, num_low, attrs.get("path", fname), slice_num)
        has_reference = self.keep_reference and mask is None
        if has_reference and self.sens_maps is not None:
            reference = torch.view_as_complex(sens_reduce(full[None], maps[None]))[0, 0]
        return MoDLSample(
            masked_kspace=masked,
            mask=mask_tensor,
            num_low_frequencies=num_low,
            target=torch.tensor(0) if target is None else to_tensor(target),
            fname=fname,
            slice_num=slice_num,
            max_value=float(attrs["max"]) if target is not None else 0.0,
            crop_size=(attrs["recon_size"][0], attrs["recon_size"][1]),
            sens_maps=maps,
            reference=reference,
            scale=float(attrs.get("scale", 1.0)),
            kspace=full if has_reference and self.sens_maps is None else empty,
        )

    def _apply_mask_func(
        self, full: Tensor, attrs: dict[str, Any], fname: str, slice_num: int
    ) -> tuple[Tensor, Tensor, int]:
        if self.mask_func is None:
            return full, torch.ones(1, 1, full.shape[-2], 1, dtype=torch.bool), full.shape[-2]
        if self.use_seed:
            seed: tuple[int, ...] = tuple(map(ord, fname))
        else:
            seed = (self.seed, self.epoch, zlib.crc32(fname.encode()), slice_num)
        padding = (attrs["padding_left"], attrs["padding_right"])
        masked, mask, num_low = apply_mask(full, self.mask_func, seed=seed, padding=padding)
        return masked, mask.bool(), int(num_low)


def _apply_file_mask(full: Tensor, mask: np.ndarray, attrs: dict[str, Any], fname: str) -> tuple[Tensor, Tensor, int]:
    cols = full.shape[-2]
    if mask.size != cols:
        raise ValueError(f"{fname}: mask must have {cols} values, one for each column, got {mask.shape}")
    sampled = np.asarray(mask).astype(bool).ravel().copy()
    sampled[: attrs["padding_left"]] = False
    sampled[attrs["padding_right"] :] = False
    mask_tensor = torch.from_numpy(sampled).reshape(1, 1, cols, 1)
    return full * mask_tensor, mask_tensor, count_mask_center(sampled)
