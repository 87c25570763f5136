"""Classical reconstructions in the workers of a data loader, and those of an earlier run."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from fastmri_ufloss.baselines import CLASSICAL_METHODS
from fastmri_ufloss.data.transforms import MoDLDataTransform, MoDLSample
from fastmri_ufloss.pl_modules.scoring import crop_magnitude

__all__ = ["ClassicalSample", "ClassicalTransform", "FinishedVolumes", "magnitude", "single_thread"]


class ClassicalSample(NamedTuple):
    """A slice by several methods: magnitudes, cropped as fastMRI crops for its leaderboard.

    Args:
        images: (methods, rows, cols), float32, in the unit of the file.
        reference: coil-combined, (rows, cols), float32; empty where k-space is undersampled.
        mask: (1, 1 or rows, cols, 1), of the size of k-space.
        target: root-sum-of-squares (or single-coil) image of the file, or 0.
        fname: file name.
        slice_num: slice.
        max_value: maximum of the target's volume.
    """

    images: Tensor
    reference: Tensor
    mask: Tensor
    target: Tensor
    fname: str
    slice_num: int
    max_value: float


class FinishedVolumes:
    """Files of an earlier run that are complete, so that they need not be made again.

    Args:
        folders: of each method, by its name.
        slices: numbers of the slices of each volume, by its file name. A file with another number of slices does
            not count.
    """

    def __init__(self, folders: Mapping[str, Path], slices: Mapping[str, list[int]]) -> None:
        self._folders = dict(folders)
        self._slices = slices
        self._finished = {
            (method, fname)
            for method, folder in folders.items()
            for fname, numbers in slices.items()
            if _num_slices(folder / fname) == len(numbers)
        }

    def __contains__(self, method_and_fname: tuple[str, str]) -> bool:
        return method_and_fname in self._finished

    def __len__(self) -> int:
        return len(self._finished)

    def read(self, method: str, fname: str, slice_num: int) -> Tensor:
        """A slice of a finished file, (rows, cols)."""
        with h5py.File(self._folders[method] / fname, "r") as file:
            return torch.from_numpy(file["reconstruction"][self._slices[fname].index(slice_num)])


class ClassicalTransform:
    """Transform of fastMRI's ``SliceDataset`` that reconstructs a slice by several methods.

    By one thread: slices run side by side in the loader's workers, and an image does not depend on their number.

    Args:
        transform: makes the `MoDLSample`, with coil maps.
        weights: of each method, by its name in `CLASSICAL_METHODS`; None for its default, or where it has none.
        finished: what is read instead.
    """

    def __init__(
        self, transform: MoDLDataTransform, weights: Mapping[str, float | None], finished: FinishedVolumes
    ) -> None:
        self.transform = transform
        self.weights = dict(weights)
        self.finished = finished

    def __call__(
        self,
        kspace: np.ndarray,
        mask: np.ndarray | None,
        target: np.ndarray | None,
        attrs: dict[str, Any],
        fname: str,
        slice_num: int,
    ) -> ClassicalSample:
        """Reconstruct a slice; the arguments are those of ``fastmri.data.SliceDataset``."""
        with single_thread():
            sample = self.transform(kspace, mask, target, attrs, fname, slice_num)
            images = [
                self.finished.read(name, fname, slice_num)
                if (name, fname) in self.finished
                else magnitude(sample, reconstruct(name, sample, weight))
                for name, weight in self.weights.items()
            ]
            reference = sample.reference
            return ClassicalSample(
                images=torch.stack(images),
                reference=magnitude(sample, reference) if reference.numel() else torch.empty(0),
                mask=sample.mask,
                target=sample.target,
                fname=fname,
                slice_num=slice_num,
                max_value=sample.max_value,
            )


def reconstruct(name: str, sample: MoDLSample, weight: float | None) -> Tensor:
    """Complex image (rows, cols) by a method of `CLASSICAL_METHODS`."""
    inputs = (sample.masked_kspace[None], sample.mask[None], sample.sens_maps[None])
    return CLASSICAL_METHODS[name](*inputs, weight)[0]


def magnitude(sample: MoDLSample, image: Tensor) -> Tensor:
    """Of a complex image (rows, cols), cropped as fastMRI crops for its leaderboard."""
    crop_size = [torch.tensor([size]) for size in sample.crop_size]
    return torch.from_numpy(crop_magnitude(image[None], crop_size)[0].copy())


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Torch and what NumPy and scikit-learn call use one thread meanwhile: sums do not depend on their number."""
    try:
        from threadpoolctl import threadpool_limits  # comes with scikit-learn
    except ImportError:
        threadpool_limits = contextlib.nullcontext
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _num_slices(path: Path) -> int:
    try:
        with h5py.File(path, "r") as file:
            return int(file["reconstruction"].shape[0])
    except (OSError, KeyError):
        return 0
