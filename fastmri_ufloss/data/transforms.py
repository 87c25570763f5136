"""From a slice of a volume to the sample that MoDL is trained with."""

import zlib
from typing import Any, NamedTuple

import numpy as np
import torch
from fastmri.data.subsample import MaskFunc
from fastmri.data.transforms import apply_mask, to_tensor
from torch import Tensor

from fastmri_ufloss.data.sampling import center_shape, find_sampling, sampled_points
from fastmri_ufloss.data.sens_maps import SensMapSource
from fastmri_ufloss.mri.center import MIN_CENTER_LINES
from fastmri_ufloss.mri.sense import sens_reduce

__all__ = ["MoDLDataTransform", "MoDLSample"]


class MoDLSample(NamedTuple):
    """A slice for MoDL: ``fastmri.data.transforms.VarNetSample``, field by field, then what MoDL needs more.

    K-space, target and reference have the intensities of the file; ``scale`` is what to divide them by.
    A field that there is nothing for is an empty tensor.

    Args:
        masked_kspace: (coils, rows, cols, 2), zero where not acquired.
        mask: (1, 1, cols, 1), or (1, rows, cols, 1) of points; true where acquired.
        num_low_frequencies: fully sampled centre lines; with a mask of points, the side of the centre's square.
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
    on workers, processes or the order of the slices. A mask of points never claims what the scan has left out:
    points that are zero in all coils, such as the corners in many 3D scans.

    Args:
        mask_func: draws the masks. A file that has a mask keeps it, and so does one whose zeros show how it was
            sampled; None is for such files, and for fully sampled ones.
        use_seed: one mask for each file.
        seed: of the training masks.
        mask_per_volume: training masks do not depend on the slice, as in a 3D scan, whose slices share the
            samples.
        sens_maps: where maps come from. None leaves them to the device.
        keep_reference: whether fully sampled k-space, or the reference made of it, is handed on.
    """

    def __init__(
        self,
        mask_func: MaskFunc | None = None,
        *,
        use_seed: bool = True,
        seed: int = 0,
        mask_per_volume: bool = False,
        sens_maps: SensMapSource | None = None,
        keep_reference: bool = True,
    ) -> None:
        self.mask_func = mask_func
        self.use_seed = use_seed
        self.seed = seed
        self.mask_per_volume = mask_per_volume
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
        if mask is None and attrs.get("sampling") is not None:
            mask = self._find_mask(kspace, attrs["sampling"], fname, slice_num)
        if mask is not None:
            masked, mask_tensor, num_low = _apply_file_mask(full, mask, attrs, fname)
        else:
            masked, mask_tensor, num_low = self._apply_mask_func(full, attrs, fname, slice_num)
        if num_low < MIN_CENTER_LINES and (self.sens_maps is None or self.sens_maps.needs_center):
            raise ValueError(
                f"{fname}: {num_low} fully sampled centre lines, at least {MIN_CENTER_LINES} are needed for coil "
                f"maps; raise center_fractions or center_size (the image has {full.shape[-2]} columns), or give maps "
                "of your own (--sens_maps_path)"
            )
        empty = torch.empty(0)
        maps = reference = empty
        if self.sens_maps is not None:
            maps = self.sens_maps(masked, mask_tensor, num_low, attrs.get("path", fname), slice_num)
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
            slices = () if self.mask_per_volume else (slice_num,)
            seed = (self.seed, self.epoch, zlib.crc32(fname.encode()), *slices)
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
                raise ValueError(f"{fname}: slice {slice_num} is sampled in another way than the middle slice")
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
