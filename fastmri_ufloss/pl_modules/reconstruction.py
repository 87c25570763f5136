"""From a batch to images: what every reconstruction module gives, and how fastMRI crops it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from fastmri.data.transforms import center_crop
from torch import Tensor

from fastmri_ufloss.mri.espirit import estimate_sens_maps
from fastmri_ufloss.mri.sense import sens_reduce

__all__ = ["Reconstruction", "crop_like_fastmri", "leaderboard_size", "with_maps"]

Batch = Any  # a collated `MoDLSample`, or fastMRI's `UnetSample` for its U-Net


class Reconstruction(NamedTuple):
    """A batch after a reconstruction network, in the intensities of the file.

    Args:
        image: (batch, 1, rows, cols), complex of networks with coil maps, otherwise real magnitude.
        reference: what ``image`` is to be, of the same shape and kind: coil-combined, or the file's
            root-sum-of-squares (or single-coil) image; None where the file has none.
        zero_filled: the image of the acquired samples alone, of the same shape and kind.
        sens_maps: (batch, coils, rows, cols, 2); None for networks without.
    """

    image: Tensor
    reference: Tensor | None
    zero_filled: Tensor
    sens_maps: Tensor | None

    def magnitudes(self) -> "Reconstruction":
        """The same with magnitude images."""
        reference = None if self.reference is None else self.reference.abs()
        return self._replace(image=self.image.abs(), reference=reference, zero_filled=self.zero_filled.abs())


def with_maps(batch: Batch) -> Batch:
    """A batch of `MoDLSample` with coil maps, and with the reference where k-space is fully sampled.

    Those that it has, or computed on the device where it is.
    """
    if batch.sens_maps is not None:
        return batch
    with torch.autocast(batch.mask.device.type, enabled=False):
        maps = estimate_sens_maps(batch.masked_kspace, batch.num_low_frequencies, mask=batch.mask)
        reference = None
        if batch.kspace is not None:
            reference = torch.view_as_complex(sens_reduce(batch.kspace, maps))[:, 0]
    return batch._replace(sens_maps=maps, reference=reference, kspace=None)


def crop_like_fastmri(image: Tensor, crop_size: Sequence[Any]) -> Tensor:
    """Magnitude (batch, rows, cols), float32, cropped as fastMRI crops for its leaderboard.

    Args:
        image: (batch, 1, rows, cols), complex or magnitude.
        crop_size: the collated field of a sample, rows and columns of each.
    """
    rows, cols = leaderboard_size(image, crop_size)
    cropped: Tensor = center_crop(image[:, 0].abs().float(), (min(rows, image.shape[-2]), cols))
    return cropped


def leaderboard_size(image: Tensor, crop_size: Sequence[Any]) -> tuple[int, int]:
    """Rows and columns that fastMRI crops an image to; one that is narrower than it should be becomes a square."""
    rows, cols = (int(torch.as_tensor(size).flatten()[0]) for size in crop_size)
    width = image.shape[-1]
    return (width, width) if width < cols else (rows, cols)
