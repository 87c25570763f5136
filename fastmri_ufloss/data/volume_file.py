"""Writing fastMRI's HDF5 volumes, slice by slice."""

import contextlib
import xml.etree.ElementTree as etree
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from fastmri_ufloss.data.checks import check
from fastmri_ufloss.files import atomic_path

__all__ = ["VolumeWriter", "fft2c", "ifft2c", "read_voxel_size", "write_volume"]

NAMESPACE = "http://www.ismrm.org/ISMRMRD"
AXES = (-2, -1)
OWN_NAMES = ("kspace", "max", "norm", "reconstruction_rss", "reconstruction_esc")


def fft2c(images: np.ndarray) -> np.ndarray:
    """Centerd orthonormal Fourier transform of the last two axes, ``fastmri.fft2c`` for complex arrays."""
    return fft.fftshift(fft.fft2(fft.ifftshift(images, axes=AXES), norm="ortho"), axes=AXES)


def ifft2c(kspace: np.ndarray) -> np.ndarray:
    """The inverse of `fft2c`."""
    return fft.fftshift(fft.ifft2(fft.ifftshift(kspace, axes=AXES), norm="ortho"), axes=AXES)


class VolumeWriter:
    """A fastMRI volume that is written slice by slice and appears under its name when it is complete.

        with VolumeWriter(path, (slices, coils, rows, cols)) as writer:
            for number, kspace in enumerate(slices):
                writer.write(number, kspace)

    Without a mask the volume gets the reconstruction: magnitude images of the k-space, root-sum-of-squares over
    coils and center-cropped (``reconstruction_rss``, or ``reconstruction_esc`` of a single coil), and its ``max``
    and ``norm``. With one the k-space is masked, and there is none, as in fastMRI's test files. If the block
    raises, or the process dies, the path is as it was before.

    Args:
        path: of the file; its folder is made if it is missing.
        shape: of the k-space: (slices, coils, rows, cols), or (slices, rows, cols) of a single coil.
        recon_size: (rows, cols) of the reconstruction; that of the k-space by default.
        mask: what was sampled, boolean, columns (cols,) or points (rows, cols).
        padding: columns [left, right) were acquired; those outside are zero-filled. All by default.
        acquisition: fastMRI's name of the contrast.
        patient_id: of the subject.
        voxel_size: of rows, columns and slices, in mm, for the header.
        attributes: further attributes of the file.
        datasets: further data sets of the file.

    Raises:
        ValueError: if an argument does not fit, a slice is not finite or of another shape, or one is missing
            at the end.
    """

    def __init__(
        self,
        path: str | Path,
        shape: Sequence[int],
        *,
        recon_size: tuple[int, int] | None = None,
        mask: np.ndarray | None = None,
        padding: tuple[int, int] | None = None,
        acquisition: str = "CORPD_FBK",
        patient_id: str = "",
        voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
        attributes: Mapping[str, Any] | None = None,
        datasets: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        layout = "(slices, coils, rows, cols) or (slices, rows, cols), each at least 1"
        check(len(shape) in (3, 4) and min(shape) >= 1, "shape", layout, tuple(shape))
        self.path = Path(path)
        self.shape = tuple(int(size) for size in shape)
        rows, cols = self.shape[-2:]
        self.recon_size = (rows, cols) if recon_size is None else recon_size
        fits = len(self.recon_size) == 2 and all(
            1 <= n <= m for n, m in zip(self.recon_size, (rows, cols), strict=True)
        )
        check(fits, "recon_size", f"two sizes from 1 to {(rows, cols)}", recon_size)
        self.padding = (0, cols) if padding is None else padding
        left, right = self.padding
        check(0 <= left < right <= cols, "padding", f"(left, right) within 0 and {cols}", padding)
        check(min(voxel_size) > 0, "voxel_size", "above 0", voxel_size)
        self.mask = None if mask is None else np.asarray(mask).astype(bool)
        if self.mask is not None:
            shapes = ((cols,), (rows, cols))
            check(self.mask.shape in shapes, "mask", f"of shape {shapes[0]} or {shapes[1]}", self.mask.shape)
        self._attributes: dict[str, Any] = {"acquisition": acquisition, "patient_id": patient_id}
        self._datasets: dict[str, Any] = {"ismrmrd_header": _header(self, voxel_size)}
        if self.mask is not None:
            self._datasets["mask"] = self.mask
        own = {
            *self._attributes,
            *self._datasets,
            "kspace",
            "max",
            "norm",
            "reconstruction_rss",
            "reconstruction_esc",
        }
        taken = sorted(own & {*(attributes or {}), *(datasets or {})})
        check(not taken, "datasets and attributes", "other names than the volume's own", taken)
        self._attributes |= dict(attributes or {})
        self._datasets |= dict(datasets or {})
        self._written: set[int] = set()
        self._max = self._squares = 0.0

    def __enter__(self) -> "VolumeWriter":
        self._stack = contextlib.ExitStack()
        self._stack.__enter__()
        try:
            temporary = self._stack.enter_context(atomic_path(self.path))
            self._file = self._stack.enter_context(h5py.File(temporary, "w"))
            self._kspace = self._file.create_dataset("kspace", shape=self.shape, dtype=np.complex64)
            self._images: h5py.Dataset | None = None
            if self.mask is None:
                name = "reconstruction_rss" if len(self.shape) == 4 else "reconstruction_esc"
                self._images = self._file.create_dataset(name, (self.shape[0], *self.recon_size), dtype=np.float32)
            for name, values in self._datasets.items():
                self._file.create_dataset(name, data=values)
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, number: int, kspace: np.ndarray) -> None:
        """Write a slice.

        Args:
            number: of the slice.
            kspace: complex, centered, (coils, rows, cols), or (rows, cols) of a single coil.

        Raises:
            ValueError: if its shape or type is another, or it is not finite.
        """
        check(0 <= number < self.shape[0], "number", f"from 0 to {self.shape[0] - 1}", number)
        fits = kspace.shape == self.shape[1:] and np.iscomplexobj(kspace)
        check(fits, "kspace", f"complex, of shape {self.shape[1:]}", f"{kspace.dtype} {kspace.shape}")
        if not np.isfinite(kspace).all():
            raise ValueError(f"kspace must be finite, got NaN or infinite values in slice {number}")
        kspace = kspace.astype(np.complex64, copy=False)
        self._kspace[number] = kspace if self.mask is None else kspace * self.mask
        self._written.add(number)
        if self._images is not None:
            image = _reconstruct(kspace, self.recon_size)
            self._images[number] = image
            self._max = max(self._max, float(image.max()))
            self._squares += float(np.square(image, dtype=np.float64).sum())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    def _finish(self) -> None:
        missing = sorted(set(range(self.shape[0])) - self._written)
        check(not missing, "slices", "written, all of them", f"none for {missing[:5]}")
        if self._images is not None:
            self._attributes |= {"max": self._max, "norm": float(np.sqrt(self._squares))}
        self._file.attrs.update(self._attributes)


def write_volume(
    path: str | Path,
    kspace: np.ndarray,
    *,
    recon_size: tuple[int, int] | None = None,
    mask: np.ndarray | None = None,
    padding: tuple[int, int] | None = None,
    acquisition: str = "CORPD_FBK",
    patient_id: str = "",
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
    attributes: Mapping[str, Any] | None = None,
    datasets: Mapping[str, ArrayLike] | None = None,
) -> None:
    """Write k-space as an HDF5 volume as fastMRI has them, with a `VolumeWriter`.

    Args:
        path: of the file.
        kspace: complex, centered, (slices, coils, rows, cols), or (slices, rows, cols) of a single coil.
        recon_size, mask, padding, acquisition, patient_id, voxel_size, attributes, datasets: see `VolumeWriter`.

    Raises:
        ValueError: if an argument is out of its range, does not fit the k-space, or is not finite.
    """
    kspace = np.asarray(kspace)
    layout = "complex, (slices, coils, rows, cols) or (slices, rows, cols)"
    fits = np.iscomplexobj(kspace) and kspace.ndim in (3, 4) and kspace.size > 0
    check(fits, "kspace", layout, f"{kspace.dtype} {kspace.shape}")
    with VolumeWriter(
        path,
        kspace.shape,
        recon_size=recon_size,
        mask=mask,
        padding=padding,
        acquisition=acquisition,
        patient_id=patient_id,
        voxel_size=voxel_size,
        attributes=attributes,
        datasets=datasets,
    ) as writer:
        for number, one in enumerate(kspace):
            writer.write(number, one)


def read_voxel_size(path: str | Path) -> tuple[float, float, float]:
    """Size of a volume's voxels, (slices, rows, cols) in mm, from its header; 1 mm where that does not tell."""
    with h5py.File(path, "r") as volume:
        root = etree.fromstring(volume["ismrmrd_header"][()])
    sizes = []
    for axis in "zxy":
        place = f".//{{{NAMESPACE}}}encodedSpace/{{{NAMESPACE}}}"
        field, size = (
            root.findtext(f"{place}{part}/{{{NAMESPACE}}}{axis}") for part in ("fieldOfView_mm", "matrixSize")
        )
        sizes.append(float(field) / max(float(size), 1) if field and size else 1.0)
    return sizes[0], sizes[1], sizes[2]


def _reconstruct(kspace: np.ndarray, recon_size: tuple[int, int]) -> np.ndarray:
    """The magnitude image (rows, cols) of a slice, cropped as fastMRI crops."""
    image = np.abs(ifft2c(kspace))
    if image.ndim == 3:
        image = np.sqrt((image**2).sum(axis=0))
    top, left = ((size - crop) // 2 for size, crop in zip(image.shape, recon_size, strict=True))
    return image[top : top + recon_size[0], left : left + recon_size[1]].astype(np.float32)


def _header(writer: VolumeWriter, voxel_size: tuple[float, float, float]) -> bytes:
    """An ISMRMRD header: x is the readout (rows), y the phase encoding (cols)."""
    (rows, cols), (left, right) = writer.shape[-2:], writer.padding
    root = etree.Element("ismrmrdHeader", {"xmlns": NAMESPACE})
    conditions = etree.SubElement(root, "experimentalConditions")
    etree.SubElement(conditions, "H1resonanceFrequency_Hz").text = "127729000"  # 3 T
    encoding = etree.SubElement(root, "encoding")
    # the image covers the field of view of the k-space, the reconstruction a part of it
    for name, (height, width) in (("encodedSpace", (rows, cols)), ("reconSpace", writer.recon_size)):
        space = etree.SubElement(encoding, name)
        fields = (height * voxel_size[0], width * voxel_size[1], voxel_size[2])
        for part, sizes in (("matrixSize", (height, width, 1)), ("fieldOfView_mm", fields)):
            element = etree.SubElement(space, part)
            for axis, size in zip("xyz", sizes, strict=True):
                etree.SubElement(element, axis).text = str(size)
    limits = etree.SubElement(encoding, "encodingLimits")
    # fastMRI's padding: left = cols // 2 - center, right = left + maximum + 1
    for name, maximum, center in (
        ("kspace_encoding_step_1", right - left - 1, cols // 2 - left),
        ("slice", writer.shape[0] - 1, writer.shape[0] // 2),
    ):
        limit = etree.SubElement(limits, name)
        for part, value in (("minimum", 0), ("maximum", maximum), ("center", center)):
            etree.SubElement(limit, part).text = str(value)
    etree.SubElement(encoding, "trajectory").text = "cartesian"
    return etree.tostring(root, encoding="utf-8", xml_declaration=True)
