"""What benchmarks that train share: recipes as processes side by side, and their scores."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).resolve().parents[1] / "fastmri_examples" / "modl_ufloss"


def recipe(script: str, root: Path, run_dir: Path, *options: object) -> list[str]:
    """The command line of a recipe on the data in ``root``, with the cache beside ``run_dir``."""
    common = ["--data_path", root, "--default_root_dir", run_dir, "--cache_dir", run_dir.parent / "cache"]
    return [sys.executable, str(RECIPES / script), *map(str, [*common, "--num_workers", 1, *options])]


def run_together(commands: Mapping[str, Sequence[str]], log_dir: Path, *, threads: int = 1) -> None:
    """Run commands side by side, each with its number of threads and a log; stop if a command fails."""
    log_dir.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    running = {}
    for name, line in commands.items():
        with open(log_dir / f"{name}.log", "a") as log:
            running[name] = subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT, env=environment)
    failed = [name for name, process in running.items() if process.wait() != 0]
    if failed:
        sys.exit(f"error: {', '.join(failed)} failed, see {log_dir}")


def volume_scores(run_dir: Path, method: str = "MoDL") -> dict[str, dict[str, Any]]:
    """The scores of a method by volume, from a run's ``scores.json``."""
    rows = json.loads((run_dir / "scores.json").read_text(encoding="utf-8"))["volumes"]
    return {row["volume"]: row for row in rows if row["method"] == method}
