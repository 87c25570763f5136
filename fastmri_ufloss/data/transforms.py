"""From a slice of a volume to the sample that MoDL is trained with."""

from typing import Any, NamedTuple

import numpy as np
import torch
from fastmri.data.subsample import MaskFunc
from fastmri.data.transforms import to_tensor
from torch import Tensor

from fastmri_ufloss.data.masking import SliceMasking
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
    """Transform of fastMRI's ``SliceDataset`` that makes a `MoDLSample`; for its masks see `SliceMasking`.

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
        self.masking = SliceMasking(mask_func, use_seed=use_seed, seed=seed, mask_per_volume=mask_per_volume)
        self.sens_maps = sens_maps
        self.keep_reference = keep_reference
        self.epoch = 0

    @property
    def mask_func(self) -> MaskFunc | None:
        """What draws the masks."""
        return self.masking.mask_func

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
        if target is not None and "max" not in attrs:
            raise ValueError(f"{fname} has a target image but no attribute 'max', the data range of its scores")
        full, masked, mask_tensor, num_low, undersampled = self.masking(
            kspace, mask, attrs, fname, slice_num, epoch=self.epoch
        )
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
        has_reference = self.keep_reference and not undersampled
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
