"""Commands as processes side by side, each with a log, that end with the one that has started them."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

THREADS = "OMP_NUM_THREADS"


def run_side_by_side(commands: Mapping[str, Sequence[str]], log_dir: Path, *, jobs: int, desc: str) -> Iterator[str]:
    """Run commands of Python by name, so many at a time, in their order, and yield the name of each that ends well.

    One that fails does not stop the others. Each appends to its log, ``NAME.txt``. Where the user has not set
    OMP_NUM_THREADS, they share the cores. Ctrl-C and SIGTERM go to those that run, which may finish what they write.

    Raises:
        ValueError: if jobs is below 1, or a command failed; it names the log.
    """
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {jobs}")
    log_dir.mkdir(parents=True, exist_ok=True)
    threads = max((os.cpu_count() or 1) // min(jobs, max(len(commands), 1)), 1)
    environment = {THREADS: str(threads), **os.environ}
    running: set[subprocess.Popen[bytes]] = set()
    lock, is_over = threading.Lock(), False

    def run(name: str) -> int:
        with lock, open(log_dir / f"{name}.txt", "ab") as log:
            if is_over:
                return 1
            command = [sys.executable, *commands[name]]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            running.add(process)
        code = process.wait()
        with lock:
            running.discard(process)
        return code

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        try:
            futures = {pool.submit(run, name): name for name in commands}
            for future in tqdm(as_completed(futures), desc, len(futures), unit="run", disable=not futures):
                if future.result() == 0:
                    yield futures[future]
                else:
                    failed.append(futures[future])
        finally:
            with lock:
                is_over = True
                for process in running:  # a terminal may have sent it already: Lightning ignores the second
                    process.send_signal(signal.SIGINT)
            signal.signal(signal.SIGTERM, before)
    if failed:
        failed.sort(key=list(commands).index)
        log = log_dir / f"{failed[0]}.txt"
        lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        last = ([line for line in lines if line.startswith("error: ")] or lines or ["nothing"])[-1]
        raise ValueError(f"{', '.join(failed)} failed, see {log}, which ends with: {last}")
