"""Image patches on disk, one file for each volume, and the data set that reads them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fastmri_ufloss.checks import check
from fastmri_ufloss.files import atomic_path, file_stamp
from fastmri_ufloss.mri.intensity import SCALE_RULE, image_scale, to_patch_channels

__all__ = ["MARGIN", "PatchDataset", "PatchSettings", "patch_file_name", "write_volume_patches"]

MARGIN = 2  # pixels around a stored patch, so that a copy of the patch can be shifted
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class PatchSettings:
    """How the patches of a volume are cut."""

    patch_size: int  # p, rows and columns of a patch without the margin
    patches_per_slice: int  # 80 in the paper
    seed: int  # of the places


def patch_file_name(volume_path: str | Path, settings: PatchSettings, *, in_chans: int, source: str = "") -> str:
    """The name of a volume's patch file, which changes with all that the patches depend on: a file is up to date.

    The name, size and time of change of the volume count, and ``source``, whatever else the images depend on.
    """
    volume_path = Path(volume_path)
    parts = (
        *(volume_path.name, *file_stamp(volume_path)),
        *(in_chans, settings.patch_size, settings.patches_per_slice, settings.seed, source),
        *(MARGIN, SCALE_RULE, _FORMAT_VERSION),
    )
    return f"{volume_path.stem}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.npy"


def write_volume_patches(
    path: str | Path, images: Iterable[NDArray[Any] | Tensor], settings: PatchSettings, *, volume_name: str
) -> Path:
    """Write patches of a volume at random places, unless the file exists. (Wang et al., MRM 2022.)

    The file is a float16 array (slices * patches_per_slice, in_chans, p + 2 * MARGIN, p + 2 * MARGIN) with 2
    channels for complex and 1 for real images (rows, cols), each divided by its own
    `fastmri_ufloss.mri.intensity.image_scale`. Places are uniform and depend on seed, volume_name, the number of the
    slice and the size of its image only. An image that has room for the patch but not for the margin is extended by
    reflection. Raises ValueError if there is no image, an image is smaller than a patch, not 2D, of another kind than
    the first, not finite, or too bright for float16 once scaled.
    """
    path = Path(path)
    patch_size, per_slice = settings.patch_size, settings.patches_per_slice
    fits = patch_size >= 1 and per_slice >= 1
    check(fits, "patch_size and patches_per_slice", "at least 1", f"{patch_size} and {per_slice}")
    if path.is_file():
        return path
    size = patch_size + 2 * MARGIN
    slices: list[NDArray[np.float16]] = []
    for number, image in enumerate(images):
        where = f"image {number} of {volume_name}"
        channels = _scaled_channels(torch.as_tensor(image), where)
        fits = not slices or channels.shape[0] == slices[0].shape[1]
        check(fits, "images", "all complex or all real", f"another kind at {where}")
        channels = _with_room(channels, patch_size, where)
        places = _places(channels.shape[1:], size, per_slice, (settings.seed, volume_name, number))
        slices.append(np.stack([channels[:, r : r + size, c : c + size] for r, c in places]))
    check(len(slices) > 0, "images", "at least one image", f"none for {volume_name}")
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.concatenate(slices).astype("<f2", copy=False))
    return path


class PatchDataset(Dataset[tuple[Tensor, int]]):
    """All patches of the files of `write_volume_patches`, numbered in the order of the files.

    Missing files raise FileNotFoundError; no file, a file without patches, and files that differ in shape ValueError.
    """

    def __init__(self, files: Sequence[str | Path]) -> None:
        check(len(files) > 0, "files", "at least one patch file", "none")
        self.files = [Path(file) for file in files]
        shapes, self._offsets = zip(*map(_read_header, self.files), strict=True)
        self.patch_shape: tuple[int, ...] = shapes[0][1:]
        for file, shape in zip(self.files, shapes, strict=True):
            got = f"{self.patch_shape} in {self.files[0]} and {shape[1:]} in {file}"
            check(shape[1:] == self.patch_shape, "files", "alike in the shape of a patch", got)
        self._ends = np.cumsum([shape[0] for shape in shapes])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, int]:
        """The patch with its margin, float32, and its number; the key is the number, or (epoch, number)."""
        index = key[1] if isinstance(key, tuple) else key
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"index must be in 0 .. {len(self) - 1}, got {index}")
        file = int(np.searchsorted(self._ends, number, side="right"))
        row = number - (int(self._ends[file - 1]) if file else 0)
        size = int(np.prod(self.patch_shape))
        # read, not memory-mapped: a map of each of thousands of volumes would use up the file descriptors
        with self.files[file].open("rb") as stream:
            stream.seek(self._offsets[file] + row * size * 2)
            values = np.frombuffer(stream.read(size * 2), dtype="<f2")
        if values.size != size:
            raise ValueError(f"{self.files[file]} must hold patch {row}, but it ends before: write it again")
        return torch.from_numpy(values.astype(np.float32).reshape(self.patch_shape)), number


def _scaled_channels(image: Tensor, where: str) -> NDArray[np.float16]:
    check(image.ndim == 2 and image.numel() > 0, "images", "(rows, cols)", f"{tuple(image.shape)} at {where}")
    check(bool(torch.isfinite(image).all()), "images", "finite", f"NaN or infinity at {where}")
    if not image.is_complex():
        image = image.to(torch.promote_types(image.dtype, torch.float32))
    scaled = image[None] / image_scale(image[None])
    channels = to_patch_channels(scaled, 2 if image.is_complex() else 1)[0]
    fits = float(channels.abs().max()) <= torch.finfo(torch.float16).max
    check(fits, "images", "in the range of float16 over their 95th percentile", where)
    return channels.numpy().astype(np.float16)


def _with_room(channels: NDArray[np.float16], patch_size: int, where: str) -> NDArray[np.float16]:
    """Channels extended by reflection in each direction that has room for the patch only."""
    num_rows, num_cols = channels.shape[1:]
    fits = min(num_rows, num_cols) >= max(patch_size, MARGIN + 1)
    expected = f"at least as large as a patch of {patch_size}x{patch_size}"
    check(fits, "images", expected, f"{num_rows}x{num_cols} at {where}")
    pads = [MARGIN if n < patch_size + 2 * MARGIN else 0 for n in (num_rows, num_cols)]
    return np.pad(channels, [(0, 0), *((pad, pad) for pad in pads)], mode="reflect")


def _places(shape: tuple[int, ...], size: int, number: int, key: tuple[Any, ...]) -> list[tuple[int, int]]:
    """The upper left corners of so many windows."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    rows, cols = (generator.integers(length - size + 1, size=number).tolist() for length in shape)
    return list(zip(rows, cols, strict=True))


def _read_header(file: Path) -> tuple[tuple[int, ...], int]:
    """Shape of the array in a patch file and where its values start."""
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file} must be a patch file of write_volume_patches, got: {error}") from error
    shape: tuple[int, ...] = array.shape if isinstance(array, np.memmap) else ()
    square = len(shape) == 4 and shape[1] in (1, 2) and shape[2] == shape[3] > 2 * MARGIN
    if not square or array.dtype != np.dtype("<f2") or not array.flags.c_contiguous:
        kind = getattr(array, "dtype", type(array).__name__)
        raise ValueError(f"{file} must hold float16 patches (n, 1 or 2, rows, rows), got {kind} {shape}")
    return shape, int(array.offset)
