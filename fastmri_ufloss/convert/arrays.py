"""NumPy's files: ``.npy`` and ``.npz`` with k-space or images."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastmri_ufloss.convert.prewhitening import noise_covariance, whitening_matrix
from fastmri_ufloss.convert.sampling import write_kspace
from fastmri_ufloss.simulation.simulate import simulate_volume

__all__ = ["ArrayLayout", "convert_numpy", "read_layout"]

KINDS = ("auto", "kspace", "image")
KEYS = ("kspace", "images")  # of .npz files with several arrays
KSPACE_AXES = {2: "rows,cols", 3: "coils,rows,cols", 4: "slices,coils,rows,cols"}
IMAGE_AXES = {2: "rows,cols", 3: "slices,rows,cols"}


@dataclass(frozen=True)
class ArrayLayout:
    """What an array is, by its header.

    Args:
        axes: names of its axes, in order.
        is_image: images, not k-space.
    """

    axes: tuple[str, ...]
    is_image: bool


def convert_numpy(
    source: Path,
    output: Path,
    *,
    kind: Literal["auto", "kspace", "image"] = "auto",
    axes: str | None = None,
    key: str | None = None,
    mask: Path | None = None,
    noise: Path | None = None,
    num_coils: int | None = 8,
    snr: float = 30.0,
    phase_strength: float = 1.0,
    seed: int = 0,
    max_memory: int = 2**30,
    acquisition: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write an array as a fastMRI volume: k-space as it is, images as if they had been scanned.

    K-space is centred and unitary: ``image = fftshift(ifft2(ifftshift(kspace), norm="ortho"))``. With gaps of
    zeros it gets a mask, see `write_kspace`; without an axis of coils it becomes single-coil data. The values
    of images stay as they are; k-space is made of them by `simulate_volume`.

    Args:
        source: a ``.npy`` or ``.npz`` file.
        output: path of the volume.
        kind: ``"auto"`` takes complex arrays for k-space and real ones for magnitude images.
        axes: names of the array's axes, in order, with commas: ``rows`` and ``cols``, and ``slices`` or
            ``coils``; ``readout`` instead of ``slices`` for 3D k-space, which is transformed along it. By default
            ``slices,coils,rows,cols`` for k-space and ``slices,rows,cols`` for images, without the first ones
            if there are fewer axes.
        key: name of the array in a ``.npz`` file; by default the only one, or ``kspace``, or ``images``.
        mask: a ``.npy`` file with what was sampled, (cols,) or (rows, cols); found from the zeros by default.
        noise: a ``.npy`` file with a scan of noise, (coils, ...), by which the coils are whitened; k-space is then in
            units of the noise, see `whitening_matrix`.
        num_coils, snr, phase_strength, seed: of images, see `simulate_volume`.
        max_memory: bytes of 3D k-space that are transformed at once; a larger scan is read several times.
        acquisition: name of the contrast.
        attributes: further attributes of the volume.

    Raises:
        ValueError: if the file is broken, is not finite, or an argument does not fit.
        OSError: if a file cannot be read, or the volume cannot be written.
    """
    layout = read_layout(source, kind=kind, axes=axes, key=key)
    array = _open(source, key)
    whitener = None if noise is None else _read_whitener(noise, source, array.shape, layout)
    common: dict[str, Any] = {
        "mask": None if mask is None else _read_mask(mask),
        "acquisition": acquisition or "UNKNOWN",
    }
    attributes = {"source_format": "NumPy", **(attributes or {})}
    arranged = _arrange(array, layout.axes)
    try:
        if not layout.is_image:
            write_kspace(
                output,
                arranged,
                along_readout="readout" in layout.axes,
                whitener=whitener,
                max_memory=max_memory,
                attributes=attributes,
                **common,
            )
            return
        simulation: dict[str, Any] = {"snr": snr, "phase_strength": phase_strength, "seed": seed}
        attributes = {f"simulated_{name}": value for name, value in simulation.items()} | attributes
        images = arranged.astype(np.complex64 if np.iscomplexobj(arranged) else np.float32)
        simulate_volume(output, images, num_coils=num_coils, attributes=attributes, **simulation, **common)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def read_layout(
    source: Path,
    *,
    kind: Literal["auto", "kspace", "image"] = "auto",
    axes: str | None = None,
    key: str | None = None,
) -> ArrayLayout:
    """The layout of an array, from its file's header.

    Args:
        source, kind, axes, key: see `convert_numpy`.

    Raises:
        ValueError: if the file is broken, or an argument does not fit.
        OSError: if it cannot be read.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    shape, dtype = _read_header(source, key)
    if dtype.kind not in "biufc":
        raise ValueError(f"{source} must have an array of numbers, got {dtype}")
    if kind == "kspace" and dtype.kind != "c":
        raise ValueError(f"{source}: k-space must be complex, got {dtype}")
    is_image = kind == "image" or (kind == "auto" and dtype.kind != "c")
    defaults = IMAGE_AXES if is_image else KSPACE_AXES
    word = "images" if is_image else "k-space"
    if axes is None and len(shape) not in defaults:
        raise ValueError(
            f"{source}: {word} must have one of the axes {'; '.join(defaults.values())}, got the shape {shape}: "
            f"name its axes"
        )
    names = tuple((defaults[len(shape)] if axes is None else axes).replace(" ", "").split(","))
    known = {"slices", "rows", "cols"} if is_image else {"slices", "readout", "coils", "rows", "cols"}
    fits = len(set(names)) == len(names) and {"rows", "cols"} <= set(names) <= known
    if not fits or {"slices", "readout"} <= set(names):
        raise ValueError(
            f"axes of {word} must be rows, cols and at most {', '.join(sorted(known - {'rows', 'cols'}))}"
            f"{'' if is_image else ' (slices or readout)'}, each once, got {axes!r}"
        )
    if len(names) != len(shape):
        raise ValueError(f"{source}: axes must have {len(shape)} names for the shape {shape}, got {','.join(names)}")
    return ArrayLayout(names, is_image)


def _read_header(source: Path, key: str | None) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array, without reading it."""
    if source.suffix.lower() != ".npz":
        array = _open(source, key)
        return array.shape, array.dtype
    name = _find_key(source, key)
    with _reading(source), zipfile.ZipFile(source) as archive, archive.open(f"{name}.npy") as file:
        if np.lib.format.read_magic(file) == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        return shape, dtype


def _find_key(source: Path, key: str | None) -> str:
    with _reading(source), zipfile.ZipFile(source) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    if key is not None:
        found = [key] if key in names else []
    else:
        found = names if len(names) == 1 else [name for name in KEYS if name in names]
    if len(found) != 1:
        wanted = f"named {' or '.join(KEYS)}, or a single one" if key is None else f"named {key}"
        raise ValueError(f"{source} must have an array {wanted}, got {', '.join(names) or 'none'}: name its key")
    return found[0]


def _open(source: Path, key: str | None = None) -> np.ndarray:
    """The array of a file; that of a ``.npy`` file is mapped into memory."""
    if source.suffix.lower() == ".npz":
        name = _find_key(source, key)
        with _reading(source), np.load(source, allow_pickle=False) as archive:
            return archive[name]
    with _reading(source):
        array = np.load(source, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{source} is a .npz archive under another name: rename it")
    return array


@contextlib.contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Errors that name the file."""
    try:
        yield
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{source} is not a NumPy file of numbers, or it is truncated ({error})") from error


def _arrange(array: np.ndarray, axes: tuple[str, ...]) -> np.ndarray:
    """The array as (slices or readout, [coils,] rows, cols)."""
    order = [axes.index(name) for name in ("slices", "readout", "coils", "rows", "cols") if name in axes]
    arranged = array.transpose(order)
    return arranged if {"slices", "readout"} & set(axes) else arranged[None]


def _read_mask(path: Path) -> np.ndarray:
    mask = _open(path)
    if mask.dtype.kind not in "biuf" or not np.isfinite(mask).all() or not mask.any():
        raise ValueError(f"mask must have zeros and ones, got {path} with {mask.dtype} values")
    return np.asarray(mask) != 0


def _read_whitener(noise: Path, source: Path, shape: tuple[int, ...], layout: ArrayLayout) -> np.ndarray:
    """The matrix that whitens the coils of a scan, from its scan of noise."""
    if "coils" not in layout.axes:
        raise ValueError(f"noise must be left out for images and a single coil, got {noise} for {source}")
    scan, coils = _open(noise), shape[layout.axes.index("coils")]
    if scan.ndim < 2 or len(scan) != coils:
        raise ValueError(f"noise must be of shape ({coils}, ...) for {source}, got {scan.shape} in {noise}")
    try:
        return whitening_matrix(noise_covariance(scan))
    except ValueError as error:
        raise ValueError(f"{noise}: {error}") from error
