"""Converting many files: the formats and their files, what is done already, and doing the rest."""

import errno
import hashlib
import inspect
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fastmri_ufloss import files
from fastmri_ufloss.convert.arrays import convert_bart, convert_numpy, read_layout
from fastmri_ufloss.convert.dicom import SUFFIXES, convert_dicom, is_dicom
from fastmri_ufloss.convert.ismrmrd_raw import convert_ismrmrd
from fastmri_ufloss.convert.nifti import convert_nifti
from fastmri_ufloss.files import file_stamp, name_some, open_hdf5
from fastmri_ufloss.workers import interruptible, run_in_processes

__all__ = ["FORMATS", "find_inputs", "missing_jobs", "plan_jobs", "run_jobs", "stamp_of", "volume_name"]

VERSION = 1  # of the conversions; another one means other volumes from the same files
NEUTRAL = ("output", "attributes", "source", "max_memory")  # what a volume's values do not depend on
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class InputFormat:
    """A format: its name in messages, its converter and the suffixes of its files."""

    title: str
    convert: Callable[..., None]  # called with source, output and settings
    suffixes: tuple[str, ...]
    simulated: bool = False  # k-space is made of images

    def __str__(self) -> str:
        return f"{self.title} file ({', '.join(f'*{suffix}' for suffix in self.suffixes)})"


FORMATS = {
    "ismrmrd": InputFormat("ISMRMRD", convert_ismrmrd, (".h5", ".hdf5", ".mrd")),
    "bart": InputFormat("BART", convert_bart, (".cfl",)),
    "numpy": InputFormat("NumPy", convert_numpy, (".npy", ".npz")),
    "nifti": InputFormat("NIfTI", convert_nifti, (".nii.gz", ".nii"), simulated=True),
    "dicom": InputFormat("DICOM", convert_dicom, SUFFIXES, simulated=True),
}


@dataclass(frozen=True)
class Job:
    """A volume to be made, or to be changed: a function is called with source, output and settings."""

    source: Path
    output: Path
    function: Callable[..., bool | None]  # False says that nothing was to be done
    settings: Mapping[str, Any]
    size: int  # of the input, in bytes
    conversion: str = ""  # JSON text of all that the volume depends on, kept as its attribute of this name
    simulated: bool = False  # k-space is made of images


@dataclass
class Summary:
    """What came of jobs."""

    converted: list[Path] = field(default_factory=list)  # volumes that were made
    failed: dict[Path, str] = field(default_factory=dict)  # the reasons, by the volume
    warnings: list[str] = field(default_factory=list)  # each once
    kept: int = 0  # volumes for which nothing was to be done
    size: int = 0  # of what was converted, in bytes
    seconds: float = 0.0
    full: Path | None = None  # folder that had no space left, which ended it


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
    kind = FORMATS[name]
    paths: dict[Path, Path] = {}
    for given in map(Path, inputs):
        path = given
        if name == "bart" and not given.is_dir():
            path = given.with_suffix(".cfl") if given.suffix == ".hdr" else given
            path = path if path.suffix == ".cfl" else Path(f"{given}.cfl")  # BART names files without
        here = [path]
        if path.is_dir():
            here = list(_dicom_folders(path)) if name == "dicom" else list(files_in(path, kind.suffixes))
            if not here:
                raise ValueError(f"no {str(kind).replace('file', 'files')} in {path}")
        elif not path.is_file():
            raise ValueError(f"no file or folder {given}")
        elif not (_is_image(path) if name == "dicom" else path.name.lower().endswith(kind.suffixes)):
            raise ValueError(f"{path} is no {kind}")
        for place in here:
            paths.setdefault(place.resolve(), place)
    if not paths:
        raise ValueError("no inputs were given")
    return list(paths.values())


def files_in(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The files with these suffixes, in the order of their names; hidden ones are left out."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(suffixes):
            yield path


def stem_of(source: Path, suffixes: tuple[str, ...]) -> str:
    """The name of a file without a suffix, or of a folder."""
    if source.is_dir():
        return source.resolve().name
    suffix = next((suffix for suffix in suffixes if source.name.lower().endswith(suffix)), "")
    return source.name[: len(source.name) - len(suffix)]


def volume_name(name: str, source: Path) -> str:
    """The file name of the volume of an input."""
    return f"{stem_of(source, FORMATS[name].suffixes)}.h5"


def stamp_of(path: Path) -> dict[str, Any]:
    """What tells an input from a later version of itself: a file, a ``.cfl`` for its pair, or a folder of DICOM.

    Returns:
        ``name``, ``size`` in bytes, and ``mtime`` in ns, or a digest of several files' names, sizes and mtimes.
    """
    if path.is_dir():
        parts = [file for file in sorted(path.iterdir()) if _is_image(file)]
    else:
        parts = [path, path.with_suffix(".hdr")] if path.suffix == ".cfl" else [path]
    states: list[tuple[Any, ...]] = [(file.name, *file_stamp(file)) for file in parts if file.exists()]
    stamp = {"name": path.resolve().name, "size": sum(state[1] for state in states)}
    if len(parts) == 1 and states:
        return {**stamp, "mtime": states[0][2]}
    return {**stamp, "digest": hashlib.sha256(repr(states).encode()).hexdigest()}


def plan_jobs(
    name: str,
    inputs: Iterable[str | Path],
    output_path: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    split: Sequence[int] | None = None,
) -> list[Job]:
    """The volumes that inputs of a format give, in the order of their names.

    Args:
        name: of the format, see `FORMATS`.
        inputs: see `find_inputs`.
        output_path: folder for the volumes.
        settings: options of the format's converter, those that are not its defaults.
        split: numbers of volumes for training, validation and test: the volumes then go into the folders
            ``multicoil_train``, ``_val`` and ``_test`` of ``output_path`` (``singlecoil_`` without coils).

    Raises:
        ValueError: if an input is missing, two would give the same volume, an input would be written over, or
            ``split`` does not fit.
    """
    convert = FORMATS[name].convert
    call = inspect.signature(convert).bind("", "", **(settings or {}))
    call.apply_defaults()
    options = {option: value for option, value in call.arguments.items() if option not in NEUTRAL}
    facts = {option: _setting(option, value) for option, value in options.items()}
    sources: dict[str, Path] = {}
    for source in find_inputs(name, inputs):
        other = sources.setdefault(volume_name(name, source), source)
        if other != source:
            raise ValueError(f"{other} and {source} would both become {volume_name(name, source)}: rename one")
    if split is not None and (len(split) != len(SPLITS) or min(split) < 0 or sum(split) != len(sources)):
        raise ValueError(
            f"split must be three numbers, from 0, whose sum is that of the inputs, {len(sources)}, got {split}"
        )
    parts = [part for part, count in zip(SPLITS, split or (), strict=bool(split)) for _ in range(count)]
    jobs = []
    for index, (file, source) in enumerate(sorted(sources.items())):
        has_coils, simulated = _peek(name, source, options)
        place = f"{'multi' if has_coils else 'single'}coil_{parts[index]}" if parts else ""
        stamp = stamp_of(source)
        document = {"format": name, "version": VERSION, "source": stamp, "settings": facts}
        conversion = json.dumps(document, sort_keys=True)
        given = {**(settings or {}), "attributes": {"conversion": conversion}}
        jobs.append(Job(source, output_path / place / file, convert, given, stamp["size"], conversion, simulated))
    _check_places(jobs, output_path, is_split=bool(parts))
    return jobs


def missing_jobs(jobs: Sequence[Job], *, overwrite: bool = False) -> list[Job]:
    """Those jobs whose volumes are still to be made.

    Args:
        jobs: see `plan_jobs`.
        overwrite: make volumes anew that are there but were made otherwise.

    Raises:
        ValueError: if a volume is there that was made otherwise, or by something else.
    """
    missing, strangers = [], []
    for job in jobs:
        if job.output.exists():
            before = _conversion_of(job.output)
            if before == job.conversion:
                continue
            strangers.append(f"{job.output} ({_difference(before, job.conversion)})")
        missing.append(job)
    if strangers and not overwrite:
        raise ValueError(
            f"{len(strangers)} volumes are there but were made otherwise: {name_some(strangers, shown=3)}; choose "
            "another output_path, or overwrite"
        )
    return missing


def run_jobs(jobs: Sequence[Job], *, num_workers: int = 1) -> Summary:
    """Make volumes, with a progress bar. A job that fails does not stop the others; a full disk does.

    Args:
        jobs: see `missing_jobs`.
        num_workers: processes; the volumes do not depend on it.

    Raises:
        ValueError: if ``num_workers`` is below 1.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")
    summary, start = Summary(), time.monotonic()
    total = sum(job.size for job in jobs)
    with interruptible(), tqdm(total=total, unit="B", unit_scale=True, disable=not jobs) as bar:
        if min(num_workers, len(jobs)) > 1:
            outcomes = run_in_processes(_attempt, jobs, num_workers=min(num_workers, len(jobs)))
        else:
            outcomes = ((job, _attempt(job)) for job in jobs if not bar.set_postfix_str(job.source.name))
        for job, outcome in outcomes:
            error, is_full, made, texts = (outcome, False, False, []) if isinstance(outcome, str) else outcome
            bar.set_postfix_str(job.source.name, refresh=False)
            bar.update(job.size)
            summary.warnings += [text for text in texts if text not in summary.warnings]
            if is_full:
                summary.full = job.output.parent
                break
            if error is not None:
                summary.failed[job.output] = error
            elif made:
                summary.converted.append(job.output)
                summary.size += job.size
            else:
                summary.kept += 1
    summary.seconds = time.monotonic() - start
    return summary


def remove_leftovers(jobs: Iterable[Job]) -> list[Path]:
    """`fastmri_ufloss.files.remove_leftovers` of the jobs' volumes."""
    return files.remove_leftovers(job.output for job in jobs)


def _attempt(job: Job) -> tuple[str | None, bool, bool, list[str]]:
    """An error with the name of its file, whether the disk is full, whether something was made, and warnings."""
    reason, is_full, made = None, False, False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            made = job.function(job.source, job.output, **job.settings) is not False
        except Exception as error:  # readers of foreign files raise whatever they like
            is_full = _is_disk_full(error)
            known = isinstance(error, ValueError | OSError | ImportError) and str(error)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            reason = reason if str(job.source) in reason else f"{job.source}: {reason}"
    return reason, is_full, made, [str(text.message) for text in caught if issubclass(text.category, UserWarning)]


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):  # what HDF5 says when it closes a file
            return True
        error = error.__cause__ or error.__context__
    return False


def _peek(name: str, source: Path, settings: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether a volume gets an axis of coils, and whether it is simulated, before it is made."""
    if name == "numpy":
        try:
            axes, is_image = read_layout(source, **{option: settings[option] for option in ("kind", "axes", "key")})
        except (ValueError, OSError):  # its conversion will say so
            return True, False
        return settings["num_coils"] is not None if is_image else "coils" in axes, is_image
    return settings.get("num_coils", 0) is not None, FORMATS[name].simulated


def _setting(name: str, value: Any) -> Any:
    """A setting as a plain value; of a file, what tells it from another."""
    if not isinstance(value, Path):
        return value
    if not value.is_file():
        raise ValueError(f"{name} must be a file, got {value}")
    return stamp_of(value)


def _check_places(jobs: Sequence[Job], output_path: Path, *, is_split: bool) -> None:
    """No input is written over, and no volume gets into two splits."""
    if output_path.exists() and not output_path.is_dir():
        raise ValueError(f"output_path must be a folder, got the file {output_path}")
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.output.resolve() in sources:
            raise ValueError(f"{job.output} is an input: choose another output_path")
        for folder in split_folders(output_path) if is_split else ():
            if folder != job.output.parent and (folder / job.output.name).exists():
                raise ValueError(
                    f"{folder / job.output.name} is of another split, now it would go into {job.output.parent.name}: "
                    "split as before, or delete it"
                )


def split_folders(folder: Path) -> list[Path]:
    """The folders ``{multicoil,singlecoil}_{train,val,test}``."""
    return [folder / f"{challenge}_{part}" for challenge in ("multicoil", "singlecoil") for part in SPLITS]


def _conversion_of(volume: Path) -> str | None:
    try:
        with open_hdf5(volume) as file:
            conversion = file.attrs.get("conversion")
    except ValueError:
        return None
    return conversion if isinstance(conversion, str) else None


def _difference(before: str | None, conversion: str) -> str:
    """Which of the things that a volume depends on differ."""
    if before is None:
        return "by something else"
    then, now = json.loads(before), json.loads(conversion)
    names = [name for name in now if name != "settings" and then.get(name) != now[name]]
    settings = then.get("settings", {})
    names += [name for name, value in now["settings"].items() if name not in settings or settings[name] != value]
    return f"another {', '.join(names)}"


def _dicom_folders(folder: Path) -> Iterator[Path]:
    """Folders with DICOM files, at any depth; what is inside of one of them is not searched."""
    for path, folders, names in os.walk(folder):
        if any(_is_image(Path(path, name)) for name in names):
            folders.clear()
            yield Path(path)
        folders.sort()


def _is_image(path: Path) -> bool:
    """A DICOM file, by its suffix or its content; a DICOMDIR lists files and has no image."""
    if not path.is_file() or path.name.startswith(".") or path.name.upper().startswith("DICOMDIR"):
        return False
    return path.suffix.lower() in SUFFIXES or is_dicom(path)
