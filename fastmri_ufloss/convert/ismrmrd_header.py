"""What the XML header of an ISMRMRD file says of a scan."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastmri_ufloss.convert.ismrmrd_file import RawScan, import_ismrmrd, require

__all__ = ["Geometry", "acquisition_name", "anonymous_header", "header_attributes", "read_geometry"]

SPACES = ("encodedSpace", "reconSpace")
ATTRIBUTES = {
    "system_vendor": "acquisitionSystemInformation.systemVendor",
    "system_model": "acquisitionSystemInformation.systemModel",
    "field_strength": "acquisitionSystemInformation.systemFieldStrength_T",
    "protocol_name": "measurementInformation.protocolName",
}
# of the subject, or that lead to it; patientPosition must stay
MEASUREMENT = ("patientPosition", "protocolName", "sequenceName")
SYSTEM = (
    "systemVendor",
    "systemModel",
    "systemFieldStrength_T",
    "relativeReceiverNoiseBandwidth",
    "receiverChannels",
)


@dataclass(frozen=True)
class Geometry:
    """The grid of a scan.

    Args:
        is_3d: positions along the readout become slices.
        samples: of the encoded readout, with oversampling.
        readout: of these, the positions in the field of view of the reconstruction.
        size: (rows, cols) of the k-space of a slice.
        recon_size: (rows, cols) of its reconstruction.
        voxel_size: of rows, columns and slices, in mm.
        shifts: from ``kspace_encode_step_1`` and ``_2`` to places in the encoded grid.
    """

    is_3d: bool
    samples: int
    readout: int
    size: tuple[int, int]
    recon_size: tuple[int, int]
    voxel_size: tuple[float, float, float]
    shifts: tuple[int, int]


def read_geometry(path: Path, encoding: Any, dimensions: Literal["auto", "2d", "3d"] = "auto") -> Geometry:
    """The grid that an encoding of the header describes.

    Images are cropped to the field of view of ``reconSpace``: ``round(encoded matrix * recon fov / encoded fov)``
    points, at most those encoded, which is the recon matrix unless that is interpolated.

    Args:
        path: of the file, for messages.
        encoding: of the header.
        dimensions: ``"auto"`` is 3D if more than one step is encoded along z.

    Raises:
        ValueError: if a field is missing or of no use, or the trajectory is not Cartesian.
    """
    trajectory = require(path, encoding, "trajectory")
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
        matrix[step] // 2 - int(require(path, encoding, name)) for step, name in zip(steps, limits, strict=True)
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
    values: dict[tuple[str, str, str], float] = {}
    for space in SPACES:
        for part in ("matrixSize", "fieldOfView_mm"):
            for axis in "xyz":
                name = f"{space}.{part}.{axis}"
                value = float(require(path, encoding, name))
                if not 0 < value < float("inf"):
                    raise ValueError(f"{path}: {name} of the header must be above 0, got {value:g}: correct it")
                values[space, part, axis] = value
    encoded, cropped, sizes = [], [], []
    for axis in "xyz":
        matrix = int(values["encodedSpace", "matrixSize", axis])
        field, recon_field = (values[space, "fieldOfView_mm", axis] for space in SPACES)
        encoded.append(matrix)
        cropped.append(min(max(round(matrix * recon_field / field), 1), matrix))
        sizes.append(min(recon_field, field) / cropped[-1])
    return encoded, cropped, sizes


def header_attributes(header: Any) -> dict[str, Any]:
    """What is worth keeping of a header and does not identify the subject; what it does not have is left out."""
    values = {}
    for name, field in ATTRIBUTES.items():
        part, leaf = field.split(".")
        value = getattr(getattr(header, part, None), leaf, None)
        if value is not None:
            values[name] = value
    return values


def acquisition_name(header: Any) -> str:
    """The name of the protocol, or else of the sequence, or else ``"UNKNOWN"``."""
    measurement = getattr(header, "measurementInformation", None)
    names = (getattr(measurement, name, None) for name in ("protocolName", "sequenceName"))
    return next((name for name in names if name), "UNKNOWN")


def anonymous_header(scan: RawScan) -> bytes:
    """The XML header without what identifies the subject.

    That are subject and study, dates, identifiers, names of the institution and of the device, waveforms, and
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
    text = import_ismrmrd().xsd.ToXML(header, encoding="utf-8")
    return str(text).encode()
