"""Real cardiac images: MoDL with l2 against MoDL with l2 + UFLoss, same seeds, same number of steps.

    python benchmarks/cardiac.py --data FOLDER --work FOLDER [--json FILE]

FOLDER holds the Sunnybrook cardiac images as npz files (`images` (n, 256, 256), a file for each subject). They become
8-coil volumes by simulation, 24 subjects for training and 6 for validation; such data are optimistic: the noise is
white and the coils are exact. Two feature networks are trained with different seeds: the first for the loss, the
second for the scores, since a loss should not grade itself. The subjects are the unit of the statistics. The same
command again goes on where an interrupted run was.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from runs import recipe, run_together, volume_scores

from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.subject_tables import paired_rows
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

HELD_OUT = ("SC-HF-I-40", "SC-HF-NI-36", "SC-HYP-40", "SC-N-40", "SC-HF-I-08", "SC-N-07")
RUNS = {"l2": ["l2=1"], "l2+ufloss": ["l2=1", "ufloss=0.02"]}
METRICS = ("NRMSE (coil-combined)", "PSNR (coil-combined)", "SSIM (coil-combined)", "NRMSE (RSS)", "SSIM (RSS)")


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
            write_volume(path, simulate_kspace(images, num_coils=8, snr=20.0, seed=number))


def pretrain(args: argparse.Namespace, root: Path) -> dict[str, Path]:
    """The two feature networks, by what they are for."""
    folders = {name: args.work / f"feature_net_{name}" for name in ("loss", "score")}
    options = ["--patch_size", 40, "--patches_per_slice", 15, "--batch_size", 64]
    options += ["--max_epochs", args.pretrain_epochs]
    commands = {
        f"pretrain_{name}": recipe("pretrain.py", root, folder, *options, "--seed", args.seed + 10 * number)
        for number, (name, folder) in enumerate(folders.items())
        if not (folder / "feature_net.safetensors").is_file()
    }
    run_together(commands, args.work / "logs", threads=args.threads)
    return {name: folder / "feature_net.safetensors" for name, folder in folders.items()}


def train(args: argparse.Namespace, root: Path, net: Path) -> None:
    """Both runs, side by side."""
    options = ["--chans", args.chans, "--num_unrolls", args.num_unrolls, "--lr", 1e-3, "--seed", args.seed]
    options += ["--max_steps", args.max_steps, "--max_epochs", 1000, "--limit_val_batches", 0, "--no-score"]
    commands = {
        f"train_{name}": recipe("train.py", root, args.work / name, *options, "--loss", *terms, "--feature_net", net)
        for name, terms in RUNS.items()
    }
    run_together(commands, args.work / "logs", threads=args.threads)


def score(args: argparse.Namespace, root: Path, nets: dict[str, Path]) -> None:
    """Both runs with each of the two networks."""
    for net_name, net in nets.items():
        options = ["--mode", "test", "--feature_net", net, "--score_stride", 20]
        options += ["--test_path", root / "multicoil_val"]
        commands = {
            f"test_{name}_{net_name}": recipe(
                "train.py", root, args.work / f"{name}_{net_name}", *options,
                "--checkpoint", args.work / name / "checkpoints" / "last.ckpt",
            )
            for name in RUNS
            if not (args.work / f"{name}_{net_name}" / "scores.json").is_file()
        }  # fmt: skip
        run_together(commands, args.work / "logs", threads=args.threads)


def report(args: argparse.Namespace) -> None:
    """Tables on the terminal and in the JSON file."""
    by_subject: dict[str, dict[str, dict[str, float]]] = {}
    for name in RUNS:
        by_subject[name] = volume_scores(args.work / f"{name}_score")
        by_loss_network = volume_scores(args.work / f"{name}_loss")
        for subject, row in by_subject[name].items():
            row["UFLoss, network of the loss"] = by_loss_network[subject]["UFLoss"]
            row["UFLoss, another network"] = row.pop("UFLoss")
    baselines = []
    for method in ("zero-filled", "CG-SENSE"):
        rows = volume_scores(args.work / "l2_score", method).values()
        means = {metric: float(np.mean([row[metric] for row in rows])) for metric in (*METRICS, "UFLoss")}
        baselines.append({"method": method, **means})
    names = (*METRICS, "UFLoss, another network", "UFLoss, network of the loss")
    first, second = by_subject.items()
    differences = paired_rows(first, second, {name: name.startswith(("PSNR", "SSIM")) for name in names})
    shown = ("NRMSE (coil-combined)", "SSIM (coil-combined)", "UFLoss, another network")
    subjects = [
        {
            "subject": subject,
            **{f"{metric}, {name}": by_subject[name][subject][metric] for metric in shown for name in RUNS},
        }
        for subject in sorted(by_subject["l2"])
    ]
    for title, table in (
        ("Baselines (UFLoss by the scoring network)", baselines),
        ("MoDL, means over subjects and paired differences", differences),
        ("Each subject", subjects),
    ):
        print(f"\n{title}\n{format_table(table)}")
    if args.json:
        settings = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
        document = {"settings": settings, "baselines": baselines, "differences": differences, "subjects": subjects}
        args.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for volumes, caches and runs")
    parser.add_argument("--max_steps", type=int, default=700)
    parser.add_argument("--pretrain_epochs", type=int, default=7)
    parser.add_argument("--chans", type=int, default=16)
    parser.add_argument("--num_unrolls", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each of the two processes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    root = args.work / "volumes"
    convert(args.data, root)
    nets = pretrain(args, root)
    train(args, root, nets["loss"])
    score(args, root, nets)
    report(args)


if __name__ == "__main__":
    main()
