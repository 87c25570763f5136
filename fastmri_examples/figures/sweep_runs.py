"""The trainings of a sweep over the weight of UFLoss, and their tests."""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import command_line as cli
from side_by_side import run_side_by_side

from fastmri_ufloss.pl_modules.scoring import write_json

RECIPE = Path(__file__).resolve().parents[1] / "modl_ufloss" / "train.py"
ALONE = "alone"
NOTE = "sweep.json"  # in the folder of a run or a test: what it was made with
UFLOSS_ARGS = ("stride", "patches_per_step", "chunk_size")
# what a training that goes on may have otherwise, and what its result does not depend on
MAY_CHANGE = (
    *("--max_epochs", "--max_steps", "--num_workers", "--cache_dir", "--log_every_n_steps"),
    *("--checkpoint_every_n_steps", "--accelerator", "--devices", "--num_nodes", "--strategy"),
)
TEST_ARGS = ("test_split", "test_path", "score_stride")


class Run(NamedTuple):
    """A training of the sweep.

    Args:
        weight: of UFLoss, as it was typed.
        seed: of the training.
        folder: of all runs and tests.
    """

    weight: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f"weight_{self.weight}_seed_{self.seed}"

    def path(self, kind: str) -> Path:
        """Its folder among the ``"runs"`` or the ``"tests"``."""
        return self.folder / kind / f"weight_{self.weight}" / f"seed_{self.seed}"

    @property
    def loss(self) -> list[str]:
        """As after ``--loss``."""
        if self.weight == ALONE:
            return ["ufloss=1"]
        return ["l2=1"] + ([f"ufloss={self.weight}"] if float(self.weight) else [])

    @property
    def checkpoint(self) -> Path | None:
        """The best of the training, or its last."""
        paths = (self.path("runs") / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
        return next((path for path in paths if path.is_file()), None)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def common_flags(args: argparse.Namespace, further: Sequence[str]) -> list[str]:
    """Flags of training and test."""
    flags = [*further, "--data_path", str(args.data_path), "--challenge", args.challenge]
    if "--cache_dir" not in further:
        flags += ["--cache_dir", str(args.output_path / "cache")]
    return flags


def typed_flags(args: argparse.Namespace, names: Sequence[str]) -> list[str]:
    return [text for name, value in cli.typed(args, names).items() for text in (f"--{name}", str(value))]


def train(args: argparse.Namespace, runs: Sequence[Run], further: Sequence[str]) -> None:
    """Train what is not trained; the recipe goes on from a last checkpoint.

    Raises:
        ValueError: if a run was trained otherwise: runs that are compared must differ in weight and seed alone.
    """
    commands, notes = {}, {}
    for run in runs:
        uses_ufloss = any(term.startswith("ufloss") for term in run.loss)
        flags = [*common_flags(args, further), "--seed", str(run.seed), "--loss", *run.loss, "--no-score"]
        if uses_ufloss:
            flags += ["--feature_net", str(args.feature_net), *typed_flags(args, UFLOSS_ARGS)]
        folder = run.path("runs")
        settings = {**by_flag(flags), "--feature_net": digest(args.feature_net) if uses_ufloss else None}
        note = {"settings": settings, "done": True}
        stored = read_note(folder)
        if stored is not None and run.checkpoint is not None:
            check_settings(folder, settings, stored["settings"])
        if stored != note or run.checkpoint is None:
            write_json(folder / NOTE, {"settings": settings, "done": False})
            commands[run.name] = [str(RECIPE), *flags, "--default_root_dir", str(folder)]
            notes[run.name] = (folder, note)
    do(commands, notes, args.output_path / "logs" / "train", jobs=args.jobs, desc="Trainings")


def by_flag(flags: Sequence[str]) -> dict[str, str]:
    """The values of each flag, as one text."""
    found: dict[str, list[str]] = {}
    for text in flags:
        flag, equals, value = text.partition("=") if text.startswith("--") else ("", "", text)
        if flag:
            found[flag] = [value] if equals else []
        elif found:
            found[next(reversed(found))].append(value)
    return {flag: " ".join(values) for flag, values in found.items()}


def check_settings(folder: Path, settings: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    for flag in dict.fromkeys((*settings, *stored)):
        if flag not in MAY_CHANGE and settings.get(flag) != stored.get(flag):
            raise ValueError(
                f"{folder} was trained with {flag} {stored.get(flag)}, not {settings.get(flag)}: type the same flags "
                "again, or take another --output_path"
            )


def test(args: argparse.Namespace, runs: Sequence[Run], further: Sequence[str]) -> None:
    """Scores and leaderboard files of the checkpoints that have none."""
    commands, notes = {}, {}
    for run in runs:
        flags = [*common_flags(args, further), "--mode", "test", "--feature_net", str(args.score_feature_net)]
        flags += typed_flags(args, TEST_ARGS)
        checkpoint = run.checkpoint
        if checkpoint is None:
            continue
        note = {"arguments": flags, "checkpoint": digest(checkpoint), "feature_net": digest(args.score_feature_net)}
        if read_note(run.path("tests")) != note:
            (run.path("tests") / NOTE).unlink(missing_ok=True)
            folder = ["--default_root_dir", str(run.path("tests"))]
            commands[run.name] = [str(RECIPE), *flags, *folder, "--checkpoint", str(checkpoint)]
            notes[run.name] = (run.path("tests"), note)
    do(commands, notes, args.output_path / "logs" / "test", jobs=args.jobs, desc="Tests")


def do(
    commands: Mapping[str, Sequence[str]],
    notes: Mapping[str, tuple[Path, Mapping[str, Any]]],
    log_dir: Path,
    *,
    jobs: int,
    desc: str,
) -> None:
    """Run commands, and note in the folder of each that it is done."""
    try:
        for name in run_side_by_side(commands, log_dir, jobs=jobs, desc=desc):
            folder, note = notes[name]
            write_json(folder / NOTE, note)
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on where it was")


def read_note(folder: Path) -> Any:
    file = folder / NOTE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def read_scores(run: Run) -> dict[str, float]:
    """The means over volumes of a test."""
    file = run.path("tests") / "scores.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"no {file}: the volumes of the test have no references; --test_split or --test_path names others"
        )
    means = json.loads(file.read_text(encoding="utf-8"))["means"]
    (mean,) = (row for row in means if row["method"] == "MoDL")
    return {name: value for name, value in mean.items() if isinstance(value, float)}
