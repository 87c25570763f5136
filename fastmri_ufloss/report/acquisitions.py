"""What was acquired of a volume that others have reconstructed: samples, mask, coil maps, and an image with phase."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from fastmri_ufloss.data.sampling import sampled_points, volume_sampling
from fastmri_ufloss.mri.espirit import estimate_sens_maps
from fastmri_ufloss.mri.sense import cg_sense, sens_reduce
from fastmri_ufloss.report.reconstructed_volume import read_mask

__all__ = ["AcquiredSlice", "AcquiredVolume", "sampling_mask"]

CENTER_LINES = 24  # of fully sampled k-space without a mask, for coil maps


class AcquiredSlice(NamedTuple):
    """A slice as it was acquired, float32.

    Args:
        kspace: (coils, rows, cols, 2), all that the file has.
        sampled: points that are not zero in every coil, boolean (rows, cols).
        sens_maps: ESPIRiT maps from the centre of the mask, (coils, rows, cols, 2).
        image: complex64 (rows, cols): the coil-combined image of fully sampled k-space, otherwise CG-SENSE's.
    """

    kspace: Tensor
    sampled: np.ndarray
    sens_maps: Tensor
    image: Tensor


class AcquiredVolume:
    """The k-space of a fastMRI volume, read slice by slice, and how it was sampled.

    Args:
        path: of the volume.
        mask: how the methods have sampled it, boolean (cols,) or (rows, cols), where its k-space is complete; None if
            that is not known.
        device: for the coil maps and the image.

    Raises:
        ValueError: if the file cannot be read, or one slice is fully sampled and another one not.

    Attributes:
        own_mask: the data set ``mask`` of the file, or what its zeros show where there is none or one without a
            gap, boolean (cols,) or (rows, cols); None if it is fully sampled.
        mask: ``own_mask``, or else the one that was given.
    """

    def __init__(
        self, path: str | Path, mask: np.ndarray | None = None, *, device: torch.device | str = "cpu"
    ) -> None:
        self.path, self.device = Path(path), torch.device(device)
        self.own_mask = read_mask(self.path)
        if self.own_mask is None or self.own_mask.all():
            with self._kspace() as kspace:
                self.own_mask = volume_sampling(kspace, where=str(self.path))
        self.mask = mask if self.own_mask is None else self.own_mask

    @property
    def is_fully_sampled(self) -> bool:
        """Whether the file is."""
        return self.own_mask is None

    def read(self, number: int) -> AcquiredSlice | None:
        """A slice; None if its k-space has NaN or infinite values.

        Raises:
            ValueError: if it cannot be read, or the mask does not fit or has no sampled centre.
        """
        with self._kspace() as data:
            kspace = np.asarray(data[number], dtype=np.complex64)
        if not np.isfinite(kspace).all():
            return None
        kspace = kspace if kspace.ndim == 3 else kspace[None]  # single coil: one coil
        sampled = sampled_points(kspace)
        full = torch.view_as_real(torch.from_numpy(kspace)).to(self.device)[None]
        if self.mask is None:
            low = min(CENTER_LINES, *full.shape[2:4])
            maps = estimate_sens_maps(full, low)
            image = sens_reduce(full, maps)
        else:
            mask = sampling_mask(self.mask, sampled, where=f"{self.path}, slice {number}").to(self.device)
            masked = full * mask
            maps = estimate_sens_maps(masked, mask=mask)
            if self.is_fully_sampled:
                image = sens_reduce(full, maps)
            else:
                image = torch.view_as_real(cg_sense(masked, mask, maps)).unsqueeze(1)
        return AcquiredSlice(full[0], sampled, maps[0], torch.view_as_complex(image[0, 0].contiguous()))

    @contextlib.contextmanager
    def _kspace(self) -> Iterator[h5py.Dataset]:
        try:
            with h5py.File(self.path, "r") as file:
                yield file["kspace"]
        except OSError as error:
            raise ValueError(f"{self.path} cannot be read, it may be damaged ({error})") from error


def sampling_mask(mask: np.ndarray, sampled: np.ndarray, *, where: str) -> Tensor:
    """A mask for `data_residual` and coil maps, (1, 1, 1 or rows, cols, 1), float32.

    It never claims what the scan has left out, such as columns outside of the padding.

    Args:
        mask: boolean (cols,) or (rows, cols).
        sampled: where the k-space is not zero, (rows, cols).
        where: file and slice, for the message.

    Raises:
        ValueError: if the shapes do not belong together.
    """
    rows, cols = sampled.shape
    if mask.shape not in ((cols,), (rows, cols)):
        raise ValueError(f"{where}: mask must have shape {(cols,)} or {(rows, cols)}, got {mask.shape}")
    if sampled.any():
        mask = mask & (sampled.any(axis=0) if mask.ndim == 1 else sampled)
    return torch.from_numpy(mask.reshape(1, 1, -1, cols, 1).astype(np.float32))
