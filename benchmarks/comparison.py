"""Real cardiac images at 5x: classical methods, MoDL with l2 and MoDL with UFLoss in one report.

    python benchmarks/comparison.py --data FOLDER --work FOLDER [--json FILE]

FOLDER holds the Sunnybrook cardiac images as npz files (`images` and `lv_masks` (n, 256, 256), a file for each
subject). They become 8-coil volumes by simulation, with phase and noise: 6 subjects are tested; of the 24 others 20
train the networks, and 4 choose the checkpoints and the weights of the classical methods. Sampling is the UFLoss
paper's, random columns with 8% center. UFLoss is learned from the training subjects, and scored by another network
of magnitudes, of another seed, beside the network of the loss. A U-Net trained on the fully sampled images gives the
semantic interpretability score. The same command again goes on where an interrupted run was.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from cardiac import HELD_OUT
from runs import RECIPES, recipe, run_together

from fastmri_ufloss.files import write_json
from fastmri_ufloss.report import format_table
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

VALIDATION = ("SC-HF-I-01", "SC-HF-NI-03", "SC-HYP-01", "SC-N-02")
MASK = ("--mask_type", "random", "--center_fractions", 0.08, "--accelerations", 5)
SNR = 30.0
SCORE_STRIDE = 20  # of the patches of UFLoss: the default takes a second each image and method
# a weight of 0 changes nothing but the log, which has UFLoss then too; all patches of stride 5, which a validation
# takes, would cost a quarter of a minute an image
MODL = {
    "modl_l2": ["--loss", "l2=1", "ufloss=0", "--stride", SCORE_STRIDE],
    "modl_ufloss": ["--loss", "l2=1", "ufloss=0.02", "--stride", SCORE_STRIDE],
}
TITLES = {
    "zero_filled": "zero-filled",
    "cg_sense": "CG-SENSE",
    "pics_wavelet": "PICS, l1-wavelet",
    "pics_tv": "PICS, total variation",
    "dlmri": "DLMRI",
    "modl_l2": "MoDL l2",
    "modl_ufloss": "MoDL l2+UFLoss",
}


def convert(source: Path, root: Path) -> None:
    """npz files to volumes with masks of the left ventricle."""
    files = sorted(source.glob("SC-*.npz"))
    if not files:
        sys.exit(f"error: no SC-*.npz in {source}")
    for number, file in enumerate(files):
        split = "test" if file.stem in HELD_OUT else "val" if file.stem in VALIDATION else "train"
        path = root / f"multicoil_{split}" / f"{file.stem}.h5"
        if path.is_file():
            continue
        arrays = np.load(file, allow_pickle=False)
        images = arrays["images"].astype(np.float32) / 255
        write_volume(
            path,
            simulate_kspace(images, num_coils=8, snr=SNR, seed=number),
            patient_id=file.stem,
            datasets={"segmentation": (arrays["lv_masks"] > 0).astype(np.uint8)},
        )


def pretrain(args: argparse.Namespace, root: Path) -> dict[str, Path]:
    """Feature networks by what they are for: the loss, and to score, of complex images and of magnitudes."""
    seeds = {"loss": (1, "combined"), "score": (11, "combined"), "score_rss": (11, "rss")}
    options = ["--patch_size", 40, "--patches_per_slice", 15, "--batch_size", 64]
    options += ["--max_epochs", args.pretrain_epochs]
    folders = {name: args.work / f"feature_net_{name}" for name in seeds}
    commands = {
        f"pretrain_{name}": recipe(
            "pretrain.py", root, folders[name], *options, "--images", images, "--seed", args.seed - 1 + seed
        )
        for name, (seed, images) in seeds.items()
        if not (folders[name] / "feature_net.safetensors").is_file()
    }
    run_together(commands, args.work / "logs", threads=args.threads)
    return {name: folder / "feature_net.safetensors" for name, folder in folders.items()}


def train(args: argparse.Namespace, root: Path, net: Path) -> None:
    """Both MoDLs side by side, and their images of the test subjects by the best checkpoints."""
    options = ["--chans", args.chans, "--num_unrolls", args.num_unrolls, "--lr", 1e-3, "--lr_gamma", 0.2]
    options += ["--lr_step_size", max(1, round(0.9 * args.max_epochs))]  # the last tenth with less
    options += ["--max_epochs", args.max_epochs, "--limit_train_batches", args.epoch_steps]
    options += ["--limit_val_batches", 24, "--num_log_images", 24, "--log_every_n_steps", 1]
    options += ["--seed", args.seed, "--no-score", *MASK]
    commands = {
        name: recipe("train.py", root, args.work / name, *options, *loss, "--feature_net", net)
        for name, loss in MODL.items()
    }
    run_together(commands, args.work / "logs", threads=args.threads)
    commands = {
        f"test_{name}": recipe("train.py", root, args.work / name, "--mode", "test", *MASK)
        for name in MODL
        if not (args.work / name / "scores.json").is_file()
    }
    run_together(commands, args.work / "logs", threads=args.threads)


def train_segmenter(args: argparse.Namespace, root: Path) -> Path:
    """The network of SIS, from its best epoch on the validation subjects, fully sampled."""
    folder = args.work / "segmenter"
    options = ["--data_path", root, "--default_root_dir", folder, "--seed", args.seed, "--num_workers", 1]
    options += ["--max_epochs", args.segment_epochs, "--loss", "dice_ce", "--lr", 1e-3, "--chans", 16]
    script = RECIPES.parent / "adversarial_refinement" / "train_segmentation.py"
    run_together({"segmenter": [sys.executable, *map(str, [script, *options])]}, args.work / "logs")
    return folder / "checkpoints" / "best.ckpt"


def classical(args: argparse.Namespace, root: Path) -> None:
    """The classical methods, with weights searched on the validation subjects."""
    script = RECIPES.parent / "classical" / "reconstruct.py"
    options = ["--data_path", root, "--output_path", args.work / "classical"]
    options += ["--cache_dir", args.work / "cache", "--num_workers", args.threads * 2, *MASK]
    run_together({"classical": [sys.executable, *map(str, [script, *options])]}, args.work / "logs")


def report(args: argparse.Namespace, root: Path, nets: dict[str, Path], segmenter: Path) -> None:
    """The page, and its numbers on the terminal and in the JSON file."""
    folders = {
        title: args.work / name / "reconstructions"
        if name in MODL
        else args.work / "classical/reconstructions" / name
        for name, title in TITLES.items()
    }
    test, output = root / "multicoil_test", args.work / "report"
    line = ["-m", "fastmri_ufloss.report", *(f"{title}={folder}" for title, folder in folders.items())]
    line += ["--reference", f"RSS={test}", f"coil-combined={args.work / 'classical' / 'reference'}"]
    line += ["--kspace", test, "--segmentations", test, "--segmenter", segmenter, "--stride", SCORE_STRIDE]
    line += ["--feature_net", f"magnitude={nets['score_rss']}", f"complex={nets['score']}"]
    line += ["--trained_on", f"complex, of the loss={nets['loss']}"]
    line += ["--baseline", TITLES["modl_l2"], "--focus", "SSIM (coil-combined)", "--output_path", output]
    run_together({"report": [sys.executable, *map(str, line)]}, args.work / "logs")
    document = json.loads((output / "report.json").read_text(encoding="utf-8"))
    for name in ("means", "comparisons"):
        print(f"\n{name}\n{format_table(document[name])}")
    print(*document["notes"], f"Page: {output / 'report.html'}", sep="\n")
    if args.json:
        searched = json.loads((args.work / "classical" / "weights.json").read_text(encoding="utf-8"))
        weights = {name: searched[name] for name in ("score", "methods")}
        settings = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
        tables = {name: document[name] for name in ("means", "comparisons", "notes", "excluded")}
        kept = {"settings": {**settings, "snr": SNR, "mask": list(MASK)}, "weights": weights, **tables}
        write_json(args.json, kept)


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
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pretrain_epochs", type=int, default=4)
    parser.add_argument("--max_epochs", type=int, default=12, help="of MoDL; the paper has 50")
    parser.add_argument("--epoch_steps", type=int, default=100, help="training steps that count as an epoch")
    parser.add_argument("--chans", type=int, default=16, help="of MoDL's denoiser")
    parser.add_argument("--num_unrolls", type=int, default=3, help="of MoDL; the paper has 5")
    parser.add_argument("--segment_epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="of each of the two processes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    settings = {name: str(value) for name, value in vars(args).items() if name not in ("work", "json", "threads")}
    check_settings(args.work / "settings.json", settings)
    root = args.work / "volumes"
    convert(args.data, root)
    nets = pretrain(args, root)
    train(args, root, nets["loss"])
    segmenter = train_segmenter(args, root)
    classical(args, root)
    report(args, root, nets, segmenter)


if __name__ == "__main__":
    main()
