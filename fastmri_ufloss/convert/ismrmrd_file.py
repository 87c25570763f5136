"""ISMRMRD raw data files (MRD): many acquisitions at once, and what the XML header says of a scan."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from fastmri_ufloss.simulation.mrd_file import import_ismrmrd

__all__ = ["Geometry", "RawScan", "open_scan", "read_geometry"]

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
ATTRIBUTES = {
    "system_vendor": "acquisitionSystemInformation.systemVendor",
    "system_model": "acquisitionSystemInformation.systemModel",
    "field_strength": "acquisitionSystemInformation.systemFieldStrength_T",
    "protocol_name": "measurementInformation.protocolName",
}
# of the subject, or that lead to it; patientPosition must stay
MEASUREMENT = ("patientPosition", "protocolName", "sequenceName")
SYSTEM = (
    *("systemVendor", "systemModel", "systemFieldStrength_T"),
    *("relativeReceiverNoiseBandwidth", "receiverChannels"),
)
SLAB_BYTES = 2**23  # of acquisitions that are read and transformed at once
SLAB_HEADS = 2**8  # whose samples come along


@dataclass(frozen=True)
class RawScan:
    """An open MRD file."""

    path: Path
    header: Any  # as ismrmrd parses the XML
    heads: np.ndarray  # of all acquisitions, with the fields flags, FIELDS and COUNTERS
    data: h5py.Dataset  # of the acquisitions

    def read_slabs(self, numbers: np.ndarray, wanted: np.ndarray | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """The samples of acquisitions, in slabs that depend on nothing but ``numbers``.

        Args:
            numbers: of the acquisitions in the file, rising, all of the same size.
            wanted: boolean, one for each of ``numbers``: slabs without any that is wanted are left out.

        Yields:
            Which of the ``numbers``, and their samples, complex64 (acquisitions, coils, samples).
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
        content = f"data in {', '.join(scans)}" if scans else f"{', '.join(file) or 'nothing'} without"
        raise ValueError(
            f"{path} must have acquisitions, a data set 'data', in the group '{GROUP}' or in a single other one, got "
            f"{content}: is it an ISMRMRD file of raw data?"
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
    points, at most those encoded, which is the recon matrix unless that is interpolated. Dimensions ``"auto"`` are 3D
    if more than one step is encoded along z.

    Raises:
        ValueError: if a field is missing or of no use, or the trajectory is not Cartesian.
    """
    trajectory = _require(path, encoding, "trajectory")
    trajectory = getattr(trajectory, "value", trajectory)
    if trajectory != "cartesian":
        raise ValueError(
            f"{path}: trajectory must be cartesian, got {trajectory}: grid the data with a tool for it, such as "
            "BART, and convert what it writes"
        )
    matrix, recon, sizes = _read_spaces(path, encoding)
    if dimensions == "3d" and matrix[2] == 1:
        raise ValueError(f"{path}: dimensions '3d' needs encodedSpace.matrixSize.z above 1, got 1")
    is_3d = dimensions == "3d" or (dimensions == "auto" and matrix[2] > 1)
    steps = [1, 2] if is_3d else [1]
    limits = [f"encodingLimits.kspace_encoding_step_{step}.center" for step in steps]
    shifts = [
        matrix[step] // 2 - int(_require(path, encoding, name)) for step, name in zip(steps, limits, strict=True)
    ]
    return Geometry(
        is_3d=is_3d,
        samples=matrix[0],
        readout=recon[0],
        size=(matrix[1], matrix[2]) if is_3d else (recon[0], matrix[1]),
        recon_size=(recon[1], recon[2]) if is_3d else (recon[0], recon[1]),
        voxel_size=(sizes[1], sizes[2], sizes[0]) if is_3d else (sizes[0], sizes[1], sizes[2]),
        shifts=(shifts[0], shifts[1] if is_3d else 0),
    )


def _read_spaces(path: Path, encoding: Any) -> tuple[list[int], list[int], list[float]]:
    """Encoded matrix, points in the field of view of the reconstruction, and their distances, of x, y and z."""

    def size_of(name: str) -> float:
        value = float(_require(path, encoding, name))
        if not 0 < value < float("inf"):
            raise ValueError(f"{path}: {name} of the header must be above 0, got {value:g}: correct it")
        return value

    encoded, cropped, sizes = [], [], []
    for axis in "xyz":
        size_of(f"reconSpace.matrixSize.{axis}")
        matrix = int(size_of(f"encodedSpace.matrixSize.{axis}"))
        field, recon_field = (size_of(f"{space}.fieldOfView_mm.{axis}") for space in ("encodedSpace", "reconSpace"))
        encoded.append(matrix)
        cropped.append(min(max(round(matrix * recon_field / field), 1), matrix))
        sizes.append(min(recon_field, field) / cropped[-1])
    return encoded, cropped, sizes


def field_of(header: Any, name: str) -> Any:
    """A field of a header or of a part of it, with dots between the parts of its name; None if it is missing."""
    for part in name.split("."):
        header = getattr(header, part, None)
    return header


def _require(path: Path, header: Any, name: str) -> Any:
    value = field_of(header, name)
    if value is None:
        raise ValueError(f"{path}: the header has no {name}: add it to the XML of the file")
    return value


def header_attributes(header: Any) -> dict[str, Any]:
    """What is worth keeping of a header and does not identify the subject; what it does not have is left out."""
    values = {name: field_of(header, place) for name, place in ATTRIBUTES.items()}
    return {name: value for name, value in values.items() if value is not None}


def acquisition_name(header: Any) -> str:
    """The name of the protocol, or else of the sequence, or else ``"UNKNOWN"``."""
    names = (field_of(header, f"measurementInformation.{name}") for name in ("protocolName", "sequenceName"))
    return next((name for name in names if name), "UNKNOWN")


def anonymous_header(scan: RawScan) -> bytes:
    """The XML header without what identifies the subject.

    Left out are subject and study, dates, identifiers, names of the institution and of the device, waveforms, and
    texts of the user parameters.
    """
    header = copy.deepcopy(scan.header)
    header.subjectInformation = header.studyInformation = None
    for part, kept in ((header.measurementInformation, MEASUREMENT), (header.acquisitionSystemInformation, SYSTEM)):
        for name, value in vars(part).items() if part is not None else ():
            if name not in kept and value:
                setattr(part, name, [] if isinstance(value, list) else None)
    header.waveformInformation = []
    if header.userParameters is not None:
        header.userParameters.userParameterString = []
        header.userParameters.userParameterBase64 = []
    return str(import_ismrmrd().xsd.ToXML(header, encoding="utf-8")).encode()
