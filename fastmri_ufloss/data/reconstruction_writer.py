"""Leaderboard files: how their images are cropped, and how they are written slice by slice."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from fastmri.data.transforms import center_crop
from torch import Tensor

from fastmri_ufloss.checks import require
from fastmri_ufloss.files import atomic_path

__all__ = ["ReconstructionWriter", "crop_like_fastmri", "leaderboard_size"]


def crop_like_fastmri(image: Tensor, crop_size: Sequence[Any]) -> Tensor:
    """Magnitude (batch, rows, cols), float32, of an image (batch, 1, rows, cols), cropped as for the leaderboard."""
    rows, cols = leaderboard_size(image, crop_size)
    cropped: Tensor = center_crop(image[:, 0].abs().float(), (min(rows, image.shape[-2]), cols))
    return cropped


def leaderboard_size(image: Tensor, crop_size: Sequence[Any]) -> tuple[int, int]:
    """Rows and columns that fastMRI crops an image to; one that is narrower than it should be becomes a square."""
    rows, cols = (int(torch.as_tensor(size).flatten()[0]) for size in crop_size)
    width = image.shape[-1]
    return (width, width) if width < cols else (rows, cols)


class ReconstructionWriter:
    """Writes volumes as ``fastmri.save_reconstructions`` does, without holding one in memory.

    Slices of a volume come one after another, in their order. A file appears when its volume is complete; slices
    that come again, where several processes share a data set, are dropped. A file has a data set ``reconstruction``
    (slices, rows, cols); and, where all slices of the volume were sampled in the same way, a data set ``mask`` of
    uint8, (cols,) or (rows, cols), 1 where a sample was acquired.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._fname, self._last_slice = "", -1
        self._written: set[str] = set()
        self._stack = contextlib.ExitStack()
        self._file: h5py.File | None = None
        self._mask: np.ndarray | None = None

    def add(
        self, fname: str, slice_num: int, image: np.ndarray | Tensor, *, mask: np.ndarray | Tensor | None = None
    ) -> None:
        """Append the magnitude (rows, cols) of a slice.

        The mask is not zero where a sample was acquired: (cols,), (rows, cols) or (1, 1 or rows, cols, 1). A slice
        out of turn, or of another size, raises ValueError.
        """
        if fname in self._written:
            return
        image = np.asarray(image, dtype=np.float32)
        sampled = None if mask is None else _sampled(mask)
        if self._file is None or fname != self._fname:
            self.close()
            self._file = self._open(fname, image.shape)
            self._fname, self._last_slice, self._mask = fname, -1, sampled
        images = self._file["reconstruction"]
        fits = image.shape == images.shape[1:] and slice_num > self._last_slice
        got = f"slice {slice_num} of {image.shape} after slice {self._last_slice} of {images.shape[1:]}"
        require(fits, f"slices of {fname} must have one size and come in their order", got)
        images.resize(images.shape[0] + 1, axis=0)
        images[-1] = image
        self._last_slice = slice_num
        if self._mask is not None and (sampled is None or not np.array_equal(sampled, self._mask)):
            self._mask = None

    def close(self) -> None:
        """Complete the volume at hand: its file gets its name."""
        file, self._file = self._file, None
        if file is not None:
            if self._mask is not None:
                file["mask"] = self._mask
            self._stack.close()
            self._written.add(self._fname)

    def discard(self) -> None:
        """Drop the volume at hand, if it is not complete."""
        self._file = None
        with contextlib.suppress(InterruptedError), self._stack:
            raise InterruptedError  # ends the writing of the file, so that it is removed

    def _open(self, fname: str, shape: tuple[int, ...]) -> h5py.File:
        temporary = self._stack.enter_context(atomic_path(self.folder / fname))
        file = self._stack.enter_context(h5py.File(temporary, "w"))
        sizes = {"shape": (0, *shape), "maxshape": (None, *shape), "chunks": (1, *shape)}
        file.create_dataset("reconstruction", dtype=np.float32, **sizes)
        return file


def _sampled(mask: np.ndarray | Tensor) -> np.ndarray:
    """(cols,) or (rows, cols), uint8."""
    array = np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask) != 0
    if array.ndim == 4:
        array = array[0, ..., 0]
    if array.ndim == 2 and len(array) == 1:
        array = array[0]
    return array.astype(np.uint8)
