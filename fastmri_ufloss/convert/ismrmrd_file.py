"""Reading ISMRMRD raw data files (MRD), many acquisitions at once."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np

from fastmri_ufloss.simulation.mrd_file import import_ismrmrd

__all__ = ["COUNTERS", "RawScan", "flag_mask", "import_ismrmrd", "open_scan", "require"]

GROUP = "dataset"
FIELDS = (
    *("number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample"),
    *("encoding_space_ref", "sample_time_us"),
)
COUNTERS = (
    *("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice"),
    *("contrast", "phase", "repetition", "set"),
)
HEAD = np.dtype(
    [("flags", np.uint64), *((name, np.float64 if name == "sample_time_us" else np.int64) for name in FIELDS)]
    + [(name, np.int64) for name in COUNTERS]
)
SLAB_BYTES = 2**23  # of acquisitions that are read and transformed at once
SLAB_HEADS = 2**8  # whose samples come along


@dataclass(frozen=True)
class RawScan:
    """An open MRD file.

    Args:
        path: of the file.
        header: the XML header, as ismrmrd parses it.
        heads: of all acquisitions, with the fields ``flags``, `FIELDS` and `COUNTERS`.
        data: the data set of the acquisitions.
    """

    path: Path
    header: Any
    heads: np.ndarray
    data: h5py.Dataset

    def read_slabs(self, numbers: np.ndarray, wanted: np.ndarray | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """The samples of acquisitions, in slabs that depend on nothing but ``numbers``.

        Args:
            numbers: of the acquisitions in the file, rising, all of the same size.
            wanted: boolean, one for each of ``numbers``: slabs without any that is wanted are left out.

        Yields:
            Which of the ``numbers``, and their samples, complex64 (acquisitions, coils, samples).

        Raises:
            ValueError: if the file is damaged, or values are not finite.
        """
        coils, samples = (int(self.heads[name][numbers[0]]) for name in ("active_channels", "number_of_samples"))
        step = max(SLAB_BYTES // (8 * coils * samples), 1)
        # ranges of the file, rather than as many numbers: there may be any distance between two numbers
        for first in range(int(numbers[0]), int(numbers[-1]) + 1, step):
            part = slice(*np.searchsorted(numbers, (first, first + step)).tolist())
            if part.start == part.stop or not (wanted is None or wanted[part].any()):
                continue
            yield part, self._read(numbers[part], coils, samples)

    def _read(self, numbers: np.ndarray, coils: int, samples: int) -> np.ndarray:
        first = int(numbers[0])
        with _reading(self.path):
            records = self.data[first : int(numbers[-1]) + 1]["data"]
        values = [records[number - first] for number in numbers.tolist()]
        for number, value in zip(numbers.tolist(), values, strict=True):
            if value.size != 2 * coils * samples:
                raise ValueError(
                    f"{self.path}: acquisition {number} must have {2 * coils * samples} numbers for {coils} coils "
                    f"and {samples} complex samples, got {value.size}: it is damaged, or compressed"
                )
        lines = np.concatenate(values).view(np.complex64).reshape(len(numbers), coils, samples)
        finite = np.isfinite(lines).all(axis=(1, 2))
        if not finite.all():
            raise ValueError(f"{self.path}: acquisition {numbers[~finite][0]} has NaN or infinite values")
        return lines


def flag_mask(ismrmrd: ModuleType, *names: str) -> np.uint64:
    """The bits of flags, such as ``"ACQ_IS_REVERSE"``; those that an old version does not know are left out."""
    return np.uint64(sum(1 << (getattr(ismrmrd, name) - 1) for name in names if hasattr(ismrmrd, name)))


def require(path: Path, header: Any, name: str) -> Any:
    """A field of a header.

    Args:
        path: of the file, for the message.
        header: of the scan, or a part of it.
        name: of the field, with dots between the parts.

    Raises:
        ValueError: if it is missing.
    """
    value = header
    for part in name.split("."):
        value = getattr(value, part, None)
        if value is None:
            raise ValueError(f"{path}: the header has no {name}: add it to the XML of the file")
    return value


@contextlib.contextmanager
def open_scan(path: Path) -> Iterator[RawScan]:
    """Open an MRD file; its acquisitions are in the group ``dataset``, or in the only one there is.

    Raises:
        ValueError: if it is no MRD file, is damaged, or has no acquisitions.
        OSError: if it is missing.
    """
    with contextlib.ExitStack() as stack:
        with _reading(path):
            file = stack.enter_context(h5py.File(path, "r"))
            group = _find_group(path, file)
            xml = group["xml"][()]
            data = group["data"]
            heads = _read_heads(path, data)
        yield RawScan(path, _parse(path, xml), heads, data)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:  # h5py raises both
        raise ValueError(f"{path} is not an HDF5 file, or it is truncated ({error})") from error


def _find_group(path: Path, file: h5py.File) -> h5py.Group:
    groups = {name: group for name, group in file.items() if isinstance(group, h5py.Group)}
    scans = [name for name, group in groups.items() if isinstance(group.get("data"), h5py.Dataset)]
    name = GROUP if GROUP in scans else scans[0] if len(scans) == 1 else None
    if name is None:
        found = f"data in {', '.join(scans)}" if scans else f"{', '.join(file) or 'nothing'} without"
        raise ValueError(
            f"{path} must have acquisitions, a data set 'data', in the group '{GROUP}' or in a single other one, got "
            f"{found}: is it an ISMRMRD file of raw data?"
        )
    if "xml" not in groups[name]:
        raise ValueError(f"{path}: the group '{name}' has no header, a data set 'xml'")
    if groups[name]["data"].size == 0:
        raise ValueError(f"{path}: the group '{name}' has no acquisitions")
    return groups[name]


def _read_heads(path: Path, data: h5py.Dataset) -> np.ndarray:
    heads = np.empty(len(data), dtype=HEAD)
    if not {"head", "data"} <= set(data.dtype.names or ()):
        raise ValueError(f"{path}: acquisitions must have the fields head and data, got {data.dtype.names}")
    for start in range(0, len(data), SLAB_HEADS):
        # whole records: HDF5 never frees the samples of fields that are left out
        part = data[start : start + SLAB_HEADS]["head"]
        for name in ("flags", *FIELDS):
            heads[name][start : start + SLAB_HEADS] = part[name]
        for name in COUNTERS:
            heads[name][start : start + SLAB_HEADS] = part["idx"][name]
    return heads


def _parse(path: Path, xml: Any) -> Any:
    value = np.asarray(xml).ravel()[0]
    document = value if isinstance(value, bytes) else str(value).encode()
    try:
        return import_ismrmrd().xsd.CreateFromDocument(document)
    except (ValueError, TypeError) as error:  # missing fields are missing arguments of its classes
        raise ValueError(f"{path}: the header is broken, or fields are missing ({error})") from error
