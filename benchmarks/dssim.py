"""Real cardiac images: U-Nets trained with l2 and with l2 + 0.1 dssim, by subject, as Pawar et al. compare them.

    python benchmarks/dssim.py --data FOLDER --work FOLDER [--seeds 1 2] [--json FILE]

FOLDER holds the Sunnybrook cardiac images as npz files (`images` (n, 256, 256), a file for each subject). They become
single-coil volumes without phase and noise, 24 subjects for training and 6 for validation, sampled 10x with a 2D
variable density. For each seed both networks are trained side by side by unet_dssim/train.py. As in the abstract, the
scored subjects also choose the best checkpoint. Scores of a subject are averaged over the seeds; the subjects are the
unit of the statistics. The same command again goes on where an interrupted run was.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from runs import HELD_OUT, recipe, run_together, volume_scores

from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.subject_tables import p_value_note, paired_rows
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

SCRIPT = "../unet_dssim/train.py"
NETS = {"net_mse": "Net-mse", "net_mse_dssim": "Net-mse-dssim"}
METHODS = ("zero-filled", *NETS.values())
LARGER_IS_BETTER = {
    "SSIM": True,
    "SSIM (Gaussian)": True,
    "PSNR": True,
    "relative error": False,
    "MSE": False,
}

Scores = dict[str, dict[str, float]]


def convert(source: Path, root: Path) -> None:
    """npz files to single-coil fastMRI volumes, a volume for each subject."""
    files = sorted(source.glob("SC-*.npz"))
    if not files:
        sys.exit(f"error: no SC-*.npz in {source}")
    for file in files:
        split = "val" if file.stem in HELD_OUT else "train"
        path = root / f"singlecoil_{split}" / f"{file.stem}.h5"
        if not path.is_file():
            images = np.load(file, allow_pickle=False)["images"].astype(np.float32) / 255
            kspace = simulate_kspace(images, num_coils=None, snr=float("inf"), phase_strength=0.0)
            write_volume(path, kspace, patient_id=file.stem)


def train_and_test(args: argparse.Namespace, root: Path, seed: int) -> Path:
    """Both networks side by side, then their comparison; the folder of the run."""
    run_dir = args.work / f"seed_{seed}"
    options: list[object] = ["--seed", seed, "--chans", args.chans, "--lr", args.lr, "--max_epochs", args.max_epochs]
    options += [] if args.max_steps is None else ["--max_steps", args.max_steps]
    options += ["--batch_size", args.batch_size]
    logs = args.work / "logs"
    commands = {f"{net}_{seed}": recipe(SCRIPT, root, run_dir, *options, "--nets", net) for net in NETS}
    run_together(commands, logs, threads=args.threads)
    if not (run_dir / "scores.json").is_file() or is_older(run_dir):
        run_together({f"test_{seed}": recipe(SCRIPT, root, run_dir, *options)}, logs, threads=args.threads)
    return run_dir


def is_older(run_dir: Path) -> bool:
    """Whether a network was trained on after the scores were written."""
    scored = (run_dir / "scores.json").stat().st_mtime_ns
    return any((run_dir / net / "checkpoints" / "last.ckpt").stat().st_mtime_ns > scored for net in NETS)


def mean_over_seeds(run_dirs: list[Path], method: str) -> Scores:
    """The scores of a method by subject."""
    runs = [volume_scores(run_dir, method) for run_dir in run_dirs]
    return {
        row["subject"]: {metric: float(np.mean([run[volume][metric] for run in runs])) for metric in LARGER_IS_BETTER}
        for volume, row in runs[0].items()
    }


def report(args: argparse.Namespace, run_dirs: list[Path]) -> None:
    """Tables on the terminal and in the JSON file."""
    scores = {method: mean_over_seeds(run_dirs, method) for method in METHODS}
    means = []
    for method in METHODS:
        rows = scores[method].values()
        mean = {metric: float(np.mean([row[metric] for row in rows])) for metric in LARGER_IS_BETTER}
        means.append({"method": method, "subjects": len(rows), **mean})
    first, second = ((name, scores[name]) for name in NETS.values())
    differences = paired_rows(first, second, LARGER_IS_BETTER)
    subjects = [
        {"subject": subject, **{f"SSIM, {method}": scores[method][subject]["SSIM"] for method in METHODS}}
        for subject in sorted(scores[METHODS[0]])
    ]
    for title, table in (
        (f"Means over subjects and {len(run_dirs)} seeds", means),
        ("Net-mse-dssim minus Net-mse, paired by subject", differences),
        ("Each subject", subjects),
    ):
        print(f"\n{title}\n{format_table(table)}")
    note = p_value_note(len(subjects))
    if note:
        print(note)
    if args.json:
        settings = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
        document = {"settings": settings, "means": means, "differences": differences, "subjects": subjects}
        args.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for volumes, caches and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--chans", type=int, default=16, help="the abstract has 64")
    parser.add_argument("--max_epochs", type=int, default=10, help="the abstract has 100")
    parser.add_argument("--max_steps", type=int, default=None)
    parser.add_argument("--lr", type=float, default=1e-3, help="the abstract has 1e-4, for ten times as many epochs")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each of the two processes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    root = args.work / "volumes"
    convert(args.data, root)
    report(args, [train_and_test(args, root, seed) for seed in dict.fromkeys(args.seeds)])


if __name__ == "__main__":
    main()
