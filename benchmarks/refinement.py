"""Real cardiac images: RecNet, its adversarial refinement, and joint training, by subject, as in Seitzer et al.

    python benchmarks/refinement.py --data FOLDER --work FOLDER [--json FILE]

FOLDER holds the Sunnybrook cardiac images as npz files (`images` and `lv_masks` (n, 256, 256), a file for each
subject). They become volumes of a single coil and of 8 simulated coils, 24 subjects for training and 6 for scores,
sampled 8x with lines of a 1D Gaussian density. The perceptual term is UFLoss, with a feature network that is trained
here; a second network, of another seed, scores. A U-Net that is trained on the fully sampled images and the masks of
the left ventricle gives the semantic interpretability score, from its best epoch on the scored subjects, fully
sampled. The other networks are taken after their last step. The subjects are the unit of the statistics. The same
command again goes on where an interrupted run was.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from runs import HELD_OUT, RECIPES, recipe, run_together

from fastmri_ufloss.report import format_table
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

FOLDER = "../adversarial_refinement"  # from that of the other recipes
CHALLENGES = {"singlecoil": None, "multicoil": 8}  # and their coils
MASK = ("--mask_type", "gaussian_1d", "--center_fractions", 0.03125, "--accelerations", 8)
SNR = 30.0
SCORE_STRIDE = 20  # of the patches of UFLoss: the default takes a second each image and method


def script(name: str) -> Path:
    """The path of a recipe of this comparison."""
    return RECIPES / FOLDER / name


def convert(source: Path, root: Path) -> None:
    """npz files to volumes with masks, for both challenges."""
    files = sorted(source.glob("SC-*.npz"))
    if not files:
        sys.exit(f"error: no SC-*.npz in {source}")
    for number, file in enumerate(files):
        split = "val" if file.stem in HELD_OUT else "train"
        for challenge, num_coils in CHALLENGES.items():
            path = root / f"{challenge}_{split}" / f"{file.stem}.h5"
            if path.is_file():
                continue
            arrays = np.load(file, allow_pickle=False)
            images = arrays["images"].astype(np.float32) / 255
            write_volume(
                path,
                simulate_kspace(images, num_coils=num_coils, snr=SNR, seed=number),
                patient_id=file.stem,
                datasets={"segmentation": (arrays["lv_masks"] > 0).astype(np.uint8)},
            )


def train_helpers(args: argparse.Namespace, root: Path) -> tuple[Path, dict[str, Path]]:
    """The segmentation network, and the feature networks by what they are for."""
    segmenter = args.work / "segmenter"
    nets = {name: args.work / f"feature_net_{name}" for name in ("loss", "score")}
    options = ["--challenge", "singlecoil", "--images", "rss", "--patch_size", 40, "--patches_per_slice", 15]
    options += ["--batch_size", 64, "--max_epochs", args.pretrain_epochs, *MASK]
    pretrain = {
        f"pretrain_{name}": recipe("pretrain.py", root, folder, *options, "--seed", args.seed + 10 * number)
        for number, (name, folder) in enumerate(nets.items())
        if not (folder / "feature_net.safetensors").is_file()
    }
    line: list[object] = [
        script("train_segmentation.py"), "--challenge", "singlecoil", "--data_path", root,
        "--default_root_dir", segmenter, "--seed", args.seed, "--max_epochs", args.segment_epochs,
        "--loss", "dice_ce", "--lr", 1e-3, "--chans", args.segment_chans, "--num_workers", 1,
    ]  # fmt: skip
    segment = [sys.executable, *map(str, line)]
    run_together({**pretrain, "segmenter": segment}, args.work / "logs", threads=args.threads)
    files = {name: folder / "feature_net.safetensors" for name, folder in nets.items()}
    return segmenter / "checkpoints" / "best.ckpt", files


def train(args: argparse.Namespace, root: Path, net: Path) -> None:
    """RecNet, then refinement and joint training, each for both challenges side by side."""
    common: list[object] = ["--limit_val_batches", 0, "--seed", args.seed, *MASK]
    adversarial = ["--perceptual", "ufloss", "--feature_net", net, "--patches_per_step", args.patches_per_step]
    adversarial += ["--discriminator_chans", args.discriminator_chans, "--batch_size", args.batch_size]
    steps: dict[str, tuple[str, list[object]]] = {
        "recnet": ("train_recnet.py", ["--lr", args.recnet_lr, "--max_epochs", args.recnet_epochs,
                                       "--batch_size", args.recnet_batch_size, "--lr_step_size", 1, "--lr_gamma", 1,
                                       "--gradient_clip_val", "null", "--train_rows", "null"]),
        "refinement": ("train_refinement.py", [*adversarial, "--refinement_chans", args.refinement_chans,
                                               "--max_epochs", args.refinement_epochs, "--lr", args.lr]),
        "joint": ("train_refinement.py", ["--joint", *adversarial, "--max_epochs", args.joint_epochs,
                                          "--lr", args.recnet_lr]),
    }  # fmt: skip
    for step, (name, options) in steps.items():
        commands = {}
        for challenge in args.challenges:
            recon = args.work / f"recnet_{challenge}" / "checkpoints" / "last.ckpt"
            more = [] if step == "recnet" else ["--recon", recon]
            if step == "recnet" and challenge == "multicoil":
                more = ["--data_consistency", args.data_consistency]
            run_dir = args.work / f"{step}_{challenge}"
            if not (run_dir / "scores.json").is_file():
                commands[run_dir.name] = recipe(
                    f"{FOLDER}/{name}", root, run_dir, "--challenge", challenge, *common, *options, *more
                )
        run_together(commands, args.work / "logs", threads=args.threads)


def score(args: argparse.Namespace, root: Path, segmenter: Path, net: Path) -> None:
    """Tables and pictures of each challenge, with the reference of the refinement's test."""
    commands = {}
    for challenge in args.challenges:
        refined = args.work / f"refinement_{challenge}"
        methods = {
            "zero-filled": refined / "stages" / "zero_filled",
            "RecNet": refined / "stages" / "reconstruction",
            "RecNet + refinement": refined / "reconstructions",
            "joint": args.work / f"joint_{challenge}" / "reconstructions",
        }
        line: list[object] = [
            "-m", "fastmri_ufloss.report", *(f"{name}={folder}" for name, folder in methods.items()),
            "--reference", refined / "stages" / "reference",
            "--segmentations", root / f"{challenge}_val", "--segmenter", segmenter, "--feature_net", net,
            "--stride", SCORE_STRIDE,
            "--baseline", "RecNet", "--output_path", args.work / f"report_{challenge}",
        ]  # fmt: skip
        commands[f"report_{challenge}"] = [sys.executable, *map(str, line)]
    run_together(commands, args.work / "logs", threads=args.threads)


def report(args: argparse.Namespace) -> None:
    """Tables on the terminal and in the JSON file."""
    settings = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    document: dict[str, object] = {"settings": {**settings, "snr": SNR, "mask": list(MASK)}}
    for challenge in args.challenges:
        scores = json.loads((args.work / f"report_{challenge}" / "report.json").read_text(encoding="utf-8"))
        scores.pop("slices")
        document[challenge] = scores
        for name in ("means", "comparisons"):
            print(f"\n{challenge}: {name}\n{format_table(scores[name])}")
        print(*scores["notes"], sep="\n")
    if args.json:
        args.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for volumes, caches and runs")
    parser.add_argument("--challenges", nargs="+", choices=tuple(CHALLENGES), default=list(CHALLENGES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pretrain_epochs", type=int, default=3)
    parser.add_argument("--segment_epochs", type=int, default=20, help="the paper's code has 200")
    parser.add_argument("--segment_chans", type=int, default=16, help="the paper's code has 32")
    parser.add_argument(
        "--recnet_epochs", type=int, default=8, help="the paper has 1500, of 2.9 times as many slices"
    )
    parser.add_argument("--recnet_lr", type=float, default=1e-3, help="the paper has 2e-4, for more epochs")
    parser.add_argument("--recnet_batch_size", type=int, default=2, help="the paper has 20")
    parser.add_argument("--data_consistency", default="soft", help="of 8 coils; one coil has the paper's")
    parser.add_argument("--refinement_epochs", type=int, default=6, help="the paper has 200")
    parser.add_argument("--lr", type=float, default=5e-4, help="of the refinement; the paper has 2e-4")
    parser.add_argument("--joint_epochs", type=int, default=6)
    parser.add_argument("--refinement_chans", type=int, default=8, help="the paper has 32")
    parser.add_argument("--discriminator_chans", type=int, default=16, help="the paper has 64")
    parser.add_argument("--batch_size", type=int, default=2, help="of refinement and joint training; the paper has 5")
    parser.add_argument("--patches_per_step", type=int, default=24, help="of UFLoss, of each image")
    parser.add_argument("--threads", type=int, default=1, help="of each of the processes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    root = args.work / "volumes"
    convert(args.data, root)
    segmenter, nets = train_helpers(args, root)
    train(args, root, nets["loss"])
    score(args, root, segmenter, nets["score"])
    report(args)


if __name__ == "__main__":
    main()
