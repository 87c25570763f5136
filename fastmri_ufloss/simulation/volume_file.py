"""Writing fastMRI's HDF5 volumes, slice by slice."""

import xml.etree.ElementTree as etree
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from fastmri.data.transforms import center_crop
from numpy.typing import ArrayLike
from scipy import fft

from fastmri_ufloss.checks import check
from fastmri_ufloss.data.volume_files import open_hdf5
from fastmri_ufloss.files import atomic_path

__all__ = ["fft2c", "ifft2c", "read_voxel_size", "write_volume"]

NAMESPACE = "http://www.ismrm.org/ISMRMRD"
AXES = (-2, -1)
OWN_NAMES = {"kspace", "mask", "ismrmrd_header", "reconstruction_rss", "reconstruction_esc", "max", "norm"}


def fft2c(images: np.ndarray) -> np.ndarray:
    """Centered orthonormal Fourier transform of the last two axes, ``fastmri.fft2c`` for complex arrays."""
    return fft.fftshift(fft.fft2(fft.ifftshift(images, axes=AXES), norm="ortho"), axes=AXES)


def ifft2c(kspace: np.ndarray) -> np.ndarray:
    """The inverse of `fft2c`."""
    return fft.fftshift(fft.ifft2(fft.ifftshift(kspace, axes=AXES), norm="ortho"), axes=AXES)


def write_volume(
    path: str | Path,
    kspace: Iterable[np.ndarray],
    *,
    shape: Sequence[int] | None = None,
    recon_size: tuple[int, int] | None = None,
    mask: np.ndarray | None = None,
    padding: tuple[int, int] | None = None,
    acquisition: str | None = None,
    patient_id: str = "",
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
    attributes: Mapping[str, Any] | None = None,
    datasets: Mapping[str, ArrayLike] | None = None,
) -> None:
    """Write k-space as an HDF5 volume as fastMRI has them; if that fails, the path is as it was before.

    Without a mask the volume gets the reconstruction: magnitude images of the k-space, root-sum-of-squares over
    coils and center-cropped (``reconstruction_rss``, or ``reconstruction_esc`` of a single coil), and its ``max``
    and ``norm``. With a mask the k-space is masked, without a reconstruction, as in fastMRI's test files.

    Args:
        kspace: complex, centered, (slices, coils, rows, cols), or (slices, rows, cols) of a single coil.
        shape: of the k-space, if ``kspace`` is no array but gives one slice after the other.
        recon_size: (rows, cols) of the reconstruction; that of the k-space by default.
        mask: what was sampled, boolean, columns (cols,) or points (rows, cols).
        padding: columns [left, right) were acquired; those outside are zero-filled. All by default.
        voxel_size: of rows, columns and slices, in mm, for the header.
        attributes, datasets: further ones of the file.

    Raises:
        ValueError: if an argument does not fit, or a slice is missing, not finite or of another shape.
    """
    if shape is None:
        kspace = np.asarray(kspace)
        shape = kspace.shape
    layout = "of shape (slices, coils, rows, cols) or (slices, rows, cols), each at least 1"
    check(len(shape) in (3, 4) and min(shape) >= 1, "kspace", layout, tuple(shape))
    shape = tuple(shape)
    rows, cols = shape[-2:]
    recon_size = recon_size or (rows, cols)
    fits = 1 <= recon_size[0] <= rows and 1 <= recon_size[1] <= cols
    check(fits, "recon_size", f"two sizes from 1 to {(rows, cols)}", recon_size)
    padding = padding or (0, cols)
    check(0 <= padding[0] < padding[1] <= cols, "padding", f"(left, right) within 0 and {cols}", padding)
    check(min(voxel_size) > 0, "voxel_size", "above 0", voxel_size)
    taken = sorted(OWN_NAMES & {*(attributes or {}), *(datasets or {})})
    check(not taken, "attributes and datasets", "other names than the volume's own", taken)
    content: dict[str, Any] = {"ismrmrd_header": _header(shape, recon_size, padding, voxel_size)}
    if mask is not None:
        mask = content["mask"] = np.asarray(mask).astype(bool)
        check(mask.shape in ((cols,), (rows, cols)), "mask", f"of shape {(cols,)} or {(rows, cols)}", mask.shape)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        data = file.create_dataset("kspace", shape=shape, dtype=np.complex64)
        if mask is None:
            name = "reconstruction_rss" if len(shape) == 4 else "reconstruction_esc"
            images = file.create_dataset(name, (shape[0], *recon_size), dtype=np.float32)
        for name, values in {**content, **(datasets or {})}.items():
            file.create_dataset(name, data=values)
        count, highest, squares = 0, 0.0, 0.0
        layout = f"complex, {shape[0]} slices of shape {shape[1:]}"
        for values in kspace:
            fits = count < shape[0] and np.iscomplexobj(values) and values.shape == shape[1:]
            check(fits, "kspace", layout, f"{values.dtype} {values.shape}")
            values = values.astype(np.complex64, copy=False)
            if not np.isfinite(values).all():
                raise ValueError(f"kspace must be finite, got NaN or infinite values in slice {count}")
            data[count] = values if mask is None else values * mask
            if mask is None:
                image = np.abs(ifft2c(values))
                if image.ndim == 3:
                    image = np.sqrt((image**2).sum(axis=0))
                image = images[count] = center_crop(image, recon_size).astype(np.float32)
                highest = max(highest, float(image.max()))
                squares += float(np.square(image, dtype=np.float64).sum())
            count += 1
        check(count == shape[0], "kspace", f"{shape[0]} slices", count)
        file.attrs.update({"acquisition": acquisition or "UNKNOWN", "patient_id": patient_id, **(attributes or {})})
        if mask is None:
            file.attrs.update({"max": highest, "norm": float(np.sqrt(squares))})


def read_voxel_size(path: str | Path) -> tuple[float, float, float]:
    """Size of a volume's voxels, (slices, rows, cols) in mm, from its header; 1 mm where that does not tell."""

    def size(axis: str) -> float:
        names = (f".//{{*}}encodedSpace/{{*}}{field}/{{*}}{axis}" for field in ("fieldOfView_mm", "matrixSize"))
        field, count = map(root.findtext, names)
        return float(field) / max(float(count), 1) if field and count else 1.0

    with open_hdf5(path, "ismrmrd_header") as volume:
        try:
            root = etree.fromstring(volume["ismrmrd_header"][()])
            return size("z"), size("x"), size("y")
        except (etree.ParseError, ValueError) as error:
            raise ValueError(f"{path} has a broken 'ismrmrd_header' ({error})") from error


def _header(
    shape: tuple[int, ...], recon_size: tuple[int, int], padding: tuple[int, int], voxel_size: Sequence[float]
) -> bytes:
    """An ISMRMRD header: x is the readout (rows), y the phase encoding (cols)."""
    (rows, cols), (left, right) = shape[-2:], padding

    def space(height: int, width: int) -> dict[str, Any]:
        fields = {"x": height * voxel_size[0], "y": width * voxel_size[1], "z": voxel_size[2]}
        return {"matrixSize": {"x": height, "y": width, "z": 1}, "fieldOfView_mm": fields}

    encoding = {
        "encodedSpace": space(rows, cols),
        "reconSpace": space(*recon_size),  # the image covers the field of view of the k-space, this a part of it
        "encodingLimits": {
            # fastMRI's padding: left = cols // 2 - center, right = left + maximum + 1
            "kspace_encoding_step_1": {"minimum": 0, "maximum": right - left - 1, "center": cols // 2 - left},
            "slice": {"minimum": 0, "maximum": shape[0] - 1, "center": shape[0] // 2},
        },
        "trajectory": "cartesian",
    }
    header = {"experimentalConditions": {"H1resonanceFrequency_Hz": 127729000}, "encoding": encoding}  # 3 T
    start = f"<?xml version='1.0' encoding='utf-8'?>\n<ismrmrdHeader xmlns=\"{NAMESPACE}\">"
    return f"{start}{_to_xml(header)}</ismrmrdHeader>".encode()


def _to_xml(tree: Mapping[str, Any]) -> str:
    parts = {name: _to_xml(value) if isinstance(value, Mapping) else value for name, value in tree.items()}
    return "".join(f"<{name}>{value}</{name}>" for name, value in parts.items())
