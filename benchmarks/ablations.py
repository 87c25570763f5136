"""What pays in MoDL: variants of the recipe that had the same time to learn, scored on validation subjects.

    python benchmarks/ablations.py --data FOLDER --work FOLDER [--variants NAME ...] [--json FILE]

Data, simulation and split are those of `comparison.py`; its test subjects are not used. Each variant changes the
recipe's defaults by the flags in VARIANTS. Two short runs tell what a step costs, and so how many steps fit in
`--cpu_seconds`; then it is trained with each seed, and its last checkpoint is tested. The same command again goes on
where an interrupted run was.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from comparison import MASK, check_settings, convert
from runs import recipe, run_together, volume_scores

from fastmri_ufloss.files import write_json
from fastmri_ufloss.report import format_table

BASE = ["--loss", "l2=1", "--train_rows", 32]
VARIANTS: dict[str, list[object]] = {
    "default": [],
    "5 unrolls": ["--num_unrolls", 5],
    "12 unrolls": ["--num_unrolls", 12],
    "shared weights": ["--share_weights"],
    "U-Net denoiser of 16 channels": ["--denoiser", "unet", "--chans", 16, "--num_pools", 2],
    "batch norm": ["--denoiser", "resnet"],
    "lambda from 0.3": ["--lam", 0.3],
    "clipping at 1": ["--gradient_clip_val", 1],
    "constant rate": ["--lr", 5e-4, "--lr_step_size", 100_000],
    "l1": ["--loss", "l1=1"],
    "l1 + SSIM": ["--loss", "l1=1", "ssim=1"],
    "4x, 5x and 6x": ["--center_fractions", 0.08, 0.08, 0.08, "--accelerations", 4, 5, 6],
    "bands of 64 rows": ["--train_rows", 64],
}
SCORES = ("NRMSE", "PSNR", "SSIM")
SHORT = (20, 120)  # steps of the runs that tell what a step costs


def command(args: argparse.Namespace, name: str, seed: int, steps: int) -> dict[str, list[str]]:
    """The training of a variant, by its name."""
    run = f"{name}, seed {seed}, {steps} steps".replace(" ", "_")
    options = [*MASK, *BASE, *VARIANTS[name], "--seed", seed, "--num_workers", 0, "--no-score"]
    options += ["--max_steps", steps, "--max_epochs", 100_000, "--limit_val_batches", 0]
    return {run: recipe("train.py", args.work / "volumes", args.work / run, *options)}


def measure(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Train and test a variant with each seed."""
    logs, seconds = args.work / "logs", []
    for steps in SHORT:
        seconds.append(sum(run_together(command(args, name, 0, steps), logs).values()))
    per_step = (seconds[1] - seconds[0]) / (SHORT[1] - SHORT[0])
    steps = max(1, round(args.cpu_seconds / per_step))
    trainings = [command(args, name, seed, steps) for seed in range(1, 1 + args.seeds)]
    runs = {run: line for training in trainings for run, line in training.items()}
    used = run_together(runs, logs, processes=args.processes)
    start = seconds[0] - SHORT[0] * per_step  # imports, coil maps
    root, rows = args.work / "volumes", []
    tests = {
        f"test_{run}": recipe(
            "train.py", root, args.work / run, "--mode", "test", "--test_path", root / "multicoil_val", *MASK
        )
        for run in runs
    }
    run_together(tests, logs, processes=args.processes)
    for run in runs:
        scores = volume_scores(args.work / run).values()
        rows.append({score: float(np.mean([row[f"{score} (coil-combined)"] for row in scores])) for score in SCORES})
    means = {score: float(np.mean([row[score] for row in rows])) for score in SCORES}
    by_seed = ", ".join(f"{row['NRMSE']:.4f}" for row in rows)
    return {
        "variant": name,
        "steps": steps,
        "CPU seconds": round(float(np.mean(list(used.values()))) - start),
        **means,
        "NRMSE by seed": by_seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for volumes, caches and runs")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--cpu_seconds", type=float, default=240, help="of training, by one thread")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2, help="side by side")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    settings = {name: str(getattr(args, name)) for name in ("data", "cpu_seconds", "seeds")}
    check_settings(args.work / "settings.json", settings)
    convert(args.data, args.work / "volumes")
    results = args.work / "results.json"
    rows = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    for name in args.variants:
        if name not in rows:
            rows[name] = measure(args, name)
            write_json(results, rows)
    print(format_table(list(rows.values())))
    if args.json:
        write_json(
            args.json, {"settings": {**settings, "base": list(map(str, BASE))}, "variants": list(rows.values())}
        )


if __name__ == "__main__":
    main()
