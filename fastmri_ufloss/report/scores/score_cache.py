"""Scoring many volumes: one at a time in each process, and only those that have changed since the last call."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from fastmri_ufloss.files import atomic_path
from fastmri_ufloss.report.reconstructions import VolumeFiles
from fastmri_ufloss.report.scores.score_settings import ScoreSettings
from fastmri_ufloss.report.scores.scoring import score_files
from fastmri_ufloss.workers import interruptible, run_in_processes

__all__ = ["ScoredVolumes", "score_volumes"]

Numbers = dict[str, Any]


class ScoredVolumes(NamedTuple):
    """What has been scored.

    Args:
        numbers: what `score_files` gives, by the name of the volume.
        failed: why a volume could not be scored, by its name.
        num_cached: volumes whose scores were there already.
    """

    numbers: dict[str, Numbers]
    failed: dict[str, str]
    num_cached: int


class _Task(NamedTuple):
    files: VolumeFiles
    settings: ScoreSettings
    cache: Path
    stamp: list[Any]


def score_volumes(
    volumes: Sequence[VolumeFiles], settings: ScoreSettings, *, cache: str | Path, num_workers: int = 1
) -> ScoredVolumes:
    """Score volumes, with a progress bar.

    The scores of each volume are kept in a file of the cache with a stamp of the settings and of the volume's files.
    A volume with the same stamp is not read again, so that a call that was interrupted goes on where it was. The
    scores do not depend on the number of workers, processes of one thread each.

    Raises:
        ValueError: if ``num_workers`` is below 1.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")
    stamp, failed = settings.stamp, {}
    tasks = [_Task(files, settings, Path(cache) / f"{files.name}.json", [stamp, files.stamp]) for files in volumes]
    outcomes = {task.files.name: _read(task) for task in tasks}
    tasks = [task for task in tasks if outcomes[task.files.name] is None]
    num_cached = len(volumes) - len(tasks)
    bar = tqdm(total=len(volumes), initial=num_cached, desc="Scores", unit="volume", disable=not tasks)
    with interruptible(), bar:
        for task, outcome in _score(tasks, min(num_workers, len(tasks))):
            name = task.files.name
            if isinstance(outcome, str):
                failed[name] = outcome if name in outcome else f"{name}: {outcome}"
            else:
                outcomes[name] = outcome
            bar.update()
    return ScoredVolumes({name: of for name, of in outcomes.items() if of is not None}, failed, num_cached)


def _score(tasks: Sequence[_Task], num_workers: int) -> Iterator[tuple[_Task, Numbers | str]]:
    """Each task with its numbers, or with a text that says what is wrong."""
    if num_workers > 1:
        yield from run_in_processes(_attempt, tasks, num_workers=num_workers)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker: sums depend on the number of threads in the last digit
    try:
        for task in tasks:
            yield task, _attempt(task)
    finally:
        torch.set_num_threads(threads)


def _attempt(task: _Task) -> Numbers | str:
    """Score a volume and keep its numbers; an error about its files is returned as text."""
    try:
        numbers = score_files(task.files, task.settings)
    except (ValueError, OSError) as error:
        return str(error)
    with atomic_path(task.cache) as temporary:
        temporary.write_text(json.dumps({"stamp": task.stamp, "numbers": numbers}), encoding="utf-8")
    return numbers


def _read(task: _Task) -> Numbers | None:
    """What the cache has of a volume, None if that is nothing, or of other files or settings."""
    # a volume without any slice to score has no picture, and is quickly read again
    if task.settings.pictures is not None and not task.settings.picture_path(task.files.name).is_file():
        return None
    try:
        kept = json.loads(task.cache.read_text(encoding="utf-8"))
        numbers: Numbers | None = kept["numbers"] if kept["stamp"] == task.stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return numbers
