"""BART's files: pairs of ``.cfl`` and ``.hdr``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastmri_ufloss.convert.sampling import write_kspace

__all__ = ["convert_bart", "open_cfl"]

DIMENSIONS = (
    *("readout", "phase 1", "phase 2", "coils", "maps", "echo time", "coefficients", "coefficients 2"),
    *("iterations", "cyclic shifts", "time", "time 2", "levels", "slices", "averages", "batches"),
)
USED = ("readout", "phase 1", "phase 2", "coils", "slices")


def open_cfl(path: Path) -> np.ndarray:
    """Map the array of a ``.cfl`` file and its ``.hdr`` into memory.

    Args:
        path: of the ``.cfl`` file.

    Returns:
        complex64, with BART's 16 dimensions.

    Raises:
        ValueError: if the header is broken, or the data have another size than it says.
        OSError: if one of the two cannot be read.
    """
    header = path.with_suffix(".hdr")
    if not path.is_file() or not header.is_file():
        missing = header if path.is_file() else path
        raise FileNotFoundError(f"no file {missing}: BART's files are pairs of .cfl and .hdr")
    lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
    try:
        sizes = [int(size) for size in lines[lines.index("# Dimensions") + 1].split()]
    except (ValueError, IndexError) as error:
        raise ValueError(f"{header} has no line of sizes after a line '# Dimensions'") from error
    if not 1 <= len(sizes) <= len(DIMENSIONS) or min(sizes) < 1:
        raise ValueError(f"{header} must have 1 to {len(DIMENSIONS)} sizes, each at least 1, got {sizes}")
    sizes += [1] * (len(DIMENSIONS) - len(sizes))
    expected, found = 8 * int(np.prod(sizes, dtype=object)), path.stat().st_size
    if found != expected:
        raise ValueError(
            f"{path} must have {expected} bytes for the sizes in its .hdr, got {found}: is it truncated?"
        )
    return np.memmap(path, dtype="<c8", mode="r", shape=tuple(sizes), order="F")


def convert_bart(
    source: Path,
    output: Path,
    *,
    max_memory: int = 2**30,
    acquisition: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write k-space of BART as a fastMRI volume.

    The k-space is centred and unitary, as that of ``bart fft -u``. Of a 2D scan, BART's dimension 0 becomes rows,
    1 columns, 3 coils and 13 slices. Of a 3D scan (dimension 2 is larger than 1), the readout (0) is transformed
    and becomes slices, 1 rows and 2 columns. K-space with gaps of zeros gets a mask, see `write_kspace`.

    Args:
        source: a ``.cfl`` file with its ``.hdr`` beside it.
        output: path of the volume.
        max_memory: bytes of 3D k-space that are transformed at once; a larger scan is read several times.
        acquisition: name of the contrast.
        attributes: further attributes of the volume.

    Raises:
        ValueError: if the file is broken, is not finite, or has another dimension larger than 1.
        OSError: if it cannot be read, or the volume cannot be written.
    """
    array = open_cfl(source)
    for number, (name, size) in enumerate(zip(DIMENSIONS, array.shape, strict=True)):
        if size > 1 and name not in USED:
            raise ValueError(
                f"{source}: dimension {number} ({name}) must be 1, got {size}: take one with "
                f"'bart slice {number} INDEX', or combine them"
            )
    if array.shape[2] > 1 and array.shape[13] > 1:
        raise ValueError(
            f"{source}: only one of dimension 2 (phase 2) and dimension 13 (slices) may be larger than 1, "
            f"got {array.shape[2]} and {array.shape[13]}"
        )
    along_readout = array.shape[2] > 1
    order = (0, 3, 1, 2, 13) if along_readout else (13, 3, 0, 1, 2)
    kspace = array.transpose(*order, *(axis for axis in range(len(DIMENSIONS)) if axis not in order))
    try:
        write_kspace(
            output,
            kspace.reshape(kspace.shape[:4]),
            along_readout=along_readout,
            max_memory=max_memory,
            acquisition=acquisition or "UNKNOWN",
            attributes={"source_format": "BART", **(attributes or {})},
        )
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
