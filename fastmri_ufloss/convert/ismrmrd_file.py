"""ISMRMRD raw data files (MRD): many acquisitions at once, and what the XML header says of a scan."""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from fastmri_ufloss.data.checks import check
from fastmri_ufloss.simulation.mrd_file import import_ismrmrd

__all__ = ["Geometry", "RawScan", "open_scan", "read_geometry"]

GROUP = "dataset"
FIELDS = (
    *("flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample"),
    *("encoding_space_ref", "sample_time_us"),
)
COUNTERS = (
    *("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice"),
    *("contrast", "phase", "repetition", "set"),
)
TYPES = {"flags": np.uint64, "sample_time_us": np.float64}
HEAD = np.dtype([(name, TYPES.get(name, np.int64)) for name in (*FIELDS, *COUNTERS)])
ATTRIBUTES = {
    "system_vendor": "acquisitionSystemInformation.systemVendor",
    "system_model": "acquisitionSystemInformation.systemModel",
    "field_strength": "acquisitionSystemInformation.systemFieldStrength_T",
    "protocol_name": "measurementInformation.protocolName",
}
# what neither identifies the subject nor leads to it; patientPosition must be there
KEPT = {
    "measurementInformation": ("patientPosition", "protocolName", "sequenceName"),
    "acquisitionSystemInformation": (
        *("systemVendor", "systemModel", "systemFieldStrength_T"),
        *("relativeReceiverNoiseBandwidth", "receiverChannels"),
    ),
    "userParameters": ("userParameterLong", "userParameterDouble"),
}
SLAB_BYTES = 2**23  # of acquisitions that are read and transformed at once
SLAB_HEADS = 2**8  # whose samples come along


@dataclass(frozen=True)
class RawScan:
    """An open MRD file."""

    path: Path
    header: Any  # as ismrmrd parses the XML
    heads: np.ndarray  # of all acquisitions, with the fields FIELDS and COUNTERS
    data: h5py.Dataset  # of the acquisitions

    def read_slabs(self, numbers: np.ndarray, wanted: np.ndarray | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Acquisitions of one size, in slabs that depend on nothing but their rising ``numbers`` in the file.

        Yields:
            Which of the ``numbers``, and their samples, complex64 (acquisitions, coils, samples); slabs without any
            that is ``wanted``, boolean for each number, are left out.
        """
        coils, samples = (int(self.heads[name][numbers[0]]) for name in ("active_channels", "number_of_samples"))
        step = max(SLAB_BYTES // (8 * coils * samples), 1)
        # ranges of the file, rather than as many numbers: there may be any distance between two numbers
        for first in range(int(numbers[0]), int(numbers[-1]) + 1, step):
            part = slice(*np.searchsorted(numbers, (first, first + step)).tolist())
            if part.start < part.stop and (wanted is None or wanted[part].any()):
                yield part, self._read(numbers[part], coils, samples)

    def _read(self, numbers: np.ndarray, coils: int, samples: int) -> np.ndarray:
        with _reading(self.path):
            records = self.data[int(numbers[0]) : int(numbers[-1]) + 1]["data"]
        values = records[numbers - numbers[0]]
        for number, value in zip(numbers.tolist(), values, strict=True):
            if value.size != 2 * coils * samples:
                layout = f"{2 * coils * samples} numbers for {coils} coils and {samples} complex samples"
                got = f"{value.size}: it is damaged, or compressed"
                raise ValueError(f"{self.path}: acquisition {number} must have {layout}, got {got}")
        lines = np.concatenate(values).view(np.complex64).reshape(len(numbers), coils, samples)
        finite = np.isfinite(lines).all(axis=(1, 2))
        if not finite.all():
            raise ValueError(f"{self.path}: acquisition {numbers[~finite][0]} has NaN or infinite values")
        return lines


@contextlib.contextmanager
def open_scan(path: Path) -> Iterator[RawScan]:
    """Open an MRD file; its acquisitions are in the group ``dataset``, or in the only one there is.

    Raises:
        ValueError: if it is no MRD file, is damaged, or has no acquisitions.
        OSError: if it is missing.
    """
    with _reading(path):
        file = h5py.File(path, "r")
    with file:
        with _reading(path):
            group = _find_group(path, file)
            xml = np.asarray(group["xml"][()]).ravel()[0]
            heads = _read_heads(path, group["data"])
        try:
            header = import_ismrmrd().xsd.CreateFromDocument(xml if isinstance(xml, bytes) else str(xml).encode())
        except (ValueError, TypeError) as error:  # missing fields are missing arguments of its classes
            raise ValueError(f"{path}: the header is broken, or fields are missing ({error})") from error
        yield RawScan(path, header, heads, group["data"])


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
    if GROUP not in scans and len(scans) != 1:
        got = f"data in {', '.join(scans)}" if scans else f"{', '.join(file) or 'nothing'} without"
        where = f"in the group '{GROUP}' or in a single other one, got {got}: is it an ISMRMRD file of raw data?"
        raise ValueError(f"{path} must have acquisitions, a data set 'data', {where}")
    name = GROUP if GROUP in scans else scans[0]
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
        for name in HEAD.names or ():
            heads[name][start : start + SLAB_HEADS] = part[name] if name in FIELDS else part["idx"][name]
    return heads


@dataclass(frozen=True)
class Geometry:
    """The grid of a scan."""

    is_3d: bool  # positions along the readout become slices
    samples: int  # of the encoded readout, with oversampling
    readout: int  # of these, the positions in the field of view of the reconstruction
    size: tuple[int, int]  # (rows, cols) of the k-space of a slice
    recon_size: tuple[int, int]  # (rows, cols) of its reconstruction
    voxel_size: tuple[float, float, float]  # of rows, columns and slices, in mm
    shifts: tuple[int, int]  # from kspace_encode_step_1 and _2 to places in the encoded grid


def read_geometry(path: Path, encoding: Any, dimensions: Literal["auto", "2d", "3d"] = "auto") -> Geometry:
    """The grid that an encoding of the header describes.

    Images are cropped to the field of view of ``reconSpace``: ``round(encoded matrix * recon fov / encoded fov)``
    points, at most those encoded, which is the recon matrix unless that is interpolated.

    Raises:
        ValueError: if a field is missing or of no use, or the trajectory is not Cartesian.
    """
    trajectory = getattr(encoding.trajectory, "value", encoding.trajectory)
    if trajectory != "cartesian":
        raise ValueError(
            f"{path}: trajectory must be cartesian, got {trajectory}: grid the data, for example in BART"
        )

    def read(name: str) -> list[float]:
        values = {axis: float(field_of(encoding, f"{name}.{axis}")) for axis in "xyz"}
        for axis, value in values.items():
            check(0 < value < np.inf, f"{path}: {name}.{axis} of the header", "above 0", f"{value:g}: correct it")
        return list(values.values())

    read("reconSpace.matrixSize")
    x, y, z = matrix = [int(size) for size in read("encodedSpace.matrixSize")]
    fields = list(zip(read("encodedSpace.fieldOfView_mm"), read("reconSpace.fieldOfView_mm"), strict=True))
    sizes = [round(size * recon / encoded) for size, (encoded, recon) in zip(matrix, fields, strict=True)]
    counts = np.clip(sizes, 1, matrix).tolist()
    spacing = [min(field) / count for field, count in zip(fields, counts, strict=True)]
    if dimensions == "3d" and z == 1:
        raise ValueError(f"{path}: dimensions '3d' needs encodedSpace.matrixSize.z above 1, got 1")
    is_3d = dimensions == "3d" or (dimensions == "auto" and z > 1)
    shifts = [0, 0]
    for axis in (1, 2) if is_3d else (1,):
        name = f"encodingLimits.kspace_encoding_step_{axis}.center"
        center = field_of(encoding, name)
        if center is None:
            raise ValueError(f"{path}: the header has no {name}: add it to the XML of the file")
        shifts[axis - 1] = matrix[axis] // 2 - int(center)
    return Geometry(
        is_3d=is_3d,
        samples=x,
        readout=counts[0],
        size=(y, z) if is_3d else (counts[0], y),
        recon_size=(counts[1], counts[2]) if is_3d else (counts[0], counts[1]),
        voxel_size=(spacing[1], spacing[2], spacing[0]) if is_3d else (spacing[0], spacing[1], spacing[2]),
        shifts=(shifts[0], shifts[1]),
    )


def field_of(header: Any, name: str) -> Any:
    """A field of a header or of a part of it, with dots between the parts of its name; None if it is missing."""
    for part in name.split("."):
        header = getattr(header, part, None)
    return header


def header_attributes(header: Any) -> dict[str, Any]:
    """What is worth keeping of a header and does not identify the subject; what it does not have is left out."""
    values = {name: field_of(header, place) for name, place in ATTRIBUTES.items()}
    return {name: value for name, value in values.items() if value is not None}


def anonymous_header(header: Any) -> bytes:
    """The XML of a header without what identifies the subject, such as dates, names and texts of user parameters."""
    parts = {name: getattr(header, name) for name in KEPT}
    kept = {
        name: type(part)(**{field: getattr(part, field) for field in KEPT[name]})
        for name, part in parts.items()
        if part is not None
    }
    nothing: dict[str, Any] = {"subjectInformation": None, "studyInformation": None, "waveformInformation": []}
    return str(import_ismrmrd().xsd.ToXML(dataclasses.replace(header, **nothing, **kept), encoding="utf-8")).encode()
