"""What benchmarks that train share: recipes as processes side by side, and their scores."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# subjects of the Sunnybrook data: those for the proof, and those to choose settings by
HELD_OUT = ("SC-HF-I-40", "SC-HF-NI-36", "SC-HYP-40", "SC-N-40", "SC-HF-I-08", "SC-N-07")
VALIDATION = ("SC-HF-I-01", "SC-HF-NI-03", "SC-HYP-01", "SC-N-02")
RECIPES = Path(__file__).resolve().parents[1] / "fastmri_examples" / "modl_ufloss"


def recipe(script: str | Path, root: Path, run_dir: Path, *options: object) -> list[str]:
    """The command line of a recipe on the data in ``root``, with the cache beside ``run_dir``."""
    common = ["--data_path", root, "--default_root_dir", run_dir, "--cache_dir", run_dir.parent / "cache"]
    return [sys.executable, str(RECIPES / script), *map(str, [*common, "--num_workers", 1, *options])]


def run_together(
    commands: Mapping[str, Sequence[str]], log_dir: Path, *, threads: int = 1, processes: int | None = None
) -> dict[str, float]:
    """Run commands side by side, each with its number of threads and a log; stop if a command fails.

    At most ``processes`` run at a time, if given. Returns the CPU seconds of each, its own processes' included.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}

    def run(name: str) -> tuple[int, float]:
        with open(log_dir / f"{name}.log", "a") as log:
            process = subprocess.Popen(commands[name], stdout=log, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, usage.ru_utime + usage.ru_stime

    with ThreadPoolExecutor(processes or max(1, len(commands))) as pool:
        ended = dict(zip(commands, pool.map(run, commands), strict=True))
    failed = [name for name, (code, _) in ended.items() if code != 0]
    if failed:
        sys.exit(f"error: {', '.join(failed)} failed, see {log_dir}")
    return {name: seconds for name, (_, seconds) in ended.items()}


def volume_scores(run_dir: Path, method: str = "MoDL") -> dict[str, dict[str, Any]]:
    """The scores of a method by volume, from a run's ``scores.json``."""
    rows = json.loads((run_dir / "scores.json").read_text(encoding="utf-8"))["volumes"]
    return {row["volume"]: row for row in rows if row["method"] == method}
