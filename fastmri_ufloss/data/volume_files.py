"""The door by which files of volumes come in: what all readers rely on is checked before anything is read."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fastmri_ufloss.checks import require
from fastmri_ufloss.files import name_some

__all__ = ["check_declared", "hdf5_data_set", "hdf5_member", "open_hdf5"]

SMALL = 2**28  # bytes, as many as any file may declare
COMPRESSION = 1032  # bytes that deflate packs into one, at most
MAX_SLICES = 2**14

REAL = "?bBhHiIlLqQefd"  # numpy's characters of types that torch has
IMAGES = (REAL[1:], (3,), "real magnitudes (slices, rows, cols)")
BY_SLICE = ("kspace", "reconstruction_rss", "reconstruction_esc", "segmentation")  # which have the same slices
# data sets of volumes: types, numbers of axes, and both in words
DATA_SETS = {
    "kspace": ("FD", (3, 4), "complex numbers (slices, coils, rows, cols) or (slices, rows, cols)"),
    "mask": (REAL, range(1, 6), "numbers for columns or points"),
    "ismrmrd_header": ("OS", (0,), "a text"),
    **dict.fromkeys(("reconstruction", "reconstruction_rss", "reconstruction_esc"), IMAGES),
    "segmentation": (REAL[:-3], (3,), "class numbers (slices, rows, cols)"),
    "sens_maps": ("FD", (3, 4, 5), "complex coil maps, (slices, coils, rows, cols)"),
}

ATTRIBUTES: dict[str, Any] = {
    "max": ((np.floating, np.integer), "a number"),
    "acquisition": ((str, bytes), "a text"),
    "patient_id": ((str, bytes, np.integer), "a text"),
}


@contextlib.contextmanager
def open_hdf5(path: str | Path, *names: str) -> Iterator[h5py.File]:
    """A volume (``h5py.File``) to read from: the one door by which volumes come in.

    Raises ValueError that names file and data set if the file, or what the block reads, is damaged; if one of
    ``names`` is missing, or a data set of a volume is a link, lies in another file, is not of its kind, or declares
    more than the file can hold; if the numbers of slices differ, or an attribute is not of its kind.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise OSError("it is no regular file")  # a pipe would be waited for
        with h5py.File(path, "r") as file:
            try:
                _check_volume(file, names)
            except (OSError, ValueError):
                raise
            except Exception as error:  # of a damaged file, h5py raises of many kinds
                raise OSError(f"{type(error).__name__}: {error}") from error
            yield file
    except (OSError, RuntimeError) as error:  # h5py raises both
        raise ValueError(f"{path} is not an HDF5 file, or it is truncated or damaged ({error})") from error


def _check_volume(file: h5py.File, names: Sequence[str]) -> None:
    for name in names:
        if name not in file:
            raise ValueError(f"{file.filename} has no data set {name!r}, only {name_some(sorted(file)) or 'nothing'}")
    found = {name: data for name in DATA_SETS if (data := hdf5_data_set(file, name)) is not None}
    for name, data in found.items():
        types, axes, words = DATA_SETS[name]
        fits = data.dtype.char in types and data.dtype.isnative and data.ndim in axes and 0 not in data.shape
        require(fits, f"{file.filename} must hold {words} in {name!r}", f"{data.dtype} of shape {data.shape}")
    counts = {name: found[name].shape[0] for name in BY_SLICE if name in found}
    require(len({*counts.values()}) < 2, f"{file.filename} must have one number of slices", counts)
    most = max(counts.values(), default=0)
    require(most <= MAX_SLICES, f"{file.filename} must have at most {MAX_SLICES} slices", most)
    for name, value in dict(file.attrs).items():  # fastMRI reads all of them with each slice
        kinds, words = ATTRIBUTES.get(name, (object, ""))
        require(isinstance(value, kinds), f"{file.filename} must have {words} as its attribute {name!r}", repr(value))


def hdf5_member(group: h5py.Group, name: str) -> Any:
    """A data set or a group within an HDF5 group, None without one; ValueError for a link to another place."""
    link = group.get(name, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        target = f"{getattr(link, 'filename', '')}:{link.path}"
        raise ValueError(f"{group.file.filename}: {name!r} must be in the file itself, got a link to {target}")
    return group[name]


def hdf5_data_set(group: h5py.Group, name: str) -> Any:
    """A data set within an HDF5 group (``h5py.Dataset``), None without one.

    Raises ValueError if something else has the name, or its values are not all in the file.
    """
    data = hdf5_member(group, name)
    if data is None:
        return None
    where = f"{group.file.filename}: {name!r}"
    fits = isinstance(data, h5py.Dataset) and data.shape is not None
    require(fits, f"{where} must be a data set with values", f"a {type(data).__name__.lower()}")
    in_file = not data.is_virtual and not data.external
    require(in_file, f"{where} must have its values in the file itself", "values in other files")
    itemsize, chunk = data.id.get_type().get_size(), math.prod(data.chunks or ())
    if data.chunks is None and not data.dtype.hasobject:
        stored, size = min(data.id.get_storage_size(), group.file.id.get_filesize()), data.size * itemsize
        require(stored == size, f"{where} must have {size} bytes for its shape {data.shape}", stored)
    elif (size := max(data.size, chunk) * itemsize) > SMALL:  # HDF5 counts the stored chunks one by one
        check_declared(size, data.id.get_storage_size(), where=where)
    return data


def check_declared(size: int, stored: int, *, where: object) -> None:
    """Raise ValueError if so many bytes cannot come of so many stored ones, whatever the compression."""
    most = max(SMALL, COMPRESSION * stored)
    require(size <= most, f"{where} must declare at most {most} bytes for the {stored} that are stored", size)
