"""Segmentations for volumes that are there, of labels in NumPy's files, in NIfTI, or in folders of label images."""

import itertools
import math
import os
import re
import shutil
import stat
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
from fastmri.data.transforms import center_crop

from fastmri_ufloss.checks import check
from fastmri_ufloss.convert.arrays import open_numpy
from fastmri_ufloss.convert.jobs import Job, files_in, name_volumes, split_folders
from fastmri_ufloss.convert.magnitudes import read_nifti
from fastmri_ufloss.convert.volumes import AFFINE_CONVENTION, naming_source
from fastmri_ufloss.data.segmentation import NAME, find_reconstruction
from fastmri_ufloss.data.volume_files import check_declared, open_hdf5
from fastmri_ufloss.files import atomic_path

__all__ = ["add_segmentation", "plan_labels"]

NIFTI = (".nii.gz", ".nii")
ARRAYS = (".npz", ".npy", *NIFTI)
IMAGES = (".png", ".tif", ".tiff")
VOLUMES = (".h5", ".hdf5")
KEYS = ("segmentation", "masks", "labels")  # of .npz files with several arrays
KINDS = "*.npz, *.npy, *.nii, *.nii.gz, or a folder of *.png or *.tif"
MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")  # Pillow's names of images of one integer a pixel
MAX_CLASS = 255
MAX_SHIFT = 0.1  # of a voxel, between two affines of one grid


def plan_labels(
    inputs: Iterable[str | Path], output_path: Path, *, key: str | None = None, overwrite: bool = False
) -> tuple[list[Job], dict[Path, str], int]:
    """Which labels belong to which volumes: those of the same name.

    Returns:
        Jobs, the reasons why labels have no volume, and the number of volumes without labels.

    Raises:
        ValueError: if an input is missing or has no labels, two are of the same name, or there is no volume at all.
    """
    sources = name_volumes(_find_labels(map(Path, inputs)), ARRAYS)
    places = [place for place in (output_path, *split_folders(output_path)) if place.is_dir()]
    volumes = [path for place in places for path in files_in(place, VOLUMES)]
    if not volumes:
        raise ValueError(f"output_path must have volumes (*.h5), or folders of splits with them, got {output_path}")
    settings = {"key": key, "overwrite": overwrite}
    jobs, without = [], {}
    for name, source in sources.items():
        fitting = [volume for volume in volumes if f"{volume.stem}.h5" == name]
        jobs += [Job(source, volume, add_segmentation, settings, volume.stat().st_size) for volume in fitting]
        if not fitting:
            without[source] = f"{source}: there is no volume {name} in {output_path} or its folders of splits"
    return jobs, without, sum(f"{volume.stem}.h5" not in sources for volume in volumes)


def _find_labels(inputs: Iterable[Path]) -> Iterator[Path]:
    for given in inputs:
        here = [path for path in sorted(given.iterdir()) if _is_labels(path)] if given.is_dir() else [given]
        if given.is_dir() and _images(given):
            if here:
                raise ValueError(f"{given} must have label images or other labels, got both, such as {here[0]}")
            here = [given]
        if given.is_file() and given.name.lower().endswith(IMAGES):
            raise ValueError(f"{given}: label images must be in a folder that is named as their volume; give that")
        got = "none" if given.exists() else "no file or folder"
        check(bool(here) and all(map(_is_labels, here)), str(given), f"labels ({KINDS}), or a folder of such", got)
        yield from here


def _is_labels(path: Path) -> bool:
    if path.is_dir():
        return not path.name.startswith(".") and bool(_images(path))
    return path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(ARRAYS)


@naming_source
def add_segmentation(source: Path, volume: Path, *, key: str | None = None, overwrite: bool = False) -> bool:
    """Add labels to a volume as its data set ``segmentation``: uint8, (slices, rows, cols), as its reconstruction.

    Labels have the shape of the reconstruction, or of the k-space, to be cropped as fastMRI crops images. NIfTI is
    brought into the order of a volume that was made of NIfTI or DICOM files. The command takes labels for the
    volume of their name, in FOLDER or in its folders {multicoil,singlecoil}_{train,val,test}. All else in the volume
    stays as it is; a symbolic link is replaced, and what it leads to is left alone.

    Args:
        source: labels, integers from 0 to 255, where 0 is the background: a file, or a folder of label images, which
            are slices in the order of their names, where numbers count: ``slice10.png`` comes after ``slice9.png``.
        key: name of the array in a ``.npz`` file; by default the only one, or ``segmentation``, ``masks`` or
            ``labels``.

    Returns:
        False if the volume had the same segmentation already.

    Raises:
        ValueError: if the labels or the volume cannot be used or do not fit, or the volume has another segmentation.
        ImportError: if a package is missing.
    """
    with open_hdf5(volume) as file:
        images = find_reconstruction(file)
        if images is None:
            raise ValueError(f"{volume} has no reconstruction whose pixels could get labels, it is undersampled")
        name, shape, kspace = images.name.lstrip("/"), images.shape, file.get("kspace", images)
        kspace_shape = (kspace.shape[0], *kspace.shape[-2:])
        affine = file.attrs.get("affine") if file.attrs.get("affine_convention") == AFFINE_CONVENTION else None
        before = file[NAME][()] if NAME in file else None
    classes = _check_classes(source, _read(source, key, affine))
    if classes.shape != shape and classes.shape == kspace_shape:
        warnings.warn(
            f"{source}: labels of the size of k-space, {classes.shape[1:]}, were cropped around their center to that "
            f"of the reconstruction, {shape[1:]}, as fastMRI crops images",
            stacklevel=2,
        )
        classes = np.ascontiguousarray(center_crop(classes, shape[1:]))
    turned = sorted(classes.shape) == sorted(shape)
    advice = "bring the axes into this order" if turned else "resample them to its reconstruction, slice by slice"
    layout = f"of the shape (slices, rows, cols) of {name} in {volume}, {shape}"
    check(classes.shape == shape, "labels", layout, f"{classes.shape}; {advice}")
    if before is not None and before.dtype == np.uint8 and np.array_equal(before, classes):
        return False
    if before is not None and not overwrite:
        raise ValueError(f"{volume} has another {NAME} already: overwrite it, or leave the labels out")
    mode = stat.S_IMODE(volume.stat().st_mode)
    with atomic_path(volume) as temporary:
        shutil.copyfile(volume, temporary)
        with h5py.File(temporary, "r+") as file:
            if before is not None:
                del file[NAME]
            data = file.create_dataset(NAME, data=classes, chunks=(1, *classes.shape[1:]), compression="gzip")
            data.attrs["source"] = source.absolute().name
    os.chmod(volume, mode)  # whoever could not read it still cannot
    return True


def _check_classes(source: Path, values: np.ndarray) -> np.ndarray:
    """The labels as class numbers, uint8; a mask of 0 and 255 becomes one of 0 and 1, with a warning."""
    odd = values[~((values >= 0) & (values <= MAX_CLASS) & (values == np.trunc(values)))]  # NaN too
    if odd.size:
        got = f"{odd.size} others, such as {odd[0]:g}; an image, probabilities, or labels that were interpolated?"
        raise ValueError(f"labels must be integers from 0 to {MAX_CLASS}, got {got}")
    classes = values.astype(np.uint8)
    if (classes == MAX_CLASS).any() and np.isin(classes, (0, MAX_CLASS)).all():
        warnings.warn(f"{source}: its labels are 0 and {MAX_CLASS} only, {MAX_CLASS} becomes class 1", stacklevel=3)
        return (classes == MAX_CLASS).astype(np.uint8)
    return classes


def _read(source: Path, key: str | None, volume_affine: np.ndarray | None) -> np.ndarray:
    """The labels of a file or a folder in the order of a volume's voxels, (slices, rows, cols)."""
    if source.is_dir():
        return _read_images(source)
    if source.name.lower().endswith(NIFTI):
        return _read_aligned(source, volume_affine)
    values = np.asarray(open_numpy(source, key, names=KEYS))
    fits = values.ndim in (2, 3) and values.dtype.kind in "biuf"
    check(fits, "labels", "of the axes (slices, rows, cols) or (rows, cols)", f"{values.dtype} {values.shape}")
    return values[None] if values.ndim == 2 else values


def _read_aligned(source: Path, volume_affine: np.ndarray | None) -> np.ndarray:
    """NIfTI labels, whose axes are swapped and flipped to those of a volume, never resampled."""
    labels, affine, _ = read_nifti(source)
    if volume_affine is None:
        advice = "save labels of its reconstruction, (slices, rows, cols), as .npz"
        raise ValueError(f"the volume has no affine, and NIfTI's voxels no known place in it; {advice}")
    from nibabel import orientations

    # from indices of the labels to indices of the volume: on the same grid, axes are swapped and flipped
    between = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume_affine) @ affine
    change = orientations.io_orientation(between)
    values: np.ndarray = orientations.apply_orientation(labels, change)
    between = between @ orientations.inv_ornt_aff(change, labels.shape)
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, size - 1) for size in values.shape))]).T
    shift = np.abs((between @ corners - corners)[:3]).max()
    got = f"an affine that moves a corner by {shift:.2f} voxels; resample them to the image of the volume"
    check(shift <= MAX_SHIFT, "labels", "on the grid of the volume", got)
    return values


def _read_images(folder: Path) -> np.ndarray:
    """The label images of a folder as slices."""
    from PIL import Image

    slices: list[np.ndarray] = []
    for path in _images(folder):
        try:
            with Image.open(path) as image:
                mode, frames = image.mode, getattr(image, "n_frames", 1)
                check_declared(math.prod(image.size), path.stat().st_size, where="the header")
                slices.append(np.asarray(image))
        except Exception as error:  # of a damaged file, Pillow raises of many kinds
            raise ValueError(f"{path} is not an image, or it is damaged ({error})") from error
        got = f"Pillow's mode {mode} and {frames} images"
        check(mode in MODES and frames == 1, str(path), "a single image of one integer a pixel", got)
        sizes = slices[0].shape, slices[-1].shape
        check(sizes[0] == sizes[1], "images", "of one size", f"{sizes[0]} and {sizes[1]}")
    return np.stack(slices)


def _images(folder: Path) -> list[Path]:
    """The label images of a folder, in the order of their names, in which numbers count."""
    return sorted(
        files_in(folder, IMAGES), key=lambda path: re.sub(r"\d+", lambda digits: digits[0].zfill(20), path.name)
    )
