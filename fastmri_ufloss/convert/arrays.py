"""Arrays in files: NumPy's ``.npy`` and ``.npz``, and BART's pairs of ``.cfl`` and ``.hdr``."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastmri_ufloss.checks import check
from fastmri_ufloss.convert.volumes import naming, naming_source, scan_images, whitening_matrix, write_kspace
from fastmri_ufloss.data.volume_files import check_declared
from fastmri_ufloss.simulation.volume_file import write_volume

__all__ = ["convert_bart", "convert_numpy", "open_cfl", "open_numpy", "read_layout"]

KEYS = ("kspace", "images")  # of .npz files with several arrays
KSPACE_AXES = {2: "rows,cols", 3: "coils,rows,cols", 4: "slices,coils,rows,cols"}
IMAGE_AXES = {2: "rows,cols", 3: "slices,rows,cols"}
BART_DIMENSIONS = (
    *("readout", "phase 1", "phase 2", "coils", "maps", "echo time", "coefficients", "coefficients 2"),
    *("iterations", "cyclic shifts", "time", "time 2", "levels", "slices", "averages", "batches"),
)
BART_UNUSED = (4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15)


@naming_source
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
    """Write an array of a ``.npy`` or ``.npz`` file as a fastMRI volume: k-space as it is, images as if scanned.

    K-space is centered and unitary: ``image = fftshift(ifft2(ifftshift(kspace), norm="ortho"))``. With gaps of zeros
    it gets a mask, without an axis of coils it becomes single-coil data. The values of images stay as they are;
    k-space is made of them by `simulate_kspace`.

    Args:
        kind: ``"auto"`` takes complex arrays for k-space and real ones for magnitude images.
        axes: names of the array's axes, in order, with commas: ``rows`` and ``cols``, and ``slices`` or ``coils``;
            ``readout`` instead of ``slices`` for 3D k-space, which is transformed along it. By default
            ``slices,coils,rows,cols`` for k-space and ``slices,rows,cols`` for images, or the last ones of these.
        key: name of the array in a ``.npz`` file; by default the only one, or ``kspace``, or ``images``.
        mask: a ``.npy`` file with what was sampled, (cols,) or (rows, cols); by default the zeros tell.
        noise: a ``.npy`` file with a scan of noise, (coils, ...), by which the coils are whitened, see
            `whitening_matrix`.
        num_coils, snr, phase_strength, seed: of images, see `simulate_kspace`.

    Raises:
        ValueError: if the file is broken, is not finite, or an argument does not fit.
    """
    names, is_image = read_layout(source, kind=kind, axes=axes, key=key)
    array = open_numpy(source, key)
    coils = array.shape[names.index("coils")] if "coils" in names else None
    whitener = None
    if noise is not None:
        check(coils is not None, "noise", "left out for images and a single coil", noise)
        scan = open_numpy(noise)
        check(scan.shape[:1] == (coils,), "noise", f"of shape ({coils}, ...)", f"{scan.shape} in {noise}")
        with naming(noise):
            whitener = whitening_matrix(scan).astype(np.complex64)
    sampled = None if mask is None else np.asarray(open_numpy(mask))
    if sampled is not None:
        fits = sampled.dtype.kind in "biuf" and np.isfinite(sampled).all() and sampled.any()
        check(bool(fits), "mask", "zeros and ones", f"{mask} with {sampled.dtype} values")
        sampled = sampled != 0
    order = [names.index(name) for name in ("slices", "readout", "coils", "rows", "cols") if name in names]
    array = array.transpose(order)
    array = array if {"slices", "readout"} & {*names} else array[None]
    attributes = {"source_format": "NumPy", **(attributes or {})}
    if is_image:
        images = array.astype(np.complex64 if np.iscomplexobj(array) else np.float32)
        slices, shape, simulated = scan_images(images, num_coils, snr, phase_strength, seed)
        attributes = {**simulated, **attributes}
        write_volume(output, slices, shape=shape, mask=sampled, acquisition=acquisition, attributes=attributes)
        return
    write_kspace(
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
    check(kind in ("auto", "kspace", "image"), "kind", "one of auto, kspace, image", repr(kind))
    header = open_numpy(source, key, header_only=True)
    shape, dtype = header.shape, header.dtype
    check(dtype.kind in "biufc", "the array", "of numbers", dtype)
    check(kind != "kspace" or dtype.kind == "c", "k-space", "complex", dtype)
    is_image = kind == "image" or (kind == "auto" and dtype.kind != "c")
    word, defaults = ("images", IMAGE_AXES) if is_image else ("k-space", KSPACE_AXES)
    if axes is None:
        known = f"of the axes {'; '.join(defaults.values())}"
        check(len(shape) in defaults, word, known, f"the shape {shape}: name its axes")
        axes = defaults[len(shape)]
    names = tuple(axes.replace(" ", "").split(","))
    further = {*names} - {"rows", "cols"}
    fits = len({*names}) == len(names) == len(further) + 2 and not further >= {"slices", "readout"}
    fits = fits and further <= ({"slices"} if is_image else {"slices", "readout", "coils"})
    layout = f"rows, cols and at most {'slices' if is_image else 'coils, and slices or readout'}, each once"
    check(fits, f"axes of {word}", layout, repr(axes))
    check(len(names) == len(shape), "axes", f"{len(shape)} names for the shape {shape}", repr(axes))
    return names, is_image


def open_numpy(
    source: Path, key: str | None = None, *, names: Sequence[str] = KEYS, header_only: bool = False
) -> np.ndarray:
    """The array of a ``.npy`` file, mapped into memory, or of a ``.npz`` file: the only one, or that of ``names``.

    With ``header_only``, an array of the same shape and type may have other values.

    Raises:
        ValueError: if the file is broken, or has no such array.
    """
    with _reading(source):
        content = np.load(source, mmap_mode="r", allow_pickle=False)
    if isinstance(content, np.ndarray):
        return content
    with content:
        fitting = [name for name in (names if key is None else (key,)) if name in content.files]
        if key is None and len(content.files) == 1:
            fitting = content.files
        if len(fitting) != 1:
            text = f"{', '.join(names[:-1])} or {names[-1]}, or a single one" if key is None else key
            got = ", ".join(content.files) or "none"
            raise ValueError(f"{source} must have an array named {text}, got {got}: name its key")
        with _reading(source):
            file = content.zip.open(f"{fitting[0]}.npy")
            is_first = np.lib.format.read_magic(file) == (1, 0)
            read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            stored = content.zip.getinfo(f"{fitting[0]}.npy").compress_size
            check_declared(math.prod(shape) * dtype.itemsize, stored, where=fitting[0])
            return np.broadcast_to(np.empty((), dtype), shape) if header_only else content[fitting[0]]


@contextlib.contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Errors that name the file."""
    try:
        yield
    except Exception as error:  # of a forged header, numpy raises of many kinds
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(f"{source} is not a NumPy file of numbers, or it is truncated ({error})") from error


def open_cfl(path: Path) -> np.ndarray:
    """The array of a ``.cfl`` file and its ``.hdr``, mapped into memory: complex64, with BART's 16 dimensions.

    Raises:
        ValueError: if the header is broken, or the data have another size than it says.
    """
    header = path.with_suffix(".hdr")
    if not header.is_file():
        raise FileNotFoundError(f"no file {header} with the sizes of {path.name}")
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


@naming_source
def convert_bart(
    source: Path,
    output: Path,
    *,
    max_memory: int = 2**30,
    acquisition: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write k-space of BART, a ``.cfl`` file with its ``.hdr`` beside it, as a fastMRI volume.

    The k-space is centered and unitary, as that of ``bart fft -u``. In 2D, BART's dimension 0 becomes rows, 1
    columns, 3 coils and 13 slices. In 3D (dimension 2 is larger than 1), the readout (0) is transformed and becomes
    slices, 1 rows and 2 columns. K-space with gaps of zeros gets a mask, as of `write_kspace`.

    Raises:
        ValueError: if the file is broken, is not finite, or has another dimension larger than 1.
    """
    array = open_cfl(source)
    for axis in BART_UNUSED:
        got = f"{array.shape[axis]}: take one with 'bart slice {axis} INDEX', or combine them"
        check(array.shape[axis] == 1, f"dimension {axis} ({BART_DIMENSIONS[axis]})", "1", got)
    array = array.squeeze(BART_UNUSED)
    is_3d = array.shape[2] > 1
    if is_3d and array.shape[4] > 1:
        raise ValueError("only one of dimensions 2 (phase 2) and 13 (slices) may be larger than 1")
    write_kspace(
        output,
        array[..., 0].transpose(0, 3, 1, 2) if is_3d else array[:, :, 0].transpose(3, 2, 0, 1),
        along_readout=is_3d,
        max_memory=max_memory,
        acquisition=acquisition,
        attributes={"source_format": "BART", **(attributes or {})},
    )
