"""What a user names on the command line of the report: folders of methods and of references, networks."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.report.reconstructions import reference_kind
from fastmri_ufloss.report.scores.score_settings import FeatureNetFile

__all__ = ["check_choice", "parse_networks", "parse_references", "parse_results"]

LEADERBOARD_FOLDER = "reconstructions"  # of a recipe's run, whose own folder has the name
SUFFIXES = (".h5", ".hdf5")


def parse_results(texts: Sequence[str]) -> dict[str, Path]:
    """Folders of methods by name.

    Args:
        texts: ``NAME=FOLDER`` or ``FOLDER``, which is named by itself, or by the folder that it is in if it is called
            ``reconstructions``. A folder without volumes stands for all its folders that have some.

    Raises:
        FileNotFoundError: if a folder is missing, or neither it nor its folders have volumes.
        ValueError: if a text has no folder, or two methods have one name.
    """
    folders: list[tuple[str, Path]] = []
    for text in texts:
        name, folder = _split("RESULTS", text)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder} of {text!r}")
        if _volumes(folder):
            folders.append((name or _name_of(folder), folder))
            continue
        inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and _volumes(path)]
        if not inside:
            raise FileNotFoundError(f"no HDF5 volumes (*.h5) in {folder}, nor in its folders")
        folders += [(f"{name}/{path.name}" if name else _name_of(path), path) for path in inside]
    return _by_name("RESULTS", folders)


def parse_references(texts: Sequence[str]) -> dict[str, Path]:
    """Folders of references by name.

    Args:
        texts: ``NAME=FOLDER`` or ``FOLDER``, which is called RSS (ESC of a single coil) if it has fastMRI volumes,
            ``reference`` if it has leaderboard files.

    Raises:
        FileNotFoundError: if a folder is missing or has no volumes.
        ValueError: if a text has no folder, two have one name, or no file can be read.
    """
    folders = []
    for text in texts:
        name, folder = _split("--reference", text)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder} of the reference {text!r}")
        folders.append((name or _kind_of(folder), folder))
    return _by_name("--reference", folders)


def parse_networks(
    scoring: Sequence[str], trained_on: Sequence[str], *, with_kspace: bool
) -> tuple[FeatureNetFile, ...]:
    """The feature networks of UFLoss: those to score with, then those that a method was trained with.

    A single network of each kind needs no name; of several, each is called by its name, or else by its folder. A
    network that is named for both, by any name, has been trained with.

    Args:
        scoring, trained_on: ``NAME=FILE`` or ``FILE``.
        with_kspace: whether there is k-space, which complex images need for their phase.

    Raises:
        FileNotFoundError, ValueError: if a file cannot be read, two networks have one name, or the images of the
            network cannot be made.
    """
    trained = [_split("--trained_on", text) for text in trained_on]
    digests = {_digest(path) for _, path in trained}
    scored = [_split("--feature_net", text) for text in scoring]
    scored = [(name, path) for name, path in scored if _digest(path) not in digests]
    nets: dict[str, FeatureNetFile] = {}
    for given, is_trained in ((scored, False), (trained, True)):
        for name, path in given:
            chans = int(PatchFeatureNet.load(path).in_chans)
            if chans == 2 and not with_kspace:
                raise ValueError(
                    f"{path} is a feature network of in_chans 2, of complex images, and magnitudes have no phase: "
                    "give --kspace, or a network of in_chans 1"
                )
            if not name and len(given) > 1:  # the networks of all runs have one file name
                name = path.resolve().parent.name if path.stem == "feature_net" else path.stem
            net = FeatureNetFile(path, chans, name, is_trained)
            if net.metric in nets:
                raise ValueError(f"two feature networks would both be {net.metric!r}: name them with NAME=FILE")
            nets[net.metric] = net
    return tuple(nets.values())


def check_choice(flag: str, value: str | None, choices: Mapping[str, Any] | Sequence[str]) -> str:
    """The value, or the first choice if it is None.

    Raises:
        ValueError: if it is none of the choices.
    """
    if value is None:
        return next(iter(choices))
    if value not in choices:
        raise ValueError(f"{flag} must be one of {', '.join(choices)}; got {value!r}")
    return value


def _digest(path: Path) -> str:
    """A path that is no file is refused when it is loaded."""
    return hashlib.sha256(path.read_bytes() if path.is_file() else str(path).encode()).hexdigest()


def _split(flag: str, text: str) -> tuple[str, Path]:
    """Name and path of a text; a path may have an equals sign in it."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return "", Path(text)
    if not name.strip() or not path:
        raise ValueError(f"{flag} must be given as NAME=PATH or PATH, got {text!r}")
    return name.strip(), Path(path)


def _by_name(flag: str, folders: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    by_name: dict[str, Path] = {}
    for name, folder in folders:
        if name in by_name:
            raise ValueError(
                f"{flag} must have different names, got {name!r} of {by_name[name]} and {folder}: name them with "
                "NAME=FOLDER"
            )
        by_name[name] = folder
    return by_name


def _name_of(folder: Path) -> str:
    folder = folder.resolve()
    return folder.parent.name if folder.name == LEADERBOARD_FOLDER else folder.name


def _kind_of(folder: Path) -> str:
    """What the first file of a folder of references that can be read has."""
    errors = []
    for path in _volumes(folder):
        try:
            return reference_kind(path)
        except ValueError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    raise FileNotFoundError(f"no HDF5 volumes (*.h5) in {folder}, the folder of a reference")


def _volumes(folder: Path) -> list[Path]:
    paths = (path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES)
    return [path for path in paths if path.is_file() and not path.name.startswith(".")]
