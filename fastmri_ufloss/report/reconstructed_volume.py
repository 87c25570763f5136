"""A volume that several methods have reconstructed: its files, and what is read of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from fastmri.data.transforms import center_crop

from fastmri_ufloss.data.segmentation import COMMAND, NAME, find_reconstruction

__all__ = [
    "ReconstructedVolume",
    "VolumeFiles",
    "read_mask",
    "read_shape",
    "read_text",
    "reference_kind",
    "stamp_of",
]

Shape = tuple[int, ...]


class ReconstructedVolume(NamedTuple):
    """A volume, or a slice of it; all arrays are (slices, rows, cols).

    Args:
        references: magnitudes by name, float32.
        outputs: magnitudes by method, float32.
        segmentation: class numbers, int64; None without segmentations.
    """

    references: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    segmentation: np.ndarray | None


@dataclass(frozen=True)
class VolumeFiles:
    """The files of a volume. Images are read one volume, or one slice, at a time, and cropped around their centre.

    Args:
        name: file name of the volume.
        references: file of each reference by its name.
        outputs: file of each method.
        num_slices: of each of them.
        size: rows and columns that all are cropped to.
        segmentation: file with the true segmentation.
        kspace: file with the k-space.
        mask: file with the sampling mask alone.
        subject: whom it is of.
        contrast: fastMRI's attribute ``acquisition``, may be empty.
    """

    name: str
    references: Mapping[str, Path]
    outputs: Mapping[str, Path]
    num_slices: int
    size: tuple[int, int]
    segmentation: Path | None = None
    kspace: Path | None = None
    mask: Path | None = None
    subject: str = ""
    contrast: str = ""

    @property
    def files(self) -> Iterator[tuple[str, Path]]:
        """Each file with the name of what it is."""
        yield from self.references.items()
        yield from self.outputs.items()
        for source, path in ((NAME, self.segmentation), ("k-space", self.kspace), ("mask", self.mask)):
            if path is not None:
                yield source, path

    @property
    def stamp(self) -> list[Any]:
        """What tells whether the volume has changed, in plain values: its files, their sizes and times."""
        files = [[source, *stamp_of(path)] for source, path in self.files]
        return [self.name, self.num_slices, list(self.size), *files]

    def read(self, number: int | None = None) -> ReconstructedVolume:
        """The volume, or one slice of it as a volume.

        Raises:
            ValueError: if a file cannot be read any more; the message names it.
        """
        where = slice(None) if number is None else slice(number, number + 1)
        references, outputs = (
            {source: self._crop(_read(path, source, where)) for source, path in files.items()}
            for files in (self.references, self.outputs)
        )
        segmentation = None
        if self.segmentation is not None:
            segmentation = self._crop(_read(self.segmentation, NAME, where, np.int64))
        return ReconstructedVolume(references, outputs, segmentation)

    def read_masks(self) -> dict[str, np.ndarray]:
        """The sampling mask of each method whose file has one, boolean, (cols,) or (rows, cols)."""
        found = {method: read_mask(path) for method, path in self.outputs.items()}
        return {method: mask for method, mask in found.items() if mask is not None}

    def _crop(self, volume: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(center_crop(volume, self.size))


def stamp_of(path: Path) -> tuple[str, int, int]:
    """Path, size and time of modification."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def read_shape(path: Path, *, is_segmentation: bool = False) -> tuple[int, int, int]:
    """The shape (slices, rows, cols) of the images, or of the segmentation, of a file.

    Raises:
        ValueError: if it cannot be read, or has something else.
    """
    try:
        with h5py.File(path, "r") as file:
            data = file.get(NAME) if is_segmentation else _find_images(file)
            if not isinstance(data, h5py.Dataset):
                wanted = f"{NAME!r}: add it with {COMMAND}" if is_segmentation else f"of images, only {sorted(file)}"
                raise ValueError(f"{path} has no data set {wanted}")
            kinds, kind, shape = "biu" if is_segmentation else "fiu", data.dtype.kind, data.shape
    except OSError as error:
        raise ValueError(f"{path} is not an HDF5 file, or it is truncated ({error})") from error
    if kind not in kinds or len(shape) != 3 or 0 in shape:
        what = "class numbers" if is_segmentation else "real magnitudes"
        raise ValueError(f"{path} must hold {what} (slices, rows, cols), got {shape} of kind {kind!r}")
    return shape[0], shape[1], shape[2]


def read_mask(path: Path) -> np.ndarray | None:
    """The data set ``mask`` of a file, boolean, (cols,) or (rows, cols); None without one.

    Raises:
        ValueError: if the file cannot be read or the mask has another shape.
    """
    try:
        with h5py.File(path, "r") as file:
            if "mask" not in file:
                return None
            if not isinstance(file["mask"], h5py.Dataset):
                raise ValueError(f"{path}: mask must be a data set")
            mask = np.asarray(file["mask"][()]).astype(bool)
    except OSError as error:
        raise ValueError(f"{path} cannot be read, it may be damaged ({error})") from error
    mask = mask.ravel() if mask.size == max(mask.shape, default=0) else mask
    if mask.ndim not in (1, 2) or not mask.any():
        raise ValueError(f"{path}: mask must be of columns (cols,) or of points (rows, cols), got {mask.shape}")
    return mask


def read_text(path: Path, attribute: str) -> str:
    """An attribute of a file as text, empty without it."""
    with h5py.File(path, "r") as file:
        text = file.attrs.get(attribute, "")
    return (text.decode(errors="replace") if isinstance(text, bytes) else str(text)).strip()


def reference_kind(path: Path) -> str:
    """``"RSS"`` or ``"ESC"`` of a fastMRI volume, ``"reference"`` of a leaderboard file.

    Raises:
        ValueError: if the file cannot be read or has no images.
    """
    read_shape(path)
    with h5py.File(path, "r") as file:
        images = _find_images(file)
        kinds = {"reconstruction_rss": "RSS", "reconstruction_esc": "ESC"}
        return kinds.get(Path(str(images.name)).name, "reference") if images is not None else "reference"


def _find_images(file: h5py.File) -> h5py.Dataset | None:
    return file["reconstruction"] if "reconstruction" in file else find_reconstruction(file)


def _read(path: Path, source: str, where: slice, dtype: type = np.float32) -> np.ndarray:
    try:
        with h5py.File(path, "r") as file:
            data = file.get(NAME) if source == NAME and dtype is np.int64 else _find_images(file)
            if data is None:
                raise ValueError(f"{path} has no data set of {source} any more")
            return np.asarray(data[where], dtype=dtype)
    except OSError as error:
        raise ValueError(f"{path} ({source}) cannot be read, it may be damaged ({error})") from error
