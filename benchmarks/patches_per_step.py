"""How the result depends on the number of patches that UFLoss draws in a training step.

    python benchmarks/patches_per_step.py --work FOLDER [--json FILE]

Trains MoDL with l2 + UFLoss on the demo data set, with the same seeds for each number of patches, and scores the
test split after the last step. The same command again goes on where an interrupted run was.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from runs import recipe, run_together, volume_scores

from fastmri_ufloss.report import format_table
from fastmri_ufloss.simulation.demo import make_demo_dataset

METRICS = ("NRMSE (coil-combined)", "SSIM (coil-combined)", "UFLoss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for volumes, caches and runs")
    parser.add_argument("--patches", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--max_steps", type=int, default=240)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    root = make_demo_dataset(args.work / "demo_data")
    net = args.work / "feature_net" / "feature_net.safetensors"
    if not net.is_file():
        options = ["--patch_size", 40, "--patches_per_slice", 40, "--batch_size", 32, "--max_epochs", 5]
        run_together({"pretrain": recipe("pretrain.py", root, net.parent, *options)}, args.work / "logs", threads=2)
    options = ["--chans", 16, "--num_unrolls", 3, "--lr", 1e-3, "--feature_net", net, "--score_stride", 10]
    options += ["--max_steps", args.max_steps, "--max_epochs", 1000, "--limit_val_batches", 0, "--no-score"]
    for number in args.patches:
        folders = {seed: args.work / f"patches_{number}_seed_{seed}" for seed in args.seeds}
        for mode in ("train", "test"):
            commands = {}
            for seed, folder in folders.items():
                if (folder / "scores.json").is_file():
                    continue
                more = ["--mode", mode, "--patches_per_step", number, "--seed", seed]
                if mode == "test":
                    more += ["--checkpoint", folder / "checkpoints" / "last.ckpt"]
                commands[folder.name] = recipe("train.py", root, folder, *options, *more)
            run_together(commands, args.work / "logs")
    rows = []
    for number in args.patches:
        row = {"patches_per_step": number}
        for metric in METRICS:
            means = [
                np.mean([r[metric] for r in volume_scores(args.work / f"patches_{number}_seed_{seed}").values()])
                for seed in args.seeds
            ]
            row[metric] = float(np.mean(means))
            row["+- over seeds" + " " * METRICS.index(metric)] = float(np.ptp(means) / 2)
        rows.append(row)
    print(f"\n{args.max_steps} steps, {len(args.seeds)} seeds, means over the test volumes\n{format_table(rows)}")
    if args.json:
        args.json.write_text(json.dumps({"max_steps": args.max_steps, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
