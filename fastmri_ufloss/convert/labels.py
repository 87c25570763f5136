"""Class numbers that were drawn for a volume: NumPy's files, NIfTI, and folders of label images."""

import itertools
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastmri_ufloss.convert.arrays import _open, _reading
from fastmri_ufloss.convert.nifti import _read

__all__ = ["Labels", "align", "check_classes", "find_labels", "label_name", "read_labels"]

ARRAYS = (".npz", ".npy")
NIFTI = (".nii.gz", ".nii")
IMAGES = (".png", ".tif", ".tiff")
KEYS = ("segmentation", "masks", "labels")  # of .npz files with several arrays
KINDS = "*.npz, *.npy, *.nii, *.nii.gz, or a folder of *.png or *.tif"
MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")  # Pillow's names of images of one integer a pixel
MAX_CLASS = 255
MAX_SHIFT = 0.1  # of a voxel, between two affines of one grid


@dataclass(frozen=True)
class Labels:
    """What a file of labels holds.

    Args:
        values: as they are in the file; (slices, rows, cols), but for NIfTI.
        affine: of NIfTI, to the patient's right, anterior and superior in mm; its axes are those of the file.
    """

    values: np.ndarray
    affine: np.ndarray | None = None


def find_labels(inputs: Iterable[str | Path]) -> list[Path]:
    """The labels of volumes: files, or folders of one volume's label images.

    Args:
        inputs: files and folders; of a folder without label images, the files and the folders of images in it.

    Returns:
        Paths in the order of the inputs, each once.

    Raises:
        ValueError: if an input is missing or holds no labels.
    """
    found: dict[Path, Path] = {}
    for given in map(Path, inputs):
        if given.is_dir():
            here = [path for path in sorted(given.iterdir()) if _is_labels(path)]
            if _images(given):
                if here:
                    raise ValueError(f"{given} must have label images or other labels, got both, such as {here[0]}")
                here = [given]
        elif not given.exists():
            raise ValueError(f"no file or folder {given}")
        elif given.name.lower().endswith(IMAGES):
            raise ValueError(f"{given}: label images must be in a folder that is named as their volume; give that")
        else:
            here = [given] if _is_labels(given) else []
        if not here:
            raise ValueError(f"{given} must be labels ({KINDS}), or a folder of such")
        found.update((one.resolve(), one) for one in here if one.resolve() not in found)
    return list(found.values())


def label_name(source: Path) -> str:
    """The name of the volume that labels belong to, without a suffix."""
    if source.is_dir():
        return source.absolute().name
    suffix = next((one for one in (*ARRAYS, *NIFTI) if source.name.lower().endswith(one)), "")
    return source.name[: len(source.name) - len(suffix)]


def read_labels(source: Path, *, key: str | None = None) -> Labels:
    """The labels of a file, or of a folder of label images.

    Args:
        source: see `find_labels`. Images are the slices, in the order of their names; numbers in them count, so
            that ``slice10.png`` comes after ``slice9.png``.
        key: name of the array in a ``.npz`` file; by default the only one, or ``segmentation``, ``masks`` or
            ``labels``.

    Raises:
        ValueError: if it cannot be read, or has another number of axes.
        ImportError: if a package is missing.
    """
    if source.is_dir():
        return Labels(_read_images(source))
    if source.name.lower().endswith(NIFTI):
        values, affine, _ = _read(source)
        return Labels(values, affine)
    values = _open(source, _pick_key(source, key) if source.suffix.lower() == ".npz" else None)
    if values.ndim not in (2, 3) or values.dtype.kind not in "biuf":
        raise ValueError(
            f"{source} must have labels of the axes (slices, rows, cols) or (rows, cols), got {values.dtype} "
            f"{values.shape}"
        )
    return Labels(np.asarray(values[None] if values.ndim == 2 else values))


def align(source: Path, labels: Labels, volume_affine: np.ndarray | None) -> np.ndarray:
    """The labels in the order of a volume's voxels, (slices, rows, cols).

    NIfTI's axes are swapped and flipped, never resampled. Those of other labels are the volume's already.

    Args:
        source: of the labels, for messages.
        labels: see `read_labels`.
        volume_affine: of the volume, see `AFFINE_CONVENTION`; None if it has none.

    Raises:
        ValueError: if the labels are of NIfTI and the volume has no affine, or one of another grid.
    """
    if labels.affine is None:
        return labels.values
    if volume_affine is None:
        raise ValueError(
            f"{source}: the volume was not made of NIfTI or placed DICOM files and has no affine, so the order of "
            "NIfTI's voxels in it is unknown; save labels of its reconstruction, (slices, rows, cols), as .npz"
        )
    from nibabel import orientations

    # from indices of the labels to indices of the volume: on the same grid, axes are swapped and flipped
    between = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume_affine) @ labels.affine
    change = orientations.io_orientation(between)
    values: np.ndarray = orientations.apply_orientation(labels.values, change)
    between = between @ orientations.inv_ornt_aff(change, labels.values.shape)
    corners = np.array([[*one, 1] for one in itertools.product(*((0, size - 1) for size in values.shape))]).T
    shift = np.abs((between @ corners - corners)[:3]).max()
    if not shift <= MAX_SHIFT:
        raise ValueError(
            f"{source}: labels must be on the grid of the volume, got an affine that moves a corner by {shift:.2f} "
            f"voxels; labels of shape {values.shape} in its order; resample them to the image that the volume was "
            "made of"
        )
    return values


def check_classes(source: Path, values: np.ndarray) -> np.ndarray:
    """The labels as class numbers, uint8; a mask of 0 and 255 becomes one of 0 and 1, with a warning.

    Raises:
        ValueError: if they are not integers from 0 to 255.
    """
    if not np.isfinite(values).all():
        raise ValueError(f"{source}: labels must be integers from 0 to {MAX_CLASS}, got NaN or infinite values")
    odd = values[(values < 0) | (values > MAX_CLASS) | (values != np.trunc(values))]
    if odd.size:
        raise ValueError(
            f"{source}: labels must be integers from 0 to {MAX_CLASS}, got {odd.size} others, such as {odd[0]:g}; "
            "an image instead of labels, probabilities, or labels that were interpolated?"
        )
    classes = values.astype(np.uint8)
    if (classes == MAX_CLASS).any() and np.isin(classes, (0, MAX_CLASS)).all():
        warnings.warn(f"{source}: its labels are 0 and {MAX_CLASS} only, {MAX_CLASS} becomes class 1", stacklevel=2)
        return (classes == MAX_CLASS).astype(np.uint8)
    return classes


def _pick_key(source: Path, key: str | None) -> str:
    with _reading(source), np.load(source, allow_pickle=False) as archive:
        names = list(archive.files)
    if key is not None:
        found = [key] if key in names else []
    else:
        found = names if len(names) == 1 else [name for name in KEYS if name in names]
    if len(found) != 1:
        wanted = f"named {', '.join(KEYS[:-1])} or {KEYS[-1]}, or a single one" if key is None else f"named {key}"
        raise ValueError(f"{source} must have an array {wanted}, got {', '.join(names) or 'none'}: name its key")
    return found[0]


def _read_images(folder: Path) -> np.ndarray:
    """The label images of a folder as slices."""
    from PIL import Image

    slices: list[np.ndarray] = []
    for path in _images(folder):
        try:
            with Image.open(path) as image:
                mode, frames = image.mode, getattr(image, "n_frames", 1)
                values = np.asarray(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} is not an image, or it is damaged ({error})") from error
        if mode not in MODES or frames != 1:
            what = f"{frames} images" if frames != 1 else f"Pillow's mode {mode}"
            raise ValueError(f"{path} must be a single image of one integer a pixel, got {what}")
        if slices and values.shape != slices[0].shape:
            raise ValueError(f"{folder}: images must have one size, got {slices[0].shape} and {values.shape}")
        slices.append(values)
    return np.stack(slices)


def _images(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted((path for path in files if path.name.lower().endswith(IMAGES)), key=_by_number)


def _by_number(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Order of file names in which the numbers count."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _is_labels(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return bool(_images(path))
    return path.is_file() and path.name.lower().endswith((*ARRAYS, *NIFTI))
