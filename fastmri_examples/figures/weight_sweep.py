"""What the weight of UFLoss does: MoDL trained with several weights and seeds, figure S3 of the paper.

    python fastmri_examples/figures/weight_sweep.py --data_path DATA --feature_net NET --score_feature_net OTHER \\
        --weights 0 0.0067 0.02 0.053 alone --seeds 1 2 3 --output_path OUT -- --max_epochs 50 --num_workers 4

trains each run in OUT/runs/weight_W/seed_S by modl_ufloss/train.py, whose further flags stand after "--"; tests its
best checkpoint in OUT/tests/weight_W/seed_S, with a feature network other than that of the loss; and draws NRMSE,
SSIM and UFLoss against the weight, UFLoss against NRMSE (sweep.png, .pdf), and a slice by all weights (panels.png,
.pdf). sweep.json has all numbers. The same command goes on where it was. --mode test takes the runs as they are.

The paper's weights 0, 0.5, 1.5, 4 and "alone" are for a network that was trained with temperature 1; with this
project's 0.1 a weight of 0.02 is what 1.5 is there, so the defaults are 0, 0.0067, 0.02, 0.053, alone.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser, Namespace
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import recipe

from fastmri_ufloss.files import write_json
from fastmri_ufloss.losses import UFLoss
from fastmri_ufloss.pl_modules import MoDLModule, MriDataModule
from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.figures.panels import choose_slice, draw_panels
from fastmri_ufloss.report.figures.score_plots import difference_rows, save_sweep, sweep_rows
from fastmri_ufloss.report.reconstructions import Reconstructions

RECIPE = Path(__file__).resolve().parents[1] / "modl_ufloss" / "train.py"
ALONE = "alone"
NUMBER = re.compile(r"\+?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
NOTE = "sweep.json"  # in the folder of a run or a test: what it was made with
FOLDERS = {"train": "runs", "test": "tests"}
TEST_ARGS = ("test_split", "test_path", "score_stride")
# what a training that goes on may have otherwise, and what its result does not depend on
MAY_CHANGE = (
    *("--max_epochs", "--max_steps", "--num_workers", "--cache_dir", "--log_every_n_steps"),
    *("--checkpoint_every_n_steps", "--accelerator", "--devices", "--num_nodes", "--strategy"),
)
# what the sweep itself says to the recipe
SWEEP_FLAGS = (
    *("--mode", "--data_path", "--challenge", "--loss", "--feature_net", "--seed", "--default_root_dir"),
    *("--checkpoint", "--score", "--no-score", "--resume", *(f"--{name}" for name in recipe.UFLOSS_ARGS)),
    *(f"--{name}" for name in TEST_ARGS),
)


Task = tuple[Sequence[str], Any]  # the recipe's flags, and what its folder notes when the run is done


class Run(NamedTuple):
    """A training of the sweep: the weight of UFLoss as it was typed, its seed, and the folder of all runs."""

    weight: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f"weight_{self.weight}_seed_{self.seed}"

    def path(self, mode: str) -> Path:
        """Its folder among the runs or the tests."""
        return self.folder / FOLDERS[mode] / f"weight_{self.weight}" / f"seed_{self.seed}"

    @property
    def loss(self) -> list[str]:
        """As after --loss."""
        if self.weight == ALONE:
            return ["ufloss=1"]
        return ["l2=1"] + ([f"ufloss={self.weight}"] if float(self.weight) else [])

    @property
    def checkpoint(self) -> Path:
        """The best of the training, or its last; there may be none yet."""
        return recipe.best_checkpoint(self.path("train"))


def main() -> None:
    parser = recipe.make_parser(__doc__)
    parser.add_argument("--mode", choices=("train", "test"), default="train", help="test: of the runs as they are")
    parser.add_argument("--weights", nargs="+", type=str, default=["0", "0.0067", "0.02", "0.053", ALONE])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--data_path", type=Path, required=True, help="fastMRI's folder")
    parser.add_argument("--challenge", choices=("singlecoil", "multicoil"), default="multicoil")
    parser.add_argument("--feature_net", type=Path | None, help="of the loss")
    parser.add_argument("--score_feature_net", type=Path, required=True, help="another one, of the scores")
    parser.add_argument("--output_path", type=Path, required=True, help="folder of runs, tests and figures")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--reference", choices=("coil-combined", "RSS"), default="coil-combined")
    parser.add_argument("--volume", help="file name of the panels' volume (default: the most textured)")
    parser.add_argument("--slice", type=int | None, help="of the panels (default: the most textured)")
    parser.add_argument("--title", default="", help="above the plots")
    recipe.add_arguments(parser.add_argument_group("loss"), UFLoss, recipe.UFLOSS_ARGS)
    group = parser.add_argument_group("test")
    recipe.add_arguments(group, MriDataModule, ("test_split", "test_path"))
    recipe.add_arguments(group, MoDLModule, ("score_stride",))
    place = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, further = parser.parse_args(sys.argv[1:place]), sys.argv[place + 1 :]

    check_arguments(args, further)
    further += ["--data_path", str(args.data_path), "--challenge", args.challenge]
    if "--cache_dir" not in further:
        further += ["--cache_dir", str(args.output_path / "cache")]
    runs = [Run(weight, seed, args.output_path) for seed in args.seeds for weight in args.weights]
    if args.mode == "train":
        train(args, runs, further, typed_flags(parser, args, recipe.UFLOSS_ARGS))
    tested = [run for run in runs if run.checkpoint.is_file()]
    missing = [run.name for run in runs if run not in tested]
    if not tested:
        raise ValueError(f"--mode test needs runs with a checkpoint in {args.output_path / 'runs'}, got none")
    if missing:
        recipe.say(f"Left out, since they have no checkpoint: {', '.join(missing)}")
    test(args, tested, further + typed_flags(parser, args, TEST_ARGS))
    draw(args, tested, missing)


def typed_flags(parser: ArgumentParser, args: Namespace, names: Sequence[str]) -> list[str]:
    flags = []
    for name in recipe.changed(parser, args, names):
        flags += [f"--{name}", "null" if args[name] is None else str(args[name])]
    return flags


def check_arguments(args: Namespace, further: Sequence[str]) -> None:
    """What would fail late, or spoil the comparison, is refused at once."""
    for weight in args.weights:
        if weight != ALONE and (not NUMBER.fullmatch(weight) or float(weight) == float("inf")):
            raise ValueError(f"--weights must be numbers >= 0 or {ALONE!r}, got {weight!r}")
    weights = {weight if weight == ALONE else float(weight) for weight in args.weights}
    for name, different in (("weights", weights), ("seeds", {*args.seeds})):
        if len(different) != len(args[name]):
            raise ValueError(f"--{name} must differ, got {' '.join(map(str, args[name]))}")
    for flag in further:
        if flag.partition("=")[0] in SWEEP_FLAGS:
            raise ValueError(f"{flag} is the sweep's own: type it before --, or leave it out")
    for name in ("feature_net", "score_feature_net"):
        if args[name] is not None and not args[name].is_file():
            raise FileNotFoundError(f"no file {args[name]}: check --{name}")
    if args.mode == "train" and args.feature_net is None:
        raise ValueError("--feature_net must name the network of the loss, the same for all runs: see pretrain.py")
    if args.feature_net is not None and digest(args.feature_net) == digest(args.score_feature_net):
        raise ValueError(
            "--score_feature_net must be another network than --feature_net, since a loss must not grade itself: "
            "pretrain.py --seed 2 trains one"
        )


def digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


def train(args: Namespace, runs: Sequence[Run], common: Sequence[str], ufloss_flags: Sequence[str]) -> None:
    """Train what is not trained; ValueError if a run was trained otherwise but for its weight and seed."""
    tasks: dict[Path, Task] = {}
    for run in runs:
        flags, net = [*common, "--seed", str(run.seed), "--loss", *run.loss, "--no-score"], None
        if run.loss[-1].startswith("ufloss"):
            flags += ["--feature_net", str(args.feature_net), *ufloss_flags]
            net = digest(args.feature_net)
        folder, settings = run.path("train"), {**by_flag(flags), "--feature_net": net}
        stored, note = read_note(folder), {"settings": settings, "done": True}
        is_begun = run.checkpoint.is_file()
        for flag in {**settings, **stored["settings"]} if stored and is_begun else ():
            old, new = stored["settings"].get(flag), settings.get(flag)
            if flag not in MAY_CHANGE and old != new:
                again = "type the same flags again, or take another --output_path"
                raise ValueError(f"{folder} was trained with {flag} {old}, not {new}: {again}")
        if stored != note or not is_begun:
            write_json(folder / NOTE, {"settings": settings, "done": False})
            tasks[folder] = flags, note
    carry_out(args, "train", tasks)


def by_flag(flags: Sequence[str]) -> dict[str, str]:
    """The values of each flag, as a single text."""
    values: dict[str, list[str]] = {}
    for text in flags:
        flag, equals, value = text.partition("=") if text.startswith("--") else ("", "", text)
        if flag:
            values[flag] = [value] if equals else []
        elif values:
            values[next(reversed(values))].append(value)
    return {flag: " ".join(texts) for flag, texts in values.items()}


def test(args: Namespace, runs: Sequence[Run], common: Sequence[str]) -> None:
    """Scores and leaderboard files of the checkpoints that have none."""
    flags = [*common, "--mode", "test", "--feature_net", str(args.score_feature_net)]
    tasks: dict[Path, Task] = {}
    for run in runs:
        hashes = {"checkpoint": digest(run.checkpoint), "feature_net": digest(args.score_feature_net)}
        folder, note = run.path("test"), {"arguments": flags, **hashes}
        if read_note(folder) != note:
            (folder / NOTE).unlink(missing_ok=True)
            tasks[folder] = [*flags, "--checkpoint", str(run.checkpoint)], note
    carry_out(args, "test", tasks)


def carry_out(args: Namespace, mode: str, tasks: Mapping[Path, Task]) -> None:
    """Run the recipe with the flags of each folder, and note there that the run is done."""
    folders = {f"{folder.parent.name}_{folder.name}": folder for folder in tasks}
    commands = {
        name: [str(RECIPE), *tasks[folder][0], "--default_root_dir", str(folder)] for name, folder in folders.items()
    }
    log_dir, desc = args.output_path / "logs" / mode, FOLDERS[mode].capitalize()
    try:
        for name in run_side_by_side(commands, log_dir, jobs=args.jobs, desc=desc):
            write_json(folders[name] / NOTE, tasks[folders[name]][1])
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on where it was")


def run_side_by_side(commands: Mapping[str, Sequence[str]], log_dir: Path, *, jobs: int, desc: str) -> Iterator[str]:
    """Run commands of Python as processes, so many at a time, and yield the name of each that ends well.

    A command that fails does not stop the others; in the end ValueError names its log, ``NAME.txt``. The processes
    share the cores unless OMP_NUM_THREADS is set. Ctrl-C and SIGTERM go to the running ones, which finish what they
    write.
    """
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {jobs}")
    log_dir.mkdir(parents=True, exist_ok=True)
    threads = max((os.cpu_count() or 1) // min(jobs, max(len(commands), 1)), 1)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
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


def read_note(folder: Path) -> Any:
    file = folder / NOTE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def read_scores(run: Run) -> dict[str, float]:
    """The means over volumes of a test."""
    file = run.path("test") / "scores.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}: the test has no references; --test_split or --test_path names others")
    means = json.loads(file.read_text(encoding="utf-8"))["means"]
    (mean,) = (row for row in means if row["method"] == "MoDL")
    return {name: value for name, value in mean.items() if isinstance(value, float)}


def draw(args: Namespace, runs: Sequence[Run], missing: Sequence[str]) -> None:
    """The figures and ``sweep.json``, from the scores of the tests; the panels are those of the first seeds."""
    metrics = {f"NRMSE ({args.reference})": "NRMSE", f"SSIM ({args.reference})": "SSIM", "UFLoss": "UFLoss"}
    distortion, _, perception = metrics
    scores: dict[str, dict[int, dict[str, float]]] = {}
    firsts: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: args.weights.index(run.weight)):
        scores.setdefault(run.weight, {})[run.seed] = read_scores(run)
        firsts.setdefault(run.weight, run)
    rows, differences = sweep_rows(scores, list(metrics)), difference_rows(scores, list(metrics))
    for suffix in ("png", "pdf"):
        file = args.output_path / f"sweep.{suffix}"
        save_sweep(file, rows, metrics=metrics, distortion=distortion, perception=perception, title=args.title)
    methods = {
        "UFLoss alone" if weight == ALONE else f"weight {weight}": run.path("test") / "reconstructions"
        for weight, run in firsts.items()
    }
    references = args.test_path or args.data_path / f"{args.challenge}_{args.test_split}"
    data = Reconstructions(methods, {"reference": references}, common=True)
    volume, slice_num = choose_slice(data.volumes, args.volume, args.slice)
    seeds = sorted({run.seed for run in firsts.values()})
    title = f"{volume.name}, slice {slice_num}, seed {', '.join(map(str, seeds))}"
    pictures = [args.output_path / f"panels.{suffix}" for suffix in ("png", "pdf")]
    panels = {"title": title, "scores": draw_panels(pictures, volume, slice_num, title=title)}
    document = {"weights": list(scores), "reference": args.reference, "left out": list(missing), "scores": rows}
    write_json(args.output_path / "sweep.json", {**document, "differences": differences, "panels": panels})
    recipe.say(format_table([{k: v for k, v in row.items() if k != "seeds"} for row in rows]))
    shown = [{k: "-" if v is None else v for k, v in row.items()} for row in differences]
    recipe.say(f"\nDifferences, paired by seed, with 95% intervals by Student's t:\n{format_table(shown)}")
    sweep = args.output_path / "sweep"
    recipe.say(f"Pictures: {sweep}.png, {pictures[0]}\nNumbers: {sweep}.json")


if __name__ == "__main__":
    recipe.run(main)
