"""Folders that are named on a command line, [NAME=]FOLDER, by the names of methods and references."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from fastmri_ufloss.report.reconstructions import reference_kind

__all__ = ["method_folders", "reference_folders", "split_name"]

LEADERBOARD_FOLDER = "reconstructions"  # of a recipe's run, whose own folder has the name


def method_folders(texts: Sequence[str]) -> dict[str, Path]:
    """Folders of reconstructions by the methods' names; FileNotFoundError or ValueError names what does not fit."""
    return _parse_folders("RESULTS", texts, _method_folders)


def reference_folders(texts: Sequence[str]) -> dict[str, Path]:
    """Folders of fully sampled images by the references' names, as `method_folders`."""
    return _parse_folders("--reference", texts, _reference_folder)


def _parse_folders(
    flag: str, texts: Sequence[str], named: Callable[[str, Path], list[tuple[str, Path]]]
) -> dict[str, Path]:
    """The folders that texts stand for by name; ``named`` is given the name in a text, or nothing, and its folder."""
    folders: dict[str, Path] = {}
    for text in texts:
        given, folder = split_name(flag, text)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder} of {flag} {text!r}")
        for name, path in named(given, folder):
            if name in folders:
                raise ValueError(
                    f"{flag} must have different names, got {name!r} of {folders[name]} and {path}: name them with "
                    "NAME=FOLDER"
                )
            folders[name] = path
    return folders


def _method_folders(name: str, folder: Path) -> list[tuple[str, Path]]:
    """A folder without volumes stands for all its folders that have some."""
    if _list_files(folder):
        return [(name or _name_of(folder), folder)]
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and _list_files(path)]
    if not inside:
        raise FileNotFoundError(f"no HDF5 volumes (*.h5) in {folder}, nor in its folders")
    return [(f"{name}/{path.name}" if name else _name_of(path), path) for path in inside]


def _reference_folder(name: str, folder: Path) -> list[tuple[str, Path]]:
    """A folder without a name is called by what its first file that can be read has: RSS, ESC or ``reference``."""
    for path in () if name else _list_files(folder):
        with contextlib.suppress(ValueError):  # `Reconstructions` tells of the file
            return [(reference_kind(path), folder)]
    return [(name or "reference", folder)]


def split_name(flag: str, text: str) -> tuple[str, Path]:
    """Name and path of a text; a path may have an equals sign in it."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return "", Path(text)
    if not name.strip() or not path:
        raise ValueError(f"{flag} must be given as NAME=PATH or PATH, got {text!r}")
    return name.strip(), Path(path)


def _name_of(folder: Path) -> str:
    folder = folder.resolve()
    return folder.parent.name if folder.name == LEADERBOARD_FOLDER else folder.name


def _list_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("[!.]*")) if path.suffix in (".h5", ".hdf5") and path.is_file()]
