"""Converting many files: the formats and their files, what is done already, and doing the rest."""

import errno
import hashlib
import inspect
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fastmri_ufloss.checks import check
from fastmri_ufloss.convert.arrays import convert_bart, convert_numpy, read_layout
from fastmri_ufloss.convert.ismrmrd_raw import convert_ismrmrd
from fastmri_ufloss.convert.magnitudes import SUFFIXES, convert_dicom, convert_nifti, is_dicom
from fastmri_ufloss.convert.twix_raw import convert_twix
from fastmri_ufloss.data.volume_files import open_hdf5
from fastmri_ufloss.files import file_stamp, name_some
from fastmri_ufloss.workers import interruptible, run_in_processes

__all__ = ["FORMATS", "find_inputs", "missing_jobs", "name_volumes", "plan_jobs", "run_jobs", "stamp_of"]

VERSION = 1  # of the conversions; another one means other volumes from the same files
NEUTRAL = ("output", "attributes", "source", "max_memory")  # what a volume's values do not depend on
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class InputFormat:
    """A format: its name in messages, its converter and the suffixes of its files."""

    title: str
    convert: Callable[..., None]  # called with source, output and settings
    suffixes: tuple[str, ...]


FORMATS = {
    "ismrmrd": InputFormat("ISMRMRD", convert_ismrmrd, (".h5", ".hdf5", ".mrd")),
    "twix": InputFormat("TWIX", convert_twix, (".dat",)),
    "bart": InputFormat("BART", convert_bart, (".cfl",)),
    "numpy": InputFormat("NumPy", convert_numpy, (".npy", ".npz")),
    "nifti": InputFormat("NIfTI", convert_nifti, (".nii.gz", ".nii")),
    "dicom": InputFormat("DICOM", convert_dicom, SUFFIXES),
}


@dataclass(frozen=True)
class Job:
    """A volume to be made, or to be changed: a function is called with source, output and settings."""

    source: Path
    output: Path
    function: Callable[..., bool | None]  # False says that nothing was to be done
    settings: Mapping[str, Any]
    size: int  # of the input, in bytes
    conversion: str = ""  # JSON text of all that a new volume depends on, kept as its attribute of this name


@dataclass
class Summary:
    """What came of jobs."""

    converted: list[Path] = field(default_factory=list)  # volumes that were made
    failed: dict[Path, str] = field(default_factory=dict)  # the reasons, by the volume
    warnings: list[str] = field(default_factory=list)  # each once
    kept: list[Path] = field(default_factory=list)  # volumes for which nothing was to be done
    full: Path | None = None  # folder that had no space left, which ended it


def find_inputs(name: str, inputs: Iterable[str | Path]) -> list[Path]:
    """The inputs of a format, one for each volume, in their order and each once.

    Args:
        inputs: files, and folders whose files are taken; for DICOM, folders of a series, and folders of such.

    Raises:
        ValueError: if an input is missing or not of the format, or a folder has none.
    """
    suffixes = FORMATS[name].suffixes
    layout = f"{FORMATS[name].title} ({', '.join(f'*{suffix}' for suffix in suffixes)}), or a folder of such"
    paths: dict[Path, Path] = {}
    for given in map(Path, inputs):
        path = given
        if name == "bart" and not given.is_dir() and given.suffix != ".cfl":  # as BART names files
            path = given.with_suffix(".cfl") if given.suffix == ".hdr" else Path(f"{given}.cfl")
        if name == "dicom":
            here = [*_dicom_folders(path)] if path.is_dir() else [*filter(is_dicom, [path])]
        else:
            here = [*files_in(path, suffixes)]
        check(bool(here), str(given), layout, "none" if path.exists() else "no file or folder")
        for place in here:
            paths.setdefault(place.resolve(), place)
    return list(paths.values())


def files_in(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files with these suffixes in a folder, in the order of their names, but hidden ones; or the file itself."""
    files = [file for file in sorted(path.iterdir()) if not file.name.startswith(".")] if path.is_dir() else [path]
    return [file for file in files if file.is_file() and file.name.lower().endswith(suffixes)]


def _dicom_folders(folder: Path) -> Iterator[Path]:
    """Folders with DICOM files, at any depth; what is inside of one of them is not searched."""
    for path, folders, names in os.walk(folder):
        if any(is_dicom(Path(path, name)) for name in names):
            folders.clear()
            yield Path(path)
        folders.sort()


def name_volumes(sources: Iterable[Path], suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files with these suffixes, and folders, by the file names of their volumes; ValueError for two of one name."""
    named: dict[str, Path] = {}
    for source in sources:
        name = os.path.basename(os.path.abspath(source))
        suffix = next((suffix for suffix in suffixes if name.lower().endswith(suffix) and not source.is_dir()), "")
        volume = f"{name[: len(name) - len(suffix)]}.h5"
        if named.setdefault(volume, source).resolve() != source.resolve():
            raise ValueError(f"{named[volume]} and {source} are both for {volume}: rename one, or leave one out")
    return dict(sorted(named.items()))


def stamp_of(path: Path) -> dict[str, Any]:
    """What tells an input from a later version of itself: a file, a ``.cfl`` for its pair, or a folder of DICOM."""
    parts = sorted(filter(is_dicom, path.iterdir())) if path.is_dir() else [path]
    if path.suffix == ".cfl":
        parts.append(path.with_suffix(".hdr"))
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
        name, inputs: see `find_inputs`.
        settings: options of the format's converter, those that are not its defaults.
        split: numbers of volumes for the folders ``multicoil_train``, ``_val`` and ``_test`` of ``output_path``
            (``singlecoil_`` without coils).

    Raises:
        ValueError: if inputs or ``split`` do not fit, or a file is in the way, such as an input.
    """
    if output_path.exists() and not output_path.is_dir():
        raise ValueError(f"output_path must be a folder, got the file {output_path}")
    convert, settings = FORMATS[name].convert, settings or {}
    call = inspect.signature(convert).bind("", "", **settings)
    call.apply_defaults()
    options = {option: value for option, value in call.arguments.items() if option not in NEUTRAL}
    facts = dict(options)
    for option, value in options.items():
        if isinstance(value, Path):
            check(value.is_file(), option, "a file", value)
            facts[option] = stamp_of(value)
    sources = name_volumes(find_inputs(name, inputs), FORMATS[name].suffixes)
    if split is not None:
        fits = len(split) == len(SPLITS) and min(split) >= 0 and sum(split) == len(sources)
        check(fits, "split", f"three numbers, from 0, whose sum is that of the inputs, {len(sources)}", split)
    parts = [part for part, count in zip(SPLITS, split or (), strict=bool(split)) for _ in range(count)]
    taken = {Path(os.path.realpath(source)) for source in sources.values()}
    jobs = []
    for index, (volume, source) in enumerate(sources.items()):
        output = output_path / volume
        if parts:
            coils = "multi" if _has_coils(name, source, options) else "single"
            output = output_path / f"{coils}coil_{parts[index]}" / volume
            for other in (folder / volume for folder in split_folders(output_path)):
                if other != output and other.exists():
                    place = f"{output.parent.name}: split as before, or delete it"
                    raise ValueError(f"{other} is of another split, now it would go into {place}")
        if Path(os.path.realpath(output)) in taken:
            raise ValueError(f"{output} is an input: choose another output_path")
        stamp = stamp_of(source)
        document = {"format": name, "version": VERSION, "source": stamp, "settings": facts}
        conversion = json.dumps(document, sort_keys=True)
        given = {**settings, "attributes": {"conversion": conversion}}
        jobs.append(Job(source, output, convert, given, stamp["size"], conversion))
    return jobs


def _has_coils(name: str, source: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a volume gets an axis of coils, before it is made."""
    if name == "numpy":
        try:
            axes, is_image = read_layout(source, **{option: settings[option] for option in ("kind", "axes", "key")})
        except (ValueError, OSError):  # its conversion will say so
            return True
        if not is_image:
            return "coils" in axes
    return settings.get("num_coils", 0) is not None


def split_folders(folder: Path) -> list[Path]:
    """The folders ``{multicoil,singlecoil}_{train,val,test}``."""
    return [folder / f"{challenge}_{part}" for challenge in ("multicoil", "singlecoil") for part in SPLITS]


def missing_jobs(jobs: Sequence[Job], *, overwrite: bool = False) -> list[Job]:
    """Those jobs whose volumes are still to be made or changed; with ``overwrite`` also those made otherwise.

    Raises:
        ValueError: without ``overwrite``, if a volume is there that was made otherwise, or by something else.
    """
    missing, strangers = [], []
    for job in jobs:
        if job.conversion and job.output.exists():
            difference = _difference(job)
            if not difference:
                continue
            strangers.append(f"{job.output} ({difference})")
        missing.append(job)
    if strangers and not overwrite:
        listed = f"{name_some(strangers, shown=3)}; choose another output_path, or overwrite"
        raise ValueError(f"{len(strangers)} volumes are there but were made otherwise: {listed}")
    return missing


def _difference(job: Job) -> str:
    """What differs between a volume that is there and the job's, empty if nothing does."""
    try:
        with open_hdf5(job.output) as file:
            conversion = file.attrs.get("conversion")
    except ValueError:
        conversion = None
    if conversion == job.conversion:
        return ""
    if not isinstance(conversion, str):
        return "by something else"
    documents = json.loads(conversion), json.loads(job.conversion)
    then, now = ({**document, **document.get("settings", {}), "settings": None} for document in documents)
    return f"another {', '.join(name for name in now if name not in then or then[name] != now[name])}"


def run_jobs(jobs: Sequence[Job], *, num_workers: int = 1) -> Summary:
    """Make volumes in processes, with a progress bar; a job that fails does not stop the others, a full disk does.

    Raises:
        ValueError: if ``num_workers`` is below 1.
    """
    check(num_workers >= 1, "num_workers", "at least 1", num_workers)
    num_workers = min(num_workers, len(jobs))
    summary = Summary()
    size = sum(job.size for job in jobs)
    with interruptible(), tqdm(total=size, unit="B", unit_scale=True, disable=not jobs) as bar:
        outcomes: Iterable[tuple[Job, Summary | str]] = ((job, _attempt(job)) for job in jobs)
        if num_workers > 1:
            outcomes = run_in_processes(_attempt, jobs, num_workers=num_workers)
        for job, outcome in outcomes:
            part = Summary(failed={job.output: outcome}) if isinstance(outcome, str) else outcome
            bar.set_postfix_str(job.source.name, refresh=False)
            bar.update(job.size)
            summary.warnings += [text for text in part.warnings if text not in summary.warnings]
            summary.converted += part.converted
            summary.failed |= part.failed
            summary.kept += part.kept
            if part.full is not None:
                summary.full = part.full
                break
    return summary


def _attempt(job: Job) -> Summary:
    """What comes of a job; errors have the name of its file."""
    summary = Summary()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            is_new = job.function(job.source, job.output, **job.settings) is not False
            (summary.converted if is_new else summary.kept).append(job.output)
        except Exception as error:  # readers of foreign files raise whatever they like
            known = isinstance(error, ValueError | OSError | ImportError) and str(error)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            if _is_disk_full(error):
                summary.full = job.output.parent
            else:
                summary.failed = {job.output: reason if str(job.source) in reason else f"{job.source}: {reason}"}
    summary.warnings = [str(text.message) for text in caught if issubclass(text.category, UserWarning)]
    return summary


def _is_disk_full(error: BaseException | None) -> bool:
    if error is None:
        return False
    has_code = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # the text is what HDF5 says when it closes a file
    return has_code or "No space left on device" in str(error) or _is_disk_full(error.__cause__ or error.__context__)
