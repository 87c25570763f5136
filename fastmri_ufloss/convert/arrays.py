"""Arrays in files: NumPy's ``.npy`` and ``.npz``, and BART's pairs of ``.cfl`` and ``.hdr``."""

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastmri_ufloss.convert.volumes import naming, noise_covariance, scan_images, whitening_matrix, write_kspace
from fastmri_ufloss.data.checks import check
from fastmri_ufloss.simulation.volume_file import write_volume

__all__ = ["convert_bart", "convert_numpy", "open_cfl", "open_numpy", "read_layout"]

KINDS = ("auto", "kspace", "image")
KEYS = ("kspace", "images")  # of .npz files with several arrays
KSPACE_AXES = {2: "rows,cols", 3: "coils,rows,cols", 4: "slices,coils,rows,cols"}
IMAGE_AXES = {2: "rows,cols", 3: "slices,rows,cols"}
BART_DIMENSIONS = (
    *("readout", "phase 1", "phase 2", "coils", "maps", "echo time", "coefficients", "coefficients 2"),
    *("iterations", "cyclic shifts", "time", "time 2", "levels", "slices", "averages", "batches"),
)
BART_USED = ("readout", "phase 1", "phase 2", "coils", "slices")


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

    K-space is centered and unitary: ``image = fftshift(ifft2(ifftshift(kspace), norm="ortho"))``. With gaps of zeros
    it gets a mask, without an axis of coils it becomes single-coil data. The values of images stay as they are;
    k-space is made of them by `simulate_kspace`.

    Args:
        source: a ``.npy`` or ``.npz`` file.
        output: path of the volume.
        kind: ``"auto"`` takes complex arrays for k-space and real ones for magnitude images.
        axes: names of the array's axes, in order, with commas: ``rows`` and ``cols``, and ``slices`` or ``coils``;
            ``readout`` instead of ``slices`` for 3D k-space, which is transformed along it. By default
            ``slices,coils,rows,cols`` for k-space and ``slices,rows,cols`` for images, or the last ones of these.
        key: name of the array in a ``.npz`` file; by default the only one, or ``kspace``, or ``images``.
        mask: a ``.npy`` file with what was sampled, (cols,) or (rows, cols); by default the zeros tell.
        noise: a ``.npy`` file with a scan of noise, (coils, ...), by which the coils are whitened, see
            `whitening_matrix`.
        num_coils, snr, phase_strength, seed: of images, see `simulate_kspace`.
        max_memory: bytes of 3D k-space that are made at once; less takes longer, the volume is the same.
        acquisition: fastMRI's name of the contrast, such as AXT2.
        attributes: further attributes of the volume.

    Raises:
        ValueError: if the file is broken, is not finite, or an argument does not fit.
        OSError: if a file cannot be read, or the volume cannot be written.
    """
    names, is_image = read_layout(source, kind=kind, axes=axes, key=key)
    array = open_numpy(source, key)
    coils = array.shape[names.index("coils")] if "coils" in names else None
    whitener = None if noise is None else _read_whitener(noise, source, coils)
    sampled = None if mask is None else np.asarray(open_numpy(mask))
    if sampled is not None:
        fits = sampled.dtype.kind in "biuf" and np.isfinite(sampled).all() and sampled.any()
        check(bool(fits), "mask", "zeros and ones", f"{mask} with {sampled.dtype} values")
        sampled = sampled != 0
    attributes = {"source_format": "NumPy", **(attributes or {})}
    order = [names.index(name) for name in ("slices", "readout", "coils", "rows", "cols") if name in names]
    array = array.transpose(order)
    array = array if {"slices", "readout"} & {*names} else array[None]
    if is_image:
        images = array.astype(np.complex64 if np.iscomplexobj(array) else np.float32)
        with naming(source):
            slices, shape, simulated = scan_images(images, num_coils, snr, phase_strength, seed)
            write_volume(
                output,
                slices,
                shape=shape,
                mask=sampled,
                acquisition=acquisition or "UNKNOWN",
                attributes={**simulated, **attributes},
            )
        return
    write_kspace(
        source,
        output,
        array,
        along_readout="readout" in names,
        mask=sampled,
        whitener=whitener,
        max_memory=max_memory,
        acquisition=acquisition,
        attributes=attributes,
    )


def read_layout(
    source: Path, *, kind: str = "auto", axes: str | None = None, key: str | None = None
) -> tuple[tuple[str, ...], bool]:
    """The names of an array's axes and whether it has images, from its file's header; see `convert_numpy`."""
    check(kind in KINDS, "kind", f"one of {', '.join(KINDS)}", repr(kind))
    shape, dtype = _read_header(source, key)
    if dtype.kind not in "biufc":
        raise ValueError(f"{source} must have an array of numbers, got {dtype}")
    if kind == "kspace" and dtype.kind != "c":
        raise ValueError(f"{source}: k-space must be complex, got {dtype}")
    is_image = kind == "image" or (kind == "auto" and dtype.kind != "c")
    word, defaults = ("images", IMAGE_AXES) if is_image else ("k-space", KSPACE_AXES)
    if axes is None and len(shape) not in defaults:
        known = "; ".join(defaults.values())
        raise ValueError(f"{source}: {word} must have one of the axes {known}, got the shape {shape}: name its axes")
    names = tuple((defaults[len(shape)] if axes is None else axes).replace(" ", "").split(","))
    further = {*names} - {"rows", "cols"}
    fits = len({*names}) == len(names) == len(further) + 2 and not further >= {"slices", "readout"}
    fits = fits and further <= ({"slices"} if is_image else {"slices", "readout", "coils"})
    layout = f"rows, cols and at most {'slices' if is_image else 'coils, and slices or readout'}, each once"
    check(fits, f"axes of {word}", layout, repr(axes))
    if len(names) != len(shape):
        raise ValueError(f"{source}: axes must have {len(shape)} names for the shape {shape}, got {','.join(names)}")
    return names, is_image


def open_numpy(source: Path, key: str | None = None, *, names: Sequence[str] = KEYS) -> np.ndarray:
    """The array of a ``.npy`` file, mapped into memory, or of a ``.npz`` file: the only one, or that of ``names``.

    Raises:
        ValueError: if the file is broken, or has no such array.
    """
    with _reading(source):
        content = np.load(source, mmap_mode="r", allow_pickle=False)
    if isinstance(content, np.ndarray):
        return content
    with content:
        name = _find_key(source, key, names, content.files)
        with _reading(source):
            return content[name]


def _read_header(source: Path, key: str | None) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array, without reading it."""
    with _reading(source):
        content = np.load(source, mmap_mode="r", allow_pickle=False)
    if isinstance(content, np.ndarray):
        return content.shape, content.dtype
    with content:
        name = _find_key(source, key, KEYS, content.files)
        with _reading(source), content.zip.open(f"{name}.npy") as file:
            first = np.lib.format.read_magic(file) == (1, 0)
            read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            return shape, dtype


def _find_key(source: Path, key: str | None, usual: Sequence[str], names: Sequence[str]) -> str:
    fitting = [name for name in (usual if key is None else (key,)) if name in names]
    if key is None and len(names) == 1:
        fitting = [*names]
    if len(fitting) != 1:
        text = f"{', '.join(usual[:-1])} or {usual[-1]}, or a single one" if key is None else key
        raise ValueError(f"{source} must have an array named {text}, got {', '.join(names) or 'none'}: name its key")
    return fitting[0]


@contextlib.contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Errors that name the file."""
    try:
        yield
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{source} is not a NumPy file of numbers, or it is truncated ({error})") from error


def _read_whitener(noise: Path, source: Path, coils: int | None) -> np.ndarray:
    """The matrix that whitens the coils of a scan, from its scan of noise."""
    if coils is None:
        raise ValueError(f"noise must be left out for images and a single coil, got {noise} for {source}")
    scan = open_numpy(noise)
    if scan.ndim < 2 or len(scan) != coils:
        raise ValueError(f"noise must be of shape ({coils}, ...) for {source}, got {scan.shape} in {noise}")
    with naming(noise):
        return whitening_matrix(noise_covariance(scan))


def open_cfl(path: Path) -> np.ndarray:
    """The array of a ``.cfl`` file and its ``.hdr``, mapped into memory: complex64, with BART's 16 dimensions.

    Raises:
        ValueError: if the header is broken, or the data have another size than it says.
        OSError: if one of the two cannot be read.
    """
    header = path.with_suffix(".hdr")
    for file in (path, header):
        if not file.is_file():
            raise FileNotFoundError(f"no file {file}: BART's files are pairs of .cfl and .hdr")
    lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
    try:
        sizes = [int(size) for size in lines[lines.index("# Dimensions") + 1].split()]
    except (ValueError, IndexError) as error:
        raise ValueError(f"{header} has no line of sizes after a line '# Dimensions'") from error
    count = len(BART_DIMENSIONS)
    if not 1 <= len(sizes) <= count or min(sizes) < 1:
        raise ValueError(f"{header} must have 1 to {count} sizes, each at least 1, got {sizes}")
    expected, size = 8 * math.prod(sizes), path.stat().st_size
    if size != expected:
        raise ValueError(f"{path} must have {expected} bytes for the sizes in its .hdr, got {size}: is it truncated?")
    return np.memmap(path, dtype="<c8", mode="r", shape=(*sizes, *[1] * (count - len(sizes))), order="F")


def convert_bart(
    source: Path,
    output: Path,
    *,
    max_memory: int = 2**30,
    acquisition: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write k-space of BART as a fastMRI volume.

    The k-space is centered and unitary, as that of ``bart fft -u``. In 2D, BART's dimension 0 becomes rows, 1
    columns, 3 coils and 13 slices. In 3D (dimension 2 is larger than 1), the readout (0) is transformed and becomes
    slices, 1 rows and 2 columns. K-space with gaps of zeros gets a mask, see `write_kspace`.

    Args:
        source: a ``.cfl`` file with its ``.hdr`` beside it.
        output: path of the volume.
        max_memory: bytes of 3D k-space that are made at once; less takes longer, the volume is the same.
        acquisition: name of the contrast.
        attributes: further attributes of the volume.

    Raises:
        ValueError: if the file is broken, is not finite, or has another dimension larger than 1.
        OSError: if it cannot be read, or the volume cannot be written.
    """
    array = open_cfl(source)
    unused = [axis for axis, name in enumerate(BART_DIMENSIONS) if name not in BART_USED]
    for axis in unused:
        if array.shape[axis] > 1:
            advice = f"take one with 'bart slice {axis} INDEX', or combine them"
            name, size = BART_DIMENSIONS[axis], array.shape[axis]
            raise ValueError(f"{source}: dimension {axis} ({name}) must be 1, got {size}: {advice}")
    array = array.squeeze(tuple(unused))
    is_3d = array.shape[2] > 1
    if is_3d and array.shape[4] > 1:
        raise ValueError(f"{source}: only one of dimensions 2 (phase 2) and 13 (slices) may be larger than 1")
    write_kspace(
        source,
        output,
        array[..., 0].transpose(0, 3, 1, 2) if is_3d else array[:, :, 0].transpose(3, 2, 0, 1),
        along_readout=is_3d,
        max_memory=max_memory,
        acquisition=acquisition,
        attributes={"source_format": "BART", **(attributes or {})},
    )
