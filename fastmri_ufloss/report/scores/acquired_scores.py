"""How well reconstructions agree with the samples that were acquired."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from fastmri.data.transforms import center_crop
from torch import Tensor

from fastmri_ufloss.mri.residual import data_residual
from fastmri_ufloss.report.acquisitions import AcquiredSlice, AcquiredVolume, sampling_mask
from fastmri_ufloss.report.reconstructed_volume import VolumeFiles, read_mask

__all__ = ["AcquiredScores", "differing_masks", "open_acquired", "score_acquired"]


@dataclass
class AcquiredScores:
    """What the k-space of a volume tells, slice by slice.

    Args:
        image: the image with phase, complex64 (slices, rows, cols), cropped like the reconstructions: coil-combined
            of fully sampled k-space, otherwise CG-SENSE's.
        is_fully_sampled: whether ``image`` is a reference.
        bad: slices whose k-space has NaN or infinite values.
        residual: of each method and, under the empty name, of ``image`` itself, (slices,) each; empty without a mask.
        energy: |U y|^2 of each slice, by the same names.
        differing: methods whose masks differ.
    """

    image: np.ndarray
    is_fully_sampled: bool
    bad: list[int] = field(default_factory=list)
    residual: dict[str, np.ndarray] = field(default_factory=dict)
    energy: dict[str, np.ndarray] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)

    def of_volume(self, method: str, kept: np.ndarray) -> float:
        """The residual of a volume over some of its slices, |U F S x - y| / |U y|."""
        energy = self.energy[method][kept]
        errors = np.square(self.residual[method][kept]) * energy
        return float(np.sqrt(errors.sum() / energy.sum())) if energy.sum() > 0 else 0.0


def open_acquired(files: VolumeFiles, masks: Mapping[str, np.ndarray], *, device: str) -> AcquiredVolume:
    """The k-space of a volume, with its own mask, or that of the folder of masks, or that of the first method."""
    if files.kspace is None:
        raise ValueError(f"files must have k-space, got none of {files.name}")
    shared = None if files.mask is None else read_mask(files.mask)
    if files.mask is not None and shared is None:
        raise ValueError(f"{files.mask} has no data set 'mask'")
    return AcquiredVolume(files.kspace, next(iter(masks.values()), None) if shared is None else shared, device=device)


def score_acquired(files: VolumeFiles, outputs: Mapping[str, np.ndarray], *, device: str) -> AcquiredScores:
    """Residuals of all methods on the acquired samples, and the image whose phase they were given.

    Magnitudes have no phase, so that each gets the one of the image, the same for all methods. What lies outside of
    a cropped reconstruction is taken from the image, too. A method is compared with the samples of its own mask,
    where its file has one and neither the k-space nor the folder of masks says how it was sampled.

    Args:
        files: of the volume, with k-space.
        outputs: magnitudes (slices, rows, cols) by method.
        device: for coil maps and transforms.

    Raises:
        ValueError: if a file cannot be read, or a mask does not fit.
    """
    masks = files.read_masks()
    acquired = open_acquired(files, masks, device=device)
    own = {} if acquired.own_mask is not None or files.mask is not None else masks
    found = AcquiredScores(np.zeros((files.num_slices, *files.size), np.complex64), acquired.is_fully_sampled)
    if acquired.mask is not None:
        for values in (found.residual, found.energy):
            values.update({name: np.zeros(files.num_slices) for name in ("", *outputs)})
        masks = {"the k-space": acquired.mask, **masks} if not own else masks
    sampled = np.zeros((), dtype=bool)
    for number in range(files.num_slices):
        one = acquired.read(number)
        if one is None:
            found.bad.append(number)
            continue
        sampled = sampled | one.sampled
        image = one.image.cpu().numpy()
        found.image[number] = center_crop(image, files.size)
        for name in found.residual:
            mask = own.get(name, acquired.mask)
            if mask is None:
                continue
            magnitude = outputs[name][number] if name else np.abs(found.image[number])
            where = f"{files.kspace}, slice {number}"
            residual, energy = _residual(one, magnitude, sampling_mask(mask, one.sampled, where=where))
            found.residual[name][number], found.energy[name][number] = residual, energy
    found.differing = differing_masks(masks, sampled if sampled.any() else None)
    return found


def differing_masks(masks: Mapping[str, np.ndarray], sampled: np.ndarray | None = None) -> list[str]:
    """Names of masks that differ from the first one.

    Args:
        masks: boolean (cols,) or (rows, cols).
        sampled: points (rows, cols) that the scan has acquired: others do not count.
    """
    names = list(masks)
    return [name for name in names[1:] if not _are_equal(masks[names[0]], masks[name], sampled)]


def _are_equal(a: np.ndarray, b: np.ndarray, sampled: np.ndarray | None) -> bool:
    if a.shape[-1] != b.shape[-1] or (a.ndim == b.ndim == 2 and a.shape != b.shape):
        return False
    if sampled is not None and sampled.shape[-1] == a.shape[-1]:
        a, b = (mask & sampled if mask.ndim == 2 else mask & sampled.any(axis=0) for mask in (a, b))
    return bool((a == b).all())


def _residual(one: AcquiredSlice, magnitude: np.ndarray, mask: Tensor) -> tuple[float, float]:
    """The residual of a magnitude with the phase of the slice's image, and |U y|^2."""
    mask = mask.to(one.kspace.device)
    image = one.image.clone()
    top, left = ((size - small) // 2 for size, small in zip(image.shape, magnitude.shape, strict=True))
    inside = image[top : top + magnitude.shape[0], left : left + magnitude.shape[1]]
    values = torch.from_numpy(np.ascontiguousarray(magnitude)).to(image.device)
    inside.copy_(torch.polar(values, inside.angle()))
    residual = data_residual(image[None], one.kspace[None], mask, one.sens_maps[None])
    return float(residual), float((one.kspace * mask[0]).double().square().sum())
