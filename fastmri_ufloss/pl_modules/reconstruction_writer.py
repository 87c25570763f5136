"""Leaderboard files, written slice by slice."""

import contextlib
from pathlib import Path

import h5py
import numpy as np
from torch import Tensor

from fastmri_ufloss.files import atomic_path

__all__ = ["ReconstructionWriter"]


class ReconstructionWriter:
    """Writes volumes as ``fastmri.save_reconstructions`` does, without holding one in memory.

    Slices of a volume come one after another, in their order. A file appears when its volume is complete. Where
    several processes share a data set, some slices come again at the end to make the numbers equal: those are
    dropped.

    Args:
        folder: for the files, each with a data set ``reconstruction`` (slices, rows, cols).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._fname = ""
        self._last_slice = -1
        self._written: set[str] = set()
        self._stack = contextlib.ExitStack()
        self._images: h5py.Dataset | None = None

    def add(self, fname: str, slice_num: int, image: np.ndarray | Tensor) -> None:
        """Append a slice.

        Args:
            fname: file name of its volume.
            slice_num: its number, larger than that of the slice before.
            image: magnitude (rows, cols).

        Raises:
            ValueError: if a slice comes before its turn, or has another size than the one before.
        """
        if fname in self._written:
            return
        image = np.asarray(image, dtype=np.float32)
        if fname != self._fname:
            self.close()
            self._open(fname, image.shape)
        images = self._images
        if images is None or image.shape != images.shape[1:] or slice_num <= self._last_slice:
            raise ValueError(
                f"slices of {fname} must have one size and come in their order, got slice {slice_num} of "
                f"{image.shape} after slice {self._last_slice} of {images and images.shape[1:]}"
            )
        images.resize(images.shape[0] + 1, axis=0)
        images[-1] = image
        self._last_slice = slice_num

    def _open(self, fname: str, shape: tuple[int, ...]) -> None:
        temporary = self._stack.enter_context(atomic_path(self.folder / fname))
        file = self._stack.enter_context(h5py.File(temporary, "w"))
        self._images = file.create_dataset(
            "reconstruction", (0, *shape), maxshape=(None, *shape), chunks=(1, *shape), dtype=np.float32
        )
        self._fname = fname
        self._last_slice = -1

    def close(self) -> None:
        """Complete the volume at hand: its file gets its name."""
        if self._images is not None:
            self._images = None
            self._stack.close()
            self._written.add(self._fname)
