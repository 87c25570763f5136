"""Commands as processes side by side, each with a log, that end with the one that has started them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

POLL_SECONDS = 0.2
THREADS = "OMP_NUM_THREADS"


def run_side_by_side(commands: Mapping[str, Sequence[str]], log_dir: Path, *, jobs: int, desc: str) -> Iterator[str]:
    """Run commands, so many at a time, in their order; one that fails does not stop the others.

    Each appends to its log, ``NAME.txt``. Where the user has not set OMP_NUM_THREADS, they share the cores. Ctrl-C
    and SIGTERM go to those that run, which may finish what they write.

    Args:
        commands: by name, of Python.
        log_dir: folder of the logs.
        jobs: at a time.
        desc: of the progress bar.

    Yields:
        The name of each that has ended well.

    Raises:
        ValueError: if jobs is below 1, or a command failed; it names the log.
    """
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {jobs}")
    log_dir.mkdir(parents=True, exist_ok=True)
    threads = max((os.cpu_count() or 1) // min(jobs, max(len(commands), 1)), 1)
    environment = {THREADS: str(threads), **os.environ}
    waiting, failed = dict(commands), []
    running: dict[str, subprocess.Popen[bytes]] = {}
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        with tqdm(total=len(commands), desc=desc, unit="run", disable=not commands) as bar:
            while waiting or running:
                while waiting and len(running) < jobs:
                    name = next(iter(waiting))
                    with open(log_dir / f"{name}.txt", "ab") as log:
                        running[name] = subprocess.Popen(
                            [sys.executable, *waiting.pop(name)],
                            stdout=log,
                            stderr=subprocess.STDOUT,
                            env=environment,
                        )
                time.sleep(POLL_SECONDS)
                for name in [name for name, process in running.items() if process.poll() is not None]:
                    bar.update()
                    if running.pop(name).returncode == 0:
                        yield name
                    else:
                        failed.append(name)
    finally:
        _interrupt(running.values())
        signal.signal(signal.SIGTERM, before)
    if failed:
        first = log_dir / f"{failed[0]}.txt"
        raise ValueError(f"{', '.join(failed)} failed, see {first}, which ends with: {last_line(first)}")


def last_line(path: Path) -> str:
    """The last line of a log that says something of an error, or its last one."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["nothing"])[-1]


def _exit(*_: Any) -> None:
    sys.exit(128 + signal.SIGTERM)


def _interrupt(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ctrl-C for processes, which a terminal may have sent them already: Lightning ignores the second."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        process.wait()
