"""From a slice of a volume to the sample that fastMRI's U-Net is trained with."""

from typing import Any

import fastmri.data.transforms
import numpy as np
from fastmri.data.subsample import MaskFunc
from fastmri.data.transforms import UnetSample, tensor_to_complex_np

from fastmri_ufloss.data.checks import check
from fastmri_ufloss.data.masking import SliceMasking

__all__ = ["UnetDataTransform"]

DIMENSIONS = {"singlecoil": 2, "multicoil": 3}


class UnetDataTransform:
    """Transform of fastMRI's ``SliceDataset`` that makes a ``fastmri.data.transforms.UnetSample``.

    The k-space is masked by the rules of `SliceMasking`, as for MoDL. The rest is
    ``fastmri.data.transforms.UnetDataTransform``: the zero-filled root-sum-of-squares (or single-coil) magnitude,
    cropped to the target, less its mean, divided by its standard deviation and clamped to [-6, 6]; the target by
    the same two numbers. All are float32, ``max_value`` too, and so is a batch of them.

    Args:
        which_challenge: ``"singlecoil"`` or ``"multicoil"``.
        mask_func: draws the masks. A file that has a mask keeps it, and so does one whose zeros show how it was
            sampled; None is for such files, and for fully sampled ones.
        use_seed: one mask for each file, the one of fastMRI's transform.
        seed: of the training masks.
        mask_per_volume: training masks do not depend on the slice, as in a 3D scan, whose slices share the
            samples.

    Raises:
        ValueError: if the challenge is none of the two.
    """

    def __init__(
        self,
        which_challenge: str,
        mask_func: MaskFunc | None = None,
        *,
        use_seed: bool = True,
        seed: int = 0,
        mask_per_volume: bool = False,
    ) -> None:
        check(which_challenge in DIMENSIONS, "which_challenge", "'singlecoil' or 'multicoil'", repr(which_challenge))
        self.which_challenge = which_challenge
        self.masking = SliceMasking(mask_func, use_seed=use_seed, seed=seed, mask_per_volume=mask_per_volume)
        self.epoch = 0
        self._make_images = fastmri.data.transforms.UnetDataTransform(which_challenge)

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
    ) -> UnetSample:
        """Make the sample of a slice; the arguments are those of ``fastmri.data.SliceDataset``.

        Raises:
            ValueError: if k-space is not finite or not that of the challenge, the mask does not fit, or the target
                has no data range.
        """
        if kspace.ndim != DIMENSIONS[self.which_challenge]:
            layout = {2: "(rows, cols)", 3: "(coils, rows, cols)"}[DIMENSIONS[self.which_challenge]]
            raise ValueError(
                f"{fname}: k-space of a {self.which_challenge} slice must have shape {layout}, got {kspace.shape}"
            )
        if target is not None and "max" not in attrs:
            raise ValueError(f"{fname} has a target image but no attribute 'max', the data range of its scores")
        slice_ = self.masking(kspace, mask, attrs, fname, slice_num, epoch=self.epoch)
        masked = tensor_to_complex_np(slice_.masked_kspace)
        sample = self._make_images(
            masked if self.which_challenge == "multicoil" else masked[0],
            None,
            None if target is None else target.astype(np.float32, copy=False),
            attrs,
            fname,
            slice_num,
        )
        # a Python number would become float64 in a batch, and all that is computed with it
        return sample._replace(max_value=np.float32(sample.max_value))
