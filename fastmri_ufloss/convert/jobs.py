"""Converting many files: what is to be done, what is done already, and doing the rest."""

import errno
import glob
import inspect
import json
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
from tqdm import tqdm

from fastmri_ufloss.convert.inputs import (
    explain_import,
    find_inputs,
    load_converter,
    peek,
    stamp_of,
    volume_name,
)
from fastmri_ufloss.workers import interruptible, run_in_processes

__all__ = ["Job", "Summary", "attempt", "missing_jobs", "plan_jobs", "remove_leftovers", "run_jobs"]

VERSION = 1  # of the conversions; another one means other volumes from the same files
NEUTRAL = ("output", "attributes", "source", "max_memory")  # what a volume's values do not depend on
SPLITS = ("train", "val", "test")
STALE_SECONDS = 60.0  # without a write


@dataclass(frozen=True)
class Job:
    """A volume to be made.

    Args:
        format: name of the input's format.
        source, output: of the conversion.
        settings: options of the converter.
        conversion: JSON text of all that the volume depends on, kept as its attribute ``conversion``.
        size: of the input, in bytes.
        simulated: k-space is made of images.
    """

    format: str
    source: Path
    output: Path
    settings: Mapping[str, Any]
    conversion: str
    size: int
    simulated: bool


@dataclass
class Outcome:
    """What came of a job: nothing to say if it went well."""

    error: str | None = None
    disk_full: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """What came of all jobs.

    Args:
        converted: volumes that were made.
        failed: sources, with the reasons.
        warnings: texts, each once.
        size: of what was converted, in bytes.
        seconds: that it took.
        full: folder that had no space left, which ended it.
    """

    converted: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    size: int = 0
    seconds: float = 0.0
    full: Path | None = None


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
        ImportError: if the format needs a package that is missing.
    """
    converter = inspect.signature(load_converter(name)).bind("", "", **(settings or {}))
    converter.apply_defaults()
    options = {one: value for one, value in converter.arguments.items() if one not in NEUTRAL}
    facts = {one: _setting(one, value) for one, value in options.items()}
    sources: dict[str, Path] = {}
    for source in find_inputs(name, inputs):
        other = sources.setdefault(volume_name(name, source), source)
        if other != source:
            raise ValueError(f"{other} and {source} would both become {volume_name(name, source)}: rename one")
    splits = _split(len(sources), split)
    jobs = []
    for (file, source), part in zip(sorted(sources.items()), splits, strict=True):
        has_coils, simulated = peek(name, source, options)
        folder = output_path if part is None else output_path / f"{'multi' if has_coils else 'single'}coil_{part}"
        stamp = stamp_of(source)
        document = {"format": name, "version": VERSION, "source": stamp, "settings": facts}
        conversion = json.dumps(document, sort_keys=True)
        jobs.append(Job(name, source, folder / file, dict(settings or {}), conversion, stamp["size"], simulated))
    _check_places(jobs, output_path, split is not None)
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
            found = _conversion_of(job.output)
            if found == job.conversion:
                continue
            strangers.append(f"{job.output} ({_difference(found, job.conversion)})")
        missing.append(job)
    if strangers and not overwrite:
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        raise ValueError(
            f"{len(strangers)} volumes are there but were made otherwise: {', '.join(strangers[:3])}{more}; choose "
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
            outcomes = run_in_processes(attempt, jobs, num_workers=min(num_workers, len(jobs)))
        else:
            outcomes = ((job, attempt(job)) for job in jobs if not bar.set_postfix_str(job.source.name))
        for job, outcome in outcomes:
            outcome = Outcome(outcome) if isinstance(outcome, str) else outcome
            bar.set_postfix_str(job.source.name, refresh=False)
            bar.update(job.size)
            summary.warnings += [text for text in outcome.warnings if text not in summary.warnings]
            if outcome.disk_full:
                summary.full = job.output.parent
                break
            if outcome.error is None:
                summary.converted.append(job.output)
                summary.size += job.size
            else:
                summary.failed[job.source] = outcome.error
    summary.seconds = time.monotonic() - start
    return summary


def attempt(job: Job) -> Outcome:
    """Make a volume; an error is returned, with the name of its file."""
    outcome = Outcome()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            converter = load_converter(job.format)
            converter(job.source, job.output, **job.settings, attributes={"conversion": job.conversion})
        except ImportError as error:
            outcome.error = explain_import(job.format, error) if "pip install" not in str(error) else str(error)
        except Exception as error:  # readers of foreign files raise whatever they like
            outcome.disk_full = _is_disk_full(error)
            known = isinstance(error, ValueError | OSError) and str(error)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            outcome.error = reason if str(job.source) in reason else f"{job.source}: {reason}"
    outcome.warnings = [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
    return outcome


def remove_leftovers(jobs: Iterable[Job]) -> list[Path]:
    """Remove temporary files of a process that was killed: fastMRI would take them for volumes.

    Returns:
        Young ones, which are kept: another process may be writing the same volumes.
    """
    young = []
    for job in jobs:
        for path in job.output.parent.glob(f".{glob.escape(job.output.name)}.*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()
                else:
                    young.append(path)
            except FileNotFoundError:  # it has got its name meanwhile
                continue
    return young


def _setting(name: str, value: Any) -> Any:
    """A setting as a plain value; of a file, what tells it from another."""
    if not isinstance(value, Path):
        return value
    if not value.is_file():
        raise ValueError(f"{name} must be a file, got {value}")
    return stamp_of(value)


def _split(count: int, split: Sequence[int] | None) -> list[str | None]:
    """The split of each volume, None if there is none."""
    if split is None:
        return [None] * count
    if len(split) != len(SPLITS) or min(split) < 0 or sum(split) != count:
        raise ValueError(
            f"split must be three numbers, from 0, whose sum is that of the inputs, {count}, got {split}"
        )
    return [part for part, number in zip(SPLITS, split, strict=True) for _ in range(number)]


def _check_places(jobs: Sequence[Job], output_path: Path, is_split: bool) -> None:
    """No input is written over, and no volume gets into two splits."""
    if output_path.exists() and not output_path.is_dir():
        raise ValueError(f"output_path must be a folder, got the file {output_path}")
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.output.resolve() in sources:
            raise ValueError(f"{job.output} is an input: choose another output_path")
        folders = [
            output_path / f"{challenge}_{part}" for challenge in ("multicoil", "singlecoil") for part in SPLITS
        ]
        for folder in folders if is_split else ():
            if folder != job.output.parent and (folder / job.output.name).exists():
                raise ValueError(
                    f"{folder / job.output.name} is of another split, now it would go into {job.output.parent.name}: "
                    "split as before, or delete it"
                )


def _conversion_of(volume: Path) -> str | None:
    try:
        with h5py.File(volume, "r") as file:
            found = file.attrs.get("conversion")
    except OSError:
        return None
    return found if isinstance(found, str) else None


def _difference(found: str | None, conversion: str) -> str:
    """Which of the things that a volume depends on differ."""
    if found is None:
        return "by something else"
    before, now = json.loads(found), json.loads(conversion)
    names = [name for name in now if name != "settings" and before.get(name) != now[name]]
    settings = before.get("settings", {})
    names += [name for name, value in now["settings"].items() if name not in settings or settings[name] != value]
    return f"another {', '.join(names)}"


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):  # what HDF5 says when it closes a file
            return True
        error = error.__cause__ or error.__context__
    return False
