"""The images of a data folder, for the figures that show what a feature network sees."""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import fastmri
import numpy as np
import torch
from torch import Tensor

from fastmri_ufloss.data.index import list_volumes, read_metadata
from fastmri_ufloss.data.segmentation import find_reconstruction
from fastmri_ufloss.data.volume_files import open_hdf5
from fastmri_ufloss.files import name_some
from fastmri_ufloss.losses.ufloss import ufloss_per_image
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.mri import estimate_sens_maps, sens_reduce
from fastmri_ufloss.report.figures import drawing
from fastmri_ufloss.report.reconstructions import read_shape, read_text

__all__ = ["FigureImages", "Place", "Volume", "magnitude_ufloss", "read_complex", "texture"]

Place = tuple[int, int]
"""Number of a volume in its folder, and of a slice in the volume."""


class Volume(NamedTuple):
    """A file of images (slices, rows, cols), its ``patient_id`` or else its stem, and its ``acquisition``."""

    path: Path
    shape: tuple[int, int, int]
    subject: str
    contrast: str


class FigureImages:
    """The images of a folder as a feature network takes them: complex, see `read_complex`, or magnitudes.

    A volume that has no such images, images smaller than a patch, or was undersampled raises ValueError.
    """

    def __init__(self, folder: str | Path, net: PatchFeatureNet) -> None:
        self.folder = Path(folder)
        self.net = net
        self.volumes = [self._describe(path) for path in list_volumes(folder)]

    def place(self, volume: str | None, slice_num: int | None, *, otherwise: int = 0) -> Place:
        """A volume by its file name, or else by its number ``otherwise``, and a slice, the middle one if None."""
        numbers = [i for i, known in enumerate(self.volumes) if volume in (known.path.name, known.path.stem)]
        if volume is not None and not numbers:
            stems = name_some([known.path.stem for known in self.volumes], shown=5)
            raise ValueError(f"{self.folder} has no volume {volume!r}, only {stems}")
        number = numbers[0] if numbers else otherwise
        return number, self.volumes[number].shape[0] // 2 if slice_num is None else slice_num

    def evenly(self, count: int) -> list[Place]:
        """Evenly spaced slices over all volumes; all if there are no more."""
        if count < 1:
            raise ValueError(f"the number of images must be at least 1, got {count}")
        places = [(number, index) for number, volume in enumerate(self.volumes) for index in range(volume.shape[0])]
        count = min(count, len(places))
        return [places[(2 * i + 1) * len(places) // (2 * count)] for i in range(count)]

    def label(self, place: Place) -> str:
        """A volume and its slice in words."""
        return f"{self.volumes[place[0]].path.stem}, slice {place[1]}"

    def read(self, place: Place) -> Tensor:
        """An image (rows, cols) on the network's device; a missing, infinite or empty image raises ValueError."""
        image = self._read(*place)
        if not bool(image.any()):
            raise ValueError(f"{self.volumes[place[0]].path}: slice {place[1]} has no signal")
        return image

    def with_signal(self, places: Iterable[Place]) -> Iterator[tuple[Place, Tensor]]:
        """Some images, one after another; those without a signal are left out with a warning."""
        count = 0
        for place in places:
            image = self._read(*place)
            if bool(image.any()):
                count += 1
                yield place, image
            else:
                warnings.warn(
                    f"{self.volumes[place[0]].path}: slice {place[1]} has no signal: left out", stacklevel=2
                )
        if not count:
            raise ValueError(f"{self.folder} must have images with a signal, got none")

    def _read(self, number: int, slice_num: int) -> Tensor:
        path, (num_slices, *_), *_ = self.volumes[number]
        if not 0 <= slice_num < num_slices:
            raise ValueError(f"{path} has slices 0 to {num_slices - 1}, got {slice_num}")
        if self.net.in_chans == 2:
            image = read_complex(path, slice_num)
        else:
            with open_hdf5(path) as file:
                images = file["reconstruction"] if "reconstruction" in file else find_reconstruction(file)
                image = torch.from_numpy(np.asarray(images[slice_num], dtype=np.float32))  # type: ignore[index]
        if not bool(torch.isfinite(image).all()):
            raise ValueError(f"{path}: slice {slice_num} has NaN or infinite values")
        return image.to(next(self.net.parameters()).device)

    def _describe(self, path: Path) -> Volume:
        if self.net.in_chans == 2:
            with open_hdf5(path) as file:
                num_axes = file["kspace"].ndim if "kspace" in file else 0
            if not num_axes:
                hint = "give fastMRI volumes, or a feature network of 1 channel, for magnitudes"
                raise ValueError(f"{path} has no k-space, so no complex images: {hint}")
            metadata = read_metadata(path, "singlecoil" if num_axes == 3 else "multicoil")
            if metadata["sampling"] is not None:
                raise ValueError(f"{path} is undersampled: these figures need fully sampled k-space")
            num_slices, *_, rows, cols = metadata["kspace_shape"]
        else:
            num_slices, rows, cols = read_shape(path)
        if min(rows, cols) < (size := self.net.patch_size):
            small = f"images of {rows}x{cols}, smaller than the patches of the feature network, {size}x{size}"
            raise ValueError(f"{path} has {small}")
        subject = read_text(path, "patient_id") or path.stem
        return Volume(path, (num_slices, rows, cols), subject, read_text(path, "acquisition"))


def read_complex(path: str | Path, slice_num: int) -> Tensor:
    """The complex image (rows, cols) of a slice of fully sampled k-space, complex64, on the CPU.

    Several coils are combined with ESPIRiT maps of the 24x24 center. Where k-space is not finite, the image is not.
    """
    with open_hdf5(path, "kspace") as file:
        kspace = torch.from_numpy(np.asarray(file["kspace"][slice_num], dtype=np.complex64))
    if kspace.ndim == 2:
        return torch.view_as_complex(fastmri.ifft2c(torch.view_as_real(kspace)))
    if not bool(torch.isfinite(torch.view_as_real(kspace)).all()):
        return torch.full(kspace.shape[1:], torch.nan, dtype=torch.complex64)
    values = torch.view_as_real(kspace)[None]
    return torch.view_as_complex(sens_reduce(values, estimate_sens_maps(values)))[0, 0]


def texture(image: np.ndarray) -> float:
    """The mean gradient of the most textured square of an image."""
    square = drawing.most_textured(image)
    return float(np.hypot(*np.gradient(drawing.cut(image, square))).mean()) if square[2] > 1 else 0.0


def magnitude_ufloss(
    net: PatchFeatureNet, output: np.ndarray, target: np.ndarray, *, stride: int | None = None
) -> float:
    """UFLoss of a magnitude image (rows, cols), see `ufloss_per_image`."""
    pair = (torch.from_numpy(image)[None, None].float() for image in (output, target))
    return float(ufloss_per_image(net.eval().requires_grad_(False), *pair, stride=stride))
