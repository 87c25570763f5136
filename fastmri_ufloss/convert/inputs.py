"""The formats that can be converted, and their files."""

import hashlib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmri_ufloss.convert.arrays import read_layout

__all__ = ["FORMATS", "InputFormat", "find_inputs", "load_converter", "peek", "stamp_of", "volume_name"]

INSTALL = "pip install 'fastmri-ufloss[convert]'"


@dataclass(frozen=True)
class InputFormat:
    """A format.

    Args:
        title: its name in messages.
        module, function: where its converter is; imported when needed, since some need further packages.
        suffixes: of its files.
        simulated: k-space is made of images.
    """

    title: str
    module: str
    function: str
    suffixes: tuple[str, ...]
    simulated: bool = False


FORMATS = {
    "ismrmrd": InputFormat("ISMRMRD", "ismrmrd_raw", "convert_ismrmrd", (".h5", ".hdf5", ".mrd")),
    "bart": InputFormat("BART", "bart", "convert_bart", (".cfl",)),
    "numpy": InputFormat("NumPy", "arrays", "convert_numpy", (".npy", ".npz")),
    "nifti": InputFormat("NIfTI", "nifti", "convert_nifti", (".nii.gz", ".nii"), simulated=True),
    "dicom": InputFormat("DICOM", "dicom", "convert_dicom", (".dcm", ".ima"), simulated=True),
}


def load_converter(name: str) -> Callable[..., None]:
    """The function that converts a file of a format.

    Raises:
        ImportError: if a package is missing; the message says how to install it.
    """
    entry = FORMATS[name]
    try:
        module = importlib.import_module(f"fastmri_ufloss.convert.{entry.module}")
    except ImportError as error:
        raise ImportError(explain_import(name, error)) from error
    converter: Callable[..., None] = getattr(module, entry.function)
    return converter


def explain_import(name: str, error: ImportError) -> str:
    """What to install."""
    return f"{FORMATS[name].title} files need a package that is missing ({error}): {INSTALL}"


def find_inputs(name: str, inputs: Iterable[str | Path]) -> list[Path]:
    """The inputs of a format, one for each volume: files, or folders of one DICOM series.

    Args:
        name: of the format.
        inputs: files, and folders whose files are taken; for DICOM, folders in them too.

    Returns:
        Paths in the order of the inputs, each once.

    Raises:
        ValueError: if an input is missing or not of the format, or a folder has none.
    """
    entry = FORMATS[name]
    found: dict[Path, Path] = {}
    for given in map(Path, inputs):
        path = given
        if name == "bart" and not given.is_dir():
            path = given.with_suffix(".cfl") if given.suffix == ".hdr" else given
            path = path if path.suffix == ".cfl" else Path(f"{given}.cfl")  # BART names files without
        if path.is_dir():
            of_folder = list(_dicom_folders(path)) if name == "dicom" else _files(entry, path)
            if not of_folder:
                raise ValueError(f"no {entry.title} files ({_patterns(entry)}) in {path}")
        elif not path.is_file():
            raise ValueError(f"no file or folder {given}")
        elif not (_is_dicom(path) if name == "dicom" else _has_suffix(entry, path)):
            raise ValueError(f"{path} is no {entry.title} file ({_patterns(entry)})")
        else:
            of_folder = [path]
        found.update((one.resolve(), one) for one in of_folder if one.resolve() not in found)
    if not found:
        raise ValueError("no inputs were given")
    return list(found.values())


def volume_name(name: str, source: Path) -> str:
    """The file name of the volume of an input."""
    if source.is_dir():
        return f"{source.resolve().name}.h5"
    suffix = next((one for one in FORMATS[name].suffixes if source.name.lower().endswith(one)), "")
    return f"{source.name[: len(source.name) - len(suffix)]}.h5"


def stamp_of(path: Path) -> dict[str, Any]:
    """What tells an input, or a file that a setting names, from a later version of itself.

    Args:
        path: a file, or a folder of DICOM files; a ``.cfl`` file stands for its pair.

    Returns:
        ``name``, ``size`` in bytes, and ``mtime`` in ns, or a digest of several files' names, sizes and mtimes.
    """
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if _is_dicom(file)]
    else:
        files = [file for file in (path, path.with_suffix(".hdr")) if file == path or path.suffix == ".cfl"]
    states = [(file.name, file.stat()) for file in files if file.exists()]
    stamp = {"name": path.resolve().name, "size": sum(status.st_size for _, status in states)}
    if len(files) == 1 and states:
        return {**stamp, "mtime": states[0][1].st_mtime_ns}
    facts = repr([(file, status.st_size, status.st_mtime_ns) for file, status in states])
    return {**stamp, "digest": hashlib.sha256(facts.encode()).hexdigest()}


def peek(name: str, source: Path, settings: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether a volume gets an axis of coils, and whether it is simulated, before it is made."""
    if name == "numpy":
        try:
            layout = read_layout(source, **{one: settings[one] for one in ("kind", "axes", "key")})
        except (ValueError, OSError):  # its conversion will say so
            return True, False
        coils = settings["num_coils"] is not None if layout.is_image else "coils" in layout.axes
        return coils, layout.is_image
    return settings.get("num_coils", 0) is not None, FORMATS[name].simulated


def _files(entry: InputFormat, folder: Path) -> list[Path]:
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    return [path for path in files if _has_suffix(entry, path)]


def _has_suffix(entry: InputFormat, path: Path) -> bool:
    return path.name.lower().endswith(entry.suffixes)


def _patterns(entry: InputFormat) -> str:
    return ", ".join(f"*{suffix}" for suffix in entry.suffixes)


def _dicom_folders(folder: Path) -> Iterator[Path]:
    """Folders with DICOM files, at any depth; what is inside of one of them is not searched."""
    for path, folders, files in os.walk(folder):
        if any(_is_dicom(Path(path, name)) for name in files):
            folders.clear()
            yield Path(path)
        folders.sort()


def _is_dicom(path: Path) -> bool:
    """By the suffix, or the mark behind the preamble; a DICOMDIR lists files and has no image."""
    if not path.is_file() or path.name.startswith(".") or path.name.upper().startswith("DICOMDIR"):
        return False
    if path.suffix.lower() in FORMATS["dicom"].suffixes:
        return True
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"
