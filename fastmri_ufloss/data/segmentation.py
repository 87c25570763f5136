"""Slices with their segmentations, to train and to test a segmentation network."""

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from fastmri_ufloss.checks import check
from fastmri_ufloss.data.index import list_volumes
from fastmri_ufloss.data.volume_files import open_hdf5
from fastmri_ufloss.files import name_some

__all__ = ["SegmentationSample", "SegmentationSlices", "find_reconstruction"]

NAME = "segmentation"
COMMAND = "python -m fastmri_ufloss.convert segmentation LABELS --output_path VOLUMES"
QUIET_SECONDS = 2.0  # a scan that takes longer shows its progress


class SegmentationSample(NamedTuple):
    """A slice and the class of each of its pixels."""

    image: Tensor  # magnitudes of the reconstruction, in the file's intensities, float32 (1, rows, cols)
    segmentation: Tensor  # class numbers, 0 is the background, int64 (rows, cols)
    fname: str
    slice_num: int


def find_reconstruction(volume: h5py.File) -> h5py.Dataset | None:
    """``reconstruction_rss`` of a volume, or ``reconstruction_esc`` of a single coil; None if it is undersampled."""
    names = ["reconstruction_rss", "reconstruction_esc"]
    if getattr(volume.get("kspace"), "ndim", 4) == 3:
        names.reverse()  # fastMRI's single-coil files have both, and its training takes the latter
    return next((volume[name] for name in names if name in volume), None)


class SegmentationSlices(Dataset[SegmentationSample]):
    """The slices of fully sampled fastMRI volumes with their segmentations; k-space is not read.

    An index is a slice's number, or (epoch, number) as of `EqualSizeBatches`. The volumes have a data set
    ``segmentation`` (slices, rows, cols). ``only_with_classes`` leaves out slices that are nothing but background,
    ``skip_missing`` volumes without a segmentation, which are an error otherwise. Raises FileNotFoundError without
    volumes, ValueError if a segmentation does not fit, or no slice is left.
    """

    def __init__(self, folder: str | Path, *, only_with_classes: bool = False, skip_missing: bool = False) -> None:
        shapes = {path: _read_shape(path) for path in _scan(list_volumes(folder))}
        missing = [path.name for path, shape in shapes.items() if shape is None]
        if missing and not skip_missing:
            raise ValueError(
                f"{len(missing)} of {len(shapes)} volumes in {folder} have no data set {NAME!r}: "
                f"{name_some(missing, shown=5)}; add it with {COMMAND}, or skip_missing"
            )
        self._shapes = {path: shape for path, shape in shapes.items() if shape is not None}
        self._slices = [(path, number) for path, shape in self._shapes.items() for number in range(shape[0])]
        if only_with_classes:
            self._slices = [(path, number) for path, number in self._slices if self._highest[path][number]]
        if not self._slices:
            raise ValueError(f"{folder} must have slices with a segmentation, got none that is left")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(rows, cols) of each slice, for `EqualSizeBatches`."""
        return [self._shapes[path][1:] for path, _ in self._slices]

    @property
    def num_classes(self) -> int:
        """The highest class number of the folder and one more."""
        return 1 + max(max(highest, default=0) for highest in self._highest.values())

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, key: int | tuple[int, int]) -> SegmentationSample:
        path, number = self._slices[key[1] if isinstance(key, tuple) else key]
        with open_hdf5(path, NAME) as volume:
            images = find_reconstruction(volume)
            if images is None:
                raise ValueError(f"{path} has no reconstruction any more")
            image = np.asarray(images[number], dtype=np.float32)
            segmentation = np.asarray(volume[NAME][number], dtype=np.int64)
        return SegmentationSample(torch.from_numpy(image)[None], torch.from_numpy(segmentation), path.name, number)

    @cached_property
    def _highest(self) -> dict[Path, list[int]]:
        """The highest class number of each slice."""
        highest = {}
        for path in _scan(list(self._shapes)):
            with open_hdf5(path, NAME) as volume:
                highest[path] = [int(classes.max()) for classes in volume[NAME]]
        return highest


def _scan(paths: list[Path]) -> "tqdm[Path]":
    return tqdm(paths, desc=f"Segmentations in {paths[0].parent.name}", unit="volume", delay=QUIET_SECONDS)


def _read_shape(path: Path) -> tuple[int, int, int] | None:
    """The shape of a volume's segmentation, None if it has none."""
    with open_hdf5(path) as volume:
        if NAME not in volume:
            return None
        images, classes = find_reconstruction(volume), volume[NAME]
        if images is None:
            raise ValueError(f"{path} must have a reconstruction beside its segmentation: is it undersampled?")
        shape = images.shape
        check(classes.shape == shape, f"{path}: {NAME}", f"of the reconstruction's shape {shape}", classes.shape)
        return shape
