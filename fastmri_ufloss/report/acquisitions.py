"""The k-space of a volume that others have reconstructed, and how well reconstructions agree with its samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from fastmri.data.transforms import center_crop
from torch import Tensor

from fastmri_ufloss.data.sampling import mask_of_size, sampled_points, volume_sampling
from fastmri_ufloss.data.volume_files import open_hdf5
from fastmri_ufloss.mri.espirit import estimate_sens_maps
from fastmri_ufloss.mri.sense import cg_sense, data_residual, sens_reduce
from fastmri_ufloss.report.reconstructions import VolumeFiles, read_mask

__all__ = ["AcquiredScores", "AcquiredSlice", "AcquiredVolume", "differing_masks", "open_acquired", "sampling_mask"]

CENTER_LINES = 24  # of fully sampled k-space without a mask, for coil maps


class AcquiredSlice(NamedTuple):
    """A slice as it was acquired, with ESPIRiT maps from the center of the mask."""

    kspace: Tensor  # (coils, rows, cols, 2), float32
    sampled: np.ndarray  # (rows, cols), boolean: not zero in every coil
    sens_maps: Tensor  # (coils, rows, cols, 2), float32
    image: Tensor  # (rows, cols), complex64: coil-combined if k-space is fully sampled, otherwise CG-SENSE's

    def residual(self, magnitude: np.ndarray, mask: Tensor) -> tuple[float, float]:
        """The residual |U F S x - y| / |U y| of a magnitude with the phase of ``image``, and |U y|^2.

        The magnitude may be cropped around its center: what lies outside is taken from ``image``.
        """
        mask, image = mask.to(self.kspace.device), self.image.clone()
        inside = center_crop(image, magnitude.shape)  # a view
        values = torch.from_numpy(np.ascontiguousarray(magnitude)).to(image.device)
        inside.copy_(torch.polar(values, inside.angle()))
        residual = data_residual(image[None], self.kspace[None], mask, self.sens_maps[None])
        return float(residual), float((self.kspace * mask[0]).double().square().sum())


class AcquiredVolume:
    """The k-space of a fastMRI volume, read slice by slice, and how the volume was sampled.

    Masks are boolean, (cols,) or (rows, cols). ``file_mask`` is the data set ``mask`` of the file, or what its zeros
    show where there is no mask or a mask without a gap; None if the file is fully sampled. ``mask`` is ``file_mask``,
    or else the mask that was given: how the methods have sampled a volume whose k-space is complete. Raises
    ValueError if the file cannot be read, or some slices are fully sampled and others are not.
    """

    def __init__(
        self, path: str | Path, mask: np.ndarray | None = None, *, device: torch.device | str = "cpu"
    ) -> None:
        self.path, self.device = Path(path), torch.device(device)
        self.file_mask = read_mask(self.path)
        if self.file_mask is None or self.file_mask.all():
            with open_hdf5(self.path, "kspace") as file:
                self.file_mask = volume_sampling(file["kspace"], where=str(self.path))
        self.is_fully_sampled = self.file_mask is None
        self.mask = mask if self.is_fully_sampled else self.file_mask

    def read(self, slice_num: int) -> AcquiredSlice | None:
        """A slice; None if its k-space has NaN or infinite values.

        Raises ValueError if the slice cannot be read, or the mask does not fit or has no sampled center.
        """
        with open_hdf5(self.path, "kspace") as file:
            kspace = np.asarray(file["kspace"][slice_num], dtype=np.complex64)
        if not np.isfinite(kspace).all():
            return None
        kspace = kspace if kspace.ndim == 3 else kspace[None]  # single coil: one coil
        sampled = sampled_points(kspace)
        full = torch.view_as_real(torch.from_numpy(kspace)).to(self.device)[None]
        if self.mask is None:
            maps = estimate_sens_maps(full, min(CENTER_LINES, *full.shape[2:4]))
        else:
            mask = sampling_mask(self.mask, sampled, where=f"{self.path}, slice {slice_num}").to(self.device)
            maps = estimate_sens_maps(full * mask, mask=mask)
        if self.is_fully_sampled:
            image = torch.view_as_complex(sens_reduce(full, maps)[0, 0].contiguous())
        else:
            image = cg_sense(full * mask, mask, maps)[0]
        return AcquiredSlice(full[0], sampled, maps[0], image)


def open_acquired(files: VolumeFiles, masks: Mapping[str, np.ndarray], *, device: str) -> AcquiredVolume:
    """The k-space of a volume, with its own mask, or that of the folder of masks, or that of the first method."""
    if files.kspace is None:
        raise ValueError(f"files must have k-space, got none of {files.name}")
    mask = next(iter(masks.values()), None)
    if files.mask is not None:
        mask = read_mask(files.mask)
        if mask is None:
            raise ValueError(f"{files.mask} has no data set 'mask'")
    return AcquiredVolume(files.kspace, mask, device=device)


def sampling_mask(mask: np.ndarray, sampled: np.ndarray, *, where: str) -> Tensor:
    """A mask (cols,) or (rows, cols) for `data_residual` and coil maps, (1, 1, 1 or rows, cols, 1), float32.

    The mask never claims what the scan has left out, such as columns outside of the padding: ``sampled``,
    (rows, cols), tells where k-space is not zero. Shapes that do not belong together raise ValueError.
    """
    mask = mask_of_size(mask, *sampled.shape, where=where)
    if sampled.any():
        mask = _acquired_part(mask, sampled)
    return torch.from_numpy(mask.reshape(1, 1, -1, sampled.shape[1], 1).astype(np.float32))


class AcquiredScores:
    """Residuals of all methods on the acquired samples of a volume, and the image whose phase they were given.

    Magnitudes have no phase, so that each gets the phase of the image, the same for all methods. A method is compared
    with the samples of its own mask, where its file has a mask and neither the k-space nor the folder of masks says
    how the volume was sampled. A mask that does not fit raises ValueError.

    Attributes:
        image: complex64 (slices, rows, cols), cropped like the reconstructions; a reference if ``is_fully_sampled``.
        bad: slices whose k-space has NaN or infinite values.
        residual: of each method and, under the empty name, of ``image`` itself, (slices,) each; empty without a mask.
        energy: |U y|^2 of each slice, by the same names.
        differing: methods whose masks differ.
    """

    def __init__(self, files: VolumeFiles, outputs: Mapping[str, np.ndarray], *, device: str) -> None:
        masks = files.read_masks()
        acquired = open_acquired(files, masks, device=device)
        of_methods = {} if acquired.file_mask is not None or files.mask is not None else masks
        self.image = np.zeros((files.num_slices, *files.size), np.complex64)
        self.is_fully_sampled = acquired.is_fully_sampled
        self.bad: list[int] = []
        samples = {} if acquired.mask is None else dict.fromkeys(("", *outputs), acquired.mask) | of_methods
        self.residual, self.energy = ({name: np.zeros(files.num_slices) for name in samples} for _ in range(2))
        sampled = np.zeros((), dtype=bool)
        for slice_num in range(files.num_slices):
            acquired_slice = acquired.read(slice_num)
            if acquired_slice is None:
                self.bad.append(slice_num)
                continue
            sampled = sampled | acquired_slice.sampled
            self.image[slice_num] = center_crop(acquired_slice.image.cpu().numpy(), files.size)
            for name, mask in samples.items():
                magnitude = outputs[name][slice_num] if name else np.abs(self.image[slice_num])
                points = sampling_mask(mask, acquired_slice.sampled, where=f"{files.kspace}, slice {slice_num}")
                values = acquired_slice.residual(magnitude, points)
                self.residual[name][slice_num], self.energy[name][slice_num] = values
        if acquired.mask is not None and not of_methods:
            masks = {"the k-space": acquired.mask, **masks}
        self.differing = differing_masks(masks, sampled if sampled.any() else None)

    def of_volume(self, method: str, kept: np.ndarray) -> float:
        """The residual of a volume over some of its slices, |U F S x - y| / |U y|."""
        energy = self.energy[method][kept]
        errors = np.square(self.residual[method][kept]) * energy
        return float(np.sqrt(errors.sum() / energy.sum())) if energy.sum() > 0 else 0.0


def differing_masks(masks: Mapping[str, np.ndarray], sampled: np.ndarray | None = None) -> list[str]:
    """Names of masks, (cols,) or (rows, cols), that differ from the first one at points that the scan has sampled."""

    def are_equal(a: np.ndarray, b: np.ndarray) -> bool:
        if a.shape[-1] != b.shape[-1] or (a.ndim == b.ndim == 2 and a.shape != b.shape):
            return False
        if sampled is not None and sampled.shape[-1] == a.shape[-1]:
            a, b = _acquired_part(a, sampled), _acquired_part(b, sampled)
        return bool((a == b).all())

    names = list(masks)
    return [name for name in names[1:] if not are_equal(masks[names[0]], masks[name])]


def _acquired_part(mask: np.ndarray, sampled: np.ndarray) -> np.ndarray:
    return mask & (sampled.any(axis=0) if mask.ndim == 1 else sampled)
