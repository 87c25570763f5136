"""Real cardiac images at 5x: classical methods and networks that had the same time to learn, in one report.

    python benchmarks/comparison.py --data FOLDER --work FOLDER [--json FILE] [--picture FILE]

FOLDER holds the Sunnybrook cardiac images as npz files (`images` (n, 256, 256), a file for each subject). They become
8-coil volumes by simulation, with phase and noise: 6 subjects are tested; of the 24 others 20 train the networks, and
4 choose the weights of the classical methods. Sampling is the UFLoss paper's, random columns with 8% center.

The networks are the recipes with their defaults, but for what NETWORKS names; each trains for about the same CPU
seconds, which the table states, and its last checkpoint is tested. MoDL is trained with several seeds. For the
learning curves each network is trained anew, with its whole schedule, in 1/9 and 1/3 of the steps. MoDL and RecNet
are scored against the coil-combined image that they learn, VarNet and the U-Net against the root-sum-of-squares image
that they learn; the report has both for all. The same command again goes on where an interrupted run was.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter
from runs import HELD_OUT, RECIPES, VALIDATION, recipe, run_together

from fastmri_ufloss.files import write_json
from fastmri_ufloss.metrics import mean_scores, score_run
from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.figures.drawing import write_figure
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

MASK = ("--mask_type", "random", "--center_fractions", 0.08, "--accelerations", 5)
SNR = 30.0
CLASSICAL = {
    "zero_filled": "zero-filled",
    "cg_sense": "CG-SENSE",
    "pics_wavelet": "PICS, l1-wavelet",
    "pics_tv": "PICS, total variation",
    "dlmri": "DLMRI",
}
DIVISORS = (9, 3, 1)  # of the steps, for the learning curves


@dataclass(frozen=True)
class Network:
    """A recipe, its settings, and the steps that fit in the common budget."""

    title: str
    script: str
    steps: int
    options: Sequence[object] = ()
    reference: str = "coil-combined"


NETWORKS = {
    "modl": Network("MoDL", "train.py", 9_000, ["--loss", "l2=1", "--train_rows", 32]),
    "modl_whole": Network(
        "MoDL, U-Net denoiser, whole slices",
        "train.py",
        2_700,
        [
            *("--config", RECIPES / "configs" / "paper.yaml", "--loss", "l2=1", "--chans", 16, "--num_unrolls", 3),
            *("--lr", 1e-3),
        ],
    ),
    "recnet": Network("RecNet", "../adversarial_refinement/train_recnet.py", 15_000),
    "varnet": Network(
        "VarNet",
        "../varnet/train.py",
        1_400,
        ["--num_cascades", 5, "--chans", 8, "--sens_chans", 4, "--lr", 1e-3],
        "RSS",
    ),
    "unet": Network("U-Net", "../unet/train.py", 2_750, [], "RSS"),
}


def convert(source: Path, root: Path) -> None:
    """npz files to volumes, a volume for each subject."""
    files = sorted(source.glob("SC-*.npz"))
    if not files:
        sys.exit(f"error: no SC-*.npz in {source}")
    for number, file in enumerate(files):
        split = "test" if file.stem in HELD_OUT else "val" if file.stem in VALIDATION else "train"
        path = root / f"multicoil_{split}" / f"{file.stem}.h5"
        if not path.is_file():
            images = np.load(file, allow_pickle=False)["images"].astype(np.float32) / 255
            kspace = simulate_kspace(images, num_coils=8, snr=SNR, seed=number)
            write_volume(path, kspace, patient_id=file.stem)


@dataclass(frozen=True)
class Run:
    """A training of a network."""

    network: str
    seed: int
    divisor: int
    steps: int

    @property
    def name(self) -> str:
        return f"{self.network}_seed{self.seed}_steps{self.steps}"

    @property
    def title(self) -> str:
        return f"{NETWORKS[self.network].title}, seed {self.seed}"


def list_runs(args: argparse.Namespace) -> list[Run]:
    """All trainings, the longest first."""
    runs = []
    for name in args.networks:
        for seed in range(1, 1 + (args.seeds if name == "modl" else 1)):
            for divisor in DIVISORS if seed == 1 else (1,):
                runs.append(Run(name, seed, divisor, max(1, round(NETWORKS[name].steps * args.budget / divisor))))
    return sorted(runs, key=lambda run: run.divisor)


def train(args: argparse.Namespace, root: Path, runs: Sequence[Run]) -> dict[str, float]:
    """Train and test the networks; returns the CPU seconds of each training."""
    file, logs = args.work / "cpu_seconds.json", args.work / "logs"
    seconds: dict[str, float] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    ends = ["--max_epochs", 100_000, "--limit_val_batches", 0, "--num_workers", 0]
    with ThreadPoolExecutor(args.processes) as pool:
        trainings = []
        for run in runs:
            network = NETWORKS[run.network]
            options = ["--max_steps", run.steps, *ends, "--seed", run.seed, *MASK, *network.options]
            options += ["--no-score"] if network.reference == "coil-combined" else []
            command = recipe(network.script, root, args.work / run.name, *options)
            if run.name not in seconds:
                trainings.append(pool.submit(run_together, {run.name: command}, logs))
        for training in as_completed(trainings):
            seconds |= training.result()
            write_json(file, seconds)
    commands = {
        f"test_{run.name}": recipe(NETWORKS[run.network].script, root, args.work / run.name, "--mode", "test", *MASK)
        for run in runs
        if not finished(args.work / run.name / "reconstructions", root)
    }
    run_together(commands, logs, processes=args.processes)
    return seconds


def finished(folder: Path, root: Path) -> bool:
    return all((folder / path.name).is_file() for path in (root / "multicoil_test").glob("*.h5"))


def classical(args: argparse.Namespace, root: Path) -> None:
    """The classical methods, with weights searched on the validation subjects."""
    script = RECIPES.parent / "classical" / "reconstruct.py"
    options = ["--data_path", root, "--output_path", args.work / "classical"]
    options += ["--cache_dir", args.work / "cache", "--num_workers", args.processes, *MASK]
    run_together({"classical": [sys.executable, *map(str, [script, *options])]}, args.work / "logs")


def report(args: argparse.Namespace, root: Path, runs: Sequence[Run]) -> dict[str, Any]:
    """The page of all methods and of the networks' whole trainings; returns its numbers."""
    folders = {title: args.work / "classical" / "reconstructions" / name for name, title in CLASSICAL.items()}
    folders |= {run.title: args.work / run.name / "reconstructions" for run in runs if run.divisor == 1}
    test, output = root / "multicoil_test", args.work / "report"
    line: list[object] = ["-m", "fastmri_ufloss.report", *(f"{title}={folder}" for title, folder in folders.items())]
    line += ["--reference", f"RSS={test}", f"coil-combined={args.work / 'classical' / 'reference'}"]
    line += ["--kspace", test, "--baseline", CLASSICAL["pics_tv"], "--focus", "SSIM (coil-combined)"]
    line += ["--output_path", output]
    run_together({"report": [sys.executable, *map(str, line)]}, args.work / "logs")
    document: dict[str, Any] = json.loads((output / "report.json").read_text(encoding="utf-8"))
    print(*document["notes"], f"Page: {output / 'report.html'}", sep="\n")
    return {name: document[name] for name in ("means", "comparisons", "notes", "excluded")}


def learning_curves(
    args: argparse.Namespace, root: Path, runs: Sequence[Run], seconds: dict[str, float]
) -> list[dict[str, Any]]:
    """Every training and every classical method with its mean scores against its own reference."""
    classical_folders = {name: args.work / "classical" / "reconstructions" / name for name in CLASSICAL}
    folders = classical_folders | {run.name: args.work / run.name / "reconstructions" for run in runs}
    references = {"RSS": root / "multicoil_test", "coil-combined": args.work / "classical" / "reference"}
    scores = score_run(folders, references)
    means = {row["method"]: row for row in mean_scores(scores)}
    rows = []
    for name, run in {**dict.fromkeys(CLASSICAL), **{run.name: run for run in runs}}.items():
        reference = "coil-combined" if run is None else NETWORKS[run.network].reference
        rows.append(
            {
                "method": CLASSICAL[name] if run is None else run.title,
                "network": None if run is None else run.network,
                "steps": None if run is None else run.steps,
                "CPU seconds": None if run is None else round(seconds[run.name]),
                "reference": reference,
                **{score: means[name][f"{score} ({reference})"] for score in ("NRMSE", "PSNR", "SSIM")},
            }
        )
    return rows


def save_curves(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """NRMSE against CPU seconds of training, with the classical methods as lines."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, name in enumerate(dict.fromkeys(row["network"] for row in rows if row["network"])):
        of_network = [row for row in rows if row["network"] == name]
        seeds = [
            [row for row in of_network if row["steps"] == steps] for steps in {row["steps"] for row in of_network}
        ]
        points = sorted(
            [np.mean([row[axis] for row in group]) for axis in ("CPU seconds", "NRMSE")] for group in seeds
        )
        axes.plot(*zip(*points, strict=True), "o-", color=f"C{index}", label=NETWORKS[name].title)
    for row, style in zip([row for row in rows if not row["network"]][1:], ("-", "-.", "--", ":"), strict=True):
        axes.axhline(row["NRMSE"], color="gray", linestyle=style, label=row["method"])
    axes.set(xscale="log", xlabel="CPU seconds of training", ylabel="NRMSE, mean of the test subjects")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=9)
    write_figure(path, figure, dpi=100)


def check_settings(file: Path, settings: dict[str, str]) -> None:
    """What a step has made is kept, and must not be taken for that of other settings."""
    stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else settings
    if stored != settings:
        sys.exit(f"error: {file.parent} was made with {stored}, not {settings}: take another --work")
    write_json(file, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for volumes, caches and runs")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3, help="trainings of MoDL")
    parser.add_argument("--budget", type=float, default=1.0, help="factor of all steps, to try things")
    parser.add_argument("--processes", type=int, default=2, help="of one thread, side by side")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="the learning curves, a PNG or JPG")
    args = parser.parse_args()
    check_settings(args.work / "settings.json", {"data": str(args.data), "budget": str(args.budget)})
    root = args.work / "volumes"
    convert(args.data, root)
    runs = list_runs(args)
    seconds = train(args, root, runs)
    classical(args, root)
    rows = learning_curves(args, root, runs, seconds)
    print(f"\nMeans of the test subjects\n{format_table(rows)}")
    if args.picture:
        save_curves(args.picture, rows)
    document = report(args, root, runs)
    if args.json:
        searched = json.loads((args.work / "classical" / "weights.json").read_text(encoding="utf-8"))
        settings = {"seeds": args.seeds, "budget": args.budget, "snr": SNR, "mask": list(MASK)}
        weights = {name: searched[name] for name in ("score", "methods")}
        write_json(args.json, {"settings": settings, "weights": weights, "trainings": rows, **document})


if __name__ == "__main__":
    main()
