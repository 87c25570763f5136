"""Real cardiac images: MoDL with l2 against MoDL with l2 + UFLoss, same seeds, same number of steps.

    python benchmarks/cardiac.py --data FOLDER --work FOLDER [--json FILE]

FOLDER holds the Sunnybrook cardiac images as npz files (`images` (n, 256, 256), one file a subject). They become
8-coil volumes by simulation (such data are optimistic: the noise is white, the coils are exact), 24 subjects for
training and 6 for validation. Two feature networks are trained with different seeds: one for the loss, one only
to score, since a loss should not grade itself. The subjects are the unit of the statistics. An interrupted run
goes on where it was.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from fastmri_ufloss.data.simulate import simulate_volume
from fastmri_ufloss.report import format_table

RECIPES = Path(__file__).resolve().parents[1] / "fastmri_examples" / "modl_ufloss"
HELD_OUT = ("SC-HF-I-40", "SC-HF-NI-36", "SC-HYP-40", "SC-N-40", "SC-HF-I-08", "SC-N-07")
RUNS = {"l2": ["l2=1"], "l2+ufloss": ["l2=1", "ufloss=1.5"]}
METRICS = (
    "NRMSE (coil-combined)",
    "PSNR (coil-combined)",
    "SSIM (coil-combined)",
    "NRMSE (RSS)",
    "SSIM (RSS)",
)


def convert(source: Path, root: Path) -> None:
    """npz files to fastMRI volumes, a volume for each subject."""
    files = sorted(source.glob("SC-*.npz"))
    if not files:
        sys.exit(f"error: no SC-*.npz in {source}")
    for number, file in enumerate(files):
        split = "val" if file.stem in HELD_OUT else "train"
        path = root / f"multicoil_{split}" / f"{file.stem}.h5"
        if not path.is_file():
            images = np.load(file, allow_pickle=False)["images"].astype(np.float32) / 255
            simulate_volume(path, images, num_coils=8, snr=20.0, seed=number)


def command(script: str, root: Path, run_dir: Path, args: argparse.Namespace, *options: str) -> list[str]:
    common = [
        "--data_path",
        str(root),
        "--default_root_dir",
        str(run_dir),
        "--cache_dir",
        str(args.work / "cache"),
    ]
    return [sys.executable, str(RECIPES / script), *common, "--num_workers", "1", *options]


def run_together(commands: dict[str, list[str]], log_dir: Path, threads: int) -> None:
    """Run commands side by side, each with its share of the threads; stop if one fails."""
    log_dir.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    running = {}
    for name, line in commands.items():
        with open(log_dir / f"{name}.log", "a") as log:
            running[name] = subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT, env=environment)
    failed = [name for name, process in running.items() if process.wait() != 0]
    if failed:
        sys.exit(f"error: {', '.join(failed)} failed, see {log_dir}")


def paired(rows: dict[str, dict[str, dict[str, float]]], metric: str) -> dict[str, Any]:
    """Mean of both runs over subjects, paired difference with its 95% interval, Wilcoxon p."""
    subjects = sorted(rows["l2"])
    l2, uf = (np.array([rows[name][subject][metric] for subject in subjects]) for name in RUNS)
    difference = uf - l2
    half = stats.t.ppf(0.975, len(subjects) - 1) * stats.sem(difference)
    return {
        "metric": metric,
        "l2": l2.mean(),
        "l2+ufloss": uf.mean(),
        "difference": difference.mean(),
        "95% from": difference.mean() - half,
        "to": difference.mean() + half,
        "p": float(stats.wilcoxon(uf, l2).pvalue),
        "better in": f"{int(np.sum(difference > 0 if metric[0] in 'PS' else difference < 0))}/{len(subjects)}",
    }


def scores(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8"))["volumes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for volumes, caches and runs")
    parser.add_argument("--max_steps", type=int, default=1000)
    parser.add_argument("--pretrain_epochs", type=int, default=7)
    parser.add_argument("--chans", type=int, default=16)
    parser.add_argument("--num_unrolls", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each of the two processes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    root, logs = args.work / "volumes", args.work / "logs"
    convert(args.data, root)

    nets = {name: args.work / f"feature_net_{name}" for name in ("loss", "score")}
    pretraining = {
        f"pretrain_{name}": command(
            "pretrain.py", root, folder, args, "--patch_size", "40", "--patches_per_slice", "15",
            "--batch_size", "64",
            "--max_epochs", str(args.pretrain_epochs), "--seed", str(args.seed + 10 * number),
        )
        for number, (name, folder) in enumerate(nets.items())
        if not (folder / "feature_net.safetensors").is_file()
    }  # fmt: skip
    run_together(pretraining, logs, args.threads)

    loss_net, score_net = (str(nets[name] / "feature_net.safetensors") for name in ("loss", "score"))
    model = ["--chans", str(args.chans), "--num_unrolls", str(args.num_unrolls), "--lr", "1e-3"]
    training = {
        f"train_{name}": command(
            "train.py", root, args.work / name, args, *model, "--loss", *terms, "--feature_net", loss_net,
            "--max_steps", str(args.max_steps), "--max_epochs", "1000", "--seed", str(args.seed), "--no-score",
            "--limit_val_batches", "0",
        )
        for name, terms in RUNS.items()
    }  # fmt: skip
    run_together(training, logs, args.threads)

    for net_name, net in (("loss", loss_net), ("score", score_net)):
        testing = {
            f"test_{name}": command(
                "train.py", root, args.work / f"{name}_{net_name}", args, "--mode", "test", "--feature_net", net,
                "--checkpoint", str(args.work / name / "checkpoints" / "last.ckpt"),
                "--test_path", str(root / "multicoil_val"), "--score_stride", "10",
            )
            for name in RUNS
            if not (args.work / f"{name}_{net_name}" / "scores.json").is_file()
        }  # fmt: skip
        run_together(testing, logs, args.threads)
    report(args)


def report(args: argparse.Namespace) -> None:
    """Tables on the terminal and in the JSON file."""
    volumes = {
        (name, net): scores(args.work / f"{name}_{net}" / "scores.json") for name in RUNS for net in ("loss", "score")
    }
    by_subject: dict[str, dict[str, dict[str, float]]] = {}
    for name in RUNS:
        modl = {row["volume"]: dict(row) for row in volumes[name, "score"] if row["method"] == "MoDL"}
        for row in volumes[name, "loss"]:
            if row["method"] == "MoDL":
                modl[row["volume"]]["UFLoss, network of the loss"] = row["UFLoss"]
        for row in modl.values():
            row["UFLoss, another network"] = row.pop("UFLoss")
        by_subject[name] = modl
    baselines = []
    for method in ("zero-filled", "CG-SENSE"):
        rows = [row for row in volumes["l2", "score"] if row["method"] == method]
        baselines.append(
            {"method": method, **{m: float(np.mean([r[m] for r in rows])) for m in (*METRICS, "UFLoss")}}
        )
    names = (*METRICS, "UFLoss, another network", "UFLoss, network of the loss")
    differences = [paired(by_subject, metric) for metric in names]
    subjects = [
        {"subject": subject, **{f"{metric}, {name}": by_subject[name][subject][metric] for metric in
         ("NRMSE (coil-combined)", "SSIM (coil-combined)", "UFLoss, another network") for name in RUNS}}
        for subject in sorted(by_subject["l2"])
    ]  # fmt: skip
    for title, rows in (
        ("Baselines (UFLoss by the scoring network)", baselines),
        ("MoDL, means over subjects and paired differences", differences),
        ("Each subject", subjects),
    ):
        print(f"\n{title}\n{format_table(rows)}")
    if args.json:
        settings = {name: str(value) for name, value in vars(args).items() if name not in ("data", "work", "json")}
        document = {
            "settings": settings,
            "baselines": baselines,
            "differences": differences,
            "subjects": subjects,
        }
        args.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
