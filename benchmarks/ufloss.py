"""Does UFLoss pay? MoDL that is trained out with l2, then trained further with each loss, before judges of its own.

    python benchmarks/ufloss.py --data FOLDER --work FOLDER [--split test] [--losses NAME ...] [--json FILE]

Data, simulation and split are those of `comparison.py`, and so is the network each training begins with: MoDL with
l2, 9,000 steps on bands of 32 rows at 5x (with the same --work it is not trained twice). Each loss then trains it for
the same steps at 4x, 5x and 8x by turns, on bands of 64 rows. The images of each are judged at each acceleration by
what no loss here was made of (`judges.py`): image metrics, spectra, UFLoss by two networks that were trained on other
seeds and magnitudes, one of another architecture, and the features of a network of photographs; and by details, discs
of 1 to 6 pixels and 5 to 40% contrast, put into the images before the scan is simulated.

Settings are chosen with ``--split val``, four subjects; ``--split test``, six others, is for the proof. The same
command again goes on where an interrupted run was.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from cardiac import HELD_OUT
from comparison import NETWORKS, SNR, VALIDATION, check_settings, convert
from judges import (
    ImageNetDistance,
    area_under_curve,
    place_details,
    quality,
    recovered,
    visible,
)
from runs import RECIPES, recipe, run_together

from fastmri_ufloss.files import write_json
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.subject_tables import paired_rows
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

ACCELERATIONS = (4, 5, 8)
CENTER = 0.08
UFLOSS = ["--feature_net", "general"]
LOSSES: dict[str, list[object]] = {
    "l2": ["--loss", "l2=1"],
    "l2 + UFLoss": ["--loss", "l2=1", "ufloss=auto", *UFLOSS],
    "l1": ["--loss", "l1=1"],
    "l1 + UFLoss": ["--loss", "l1=1", "ufloss=auto", *UFLOSS],
    "l1 + SSIM": ["--loss", "l1=1", "ssim=auto"],
    "l1 + SSIM + UFLoss": ["--loss", "l1=1", "ssim=auto", "ufloss=auto", *UFLOSS],
    "l2 + DSSIM": ["--loss", "l2=1", "dssim=auto"],
    "l2 + ImageNet": ["--loss", "l2=1", "perceptual=auto"],  # by train_imagenet.py
    "l2 + untrained features": ["--loss", "l2=1", "ufloss=auto", "--feature_net", "UNTRAINED"],
    "l2 + UFLoss of hearts": ["--loss", "l2=1", "ufloss=auto", "--feature_net", "HEARTS"],
    "l2 + UFLoss, ResNet-18 of hearts": ["--loss", "l2=1", "ufloss=auto", "--feature_net", "RESNET"],
    "l2 + UFLoss, ratio 0.3": ["--loss", "l2=1", "ufloss=auto:0.3", *UFLOSS],
    "l2 + UFLoss, ratio 3": ["--loss", "l2=1", "ufloss=auto:3", *UFLOSS],
    "l2 + UFLoss, ratio 10": ["--loss", "l2=1", "ufloss=auto:10", *UFLOSS],
    "l2 + 0.0002 UFLoss": ["--loss", "l2=1", "ufloss=0.0002", *UFLOSS],
    "l2 + 0.002 UFLoss": ["--loss", "l2=1", "ufloss=0.002", *UFLOSS],
    "l2 + 0.02 UFLoss": ["--loss", "l2=1", "ufloss=0.02", *UFLOSS],
}
NETS = {  # feature networks of losses and judges: options of pretrain.py
    "HEARTS": ["--images", "combined", "--architecture", "narrow", "--lr", 1e-3, "--phase_augmentation"],
    "RESNET": ["--images", "combined", "--lr", 1e-3, "--phase_augmentation"],
    "JUDGE": ["--images", "rss", "--architecture", "narrow", "--lr", 1e-3, "--seed", 7],
    "JUDGE18": ["--images", "rss", "--lr", 1e-3, "--seed", 8],
}
MORE = ["--magnitude_augmentation", "--patches_per_slice", 30, "--batch_size", 64]
BETTER = {"SSIM": True, "HaarPSI": True, "VSI": True, "detail kept": True, "detail seen": True}


def subjects_of(split: str) -> Sequence[str]:
    return VALIDATION if split == "val" else HELD_OUT


def convert_with_details(source: Path, root: Path) -> None:
    """The subjects to be scored with details in their images, and the same noise."""
    files = sorted(source.glob("SC-*.npz"))
    for number, file in enumerate(files):
        for split in ("val", "test"):
            path = root / f"multicoil_{split}_details" / file.name.replace(".npz", ".h5")
            if file.stem in subjects_of(split) and not path.is_file():
                images = np.load(file, allow_pickle=False)["images"].astype(np.float32) / 255
                changed, _ = place_details(images, seed=number)
                kspace = simulate_kspace(images, num_coils=8, snr=SNR, seed=number)
                # k-space is linear: what is added has no noise of its own
                kspace += simulate_kspace(changed - images, num_coils=8, snr=np.inf, seed=number)
                write_volume(path, kspace, patient_id=file.stem)


def pretrain(args: argparse.Namespace, root: Path) -> dict[str, Path]:
    """The feature networks, and an untrained one."""
    folders = {name: args.work / f"feature_net_{name}" for name in NETS}
    commands = {
        f"pretrain_{name}": recipe(
            "pretrain.py", root, folder, *MORE, "--max_steps", 3000 if "narrow" in NETS[name] else 600, *NETS[name]
        )
        for name, folder in folders.items()
        if not (folder / "feature_net.safetensors").is_file()
    }
    run_together(commands, args.work / "logs", processes=args.processes)
    files = {name: folder / "feature_net.safetensors" for name, folder in folders.items()}
    files["UNTRAINED"] = args.work / "untrained.safetensors"
    if not files["UNTRAINED"].is_file():
        PatchFeatureNet(2, architecture="narrow", training_data="none").save(files["UNTRAINED"])
    return files


def train(args: argparse.Namespace, root: Path, nets: dict[str, Path]) -> dict[str, Path]:
    """Train MoDL with l2 with each seed, then further with each loss; returns the folders of the runs."""
    logs, base = args.work / "logs", NETWORKS["modl"]
    first, tuned, folders = {}, {}, {}
    for seed in range(1, 1 + args.seeds):
        begun = args.work / f"modl_seed{seed}_steps{base.steps}"
        common = ["--max_epochs", 100_000, "--limit_val_batches", 0, "--num_workers", 0, "--no-score", "--seed", seed]
        mask = ["--mask_type", "random", "--center_fractions", CENTER, "--accelerations", 5]
        if not (begun / "scores.json").is_file():
            options = ["--max_steps", base.steps, *common, *mask, *base.options]
            first[begun.name] = recipe("train.py", root, begun, *options)
        masks = ["--mask_type", "random", "--center_fractions", *[CENTER] * 3, "--accelerations", *ACCELERATIONS]
        for name in args.losses:
            run = args.work / f"{name}, seed {seed}".replace(" ", "_")
            flags = [nets.get(str(flag), flag) for flag in LOSSES[name]]
            options = ["--init_checkpoint", begun / "checkpoints" / "last.ckpt", "--max_steps", args.steps, *common]
            options += ["--lr", args.lr, "--train_rows", 64, *masks, *flags]
            script = Path(__file__).with_name("train_imagenet.py") if "ImageNet" in name else RECIPES / "train.py"
            folders[f"{name}, seed {seed}"] = run
            if not (run / "trained").is_file():
                tuned[run.name] = recipe(script, root, run, *options)
    run_together(first, logs, processes=args.processes)
    seconds = run_together(tuned, logs, processes=args.processes)
    for name, value in seconds.items():
        (args.work / name / "trained").write_text(f"{value:.0f} CPU seconds\n", encoding="utf-8")
    return folders


def images_of(run: Path, acceleration: int, split: str) -> Path:
    return run.with_name(f"test_{run.name}_{acceleration}x_{split}")


def test(args: argparse.Namespace, root: Path, folders: dict[str, Path]) -> None:
    """The images of each run at each acceleration, without and with details."""
    commands = {}
    for run in folders.values():
        for acceleration in ACCELERATIONS:
            for kind in ("", "_details") if acceleration == 5 else ("",):
                split = f"multicoil_{args.split}{kind}"
                folder = images_of(run, acceleration, split)
                if not all((folder / "reconstructions" / f"{s}.h5").is_file() for s in subjects_of(args.split)):
                    options = ["--mode", "test", "--checkpoint", run / "checkpoints" / "last.ckpt"]
                    options += ["--test_path", root / split, "--mask_type", "random", "--num_workers", 0]
                    options += ["--center_fractions", CENTER, "--accelerations", acceleration]
                    commands[folder.name] = recipe("train.py", root, folder, *options)
    run_together(commands, args.work / "logs", processes=args.processes)


def read(folder: Path, name: str) -> np.ndarray:
    with h5py.File(folder / name, "r") as file:
        images: np.ndarray = file["reconstruction"][()].astype(np.float64)
    return images


def judge(args: argparse.Namespace, folders: dict[str, Path], nets: dict[str, Path]) -> dict[str, Any]:
    """Scores by run, acceleration and subject, kept in files beside the images."""
    networks = {"narrow": PatchFeatureNet.load(nets["JUDGE"]), "ResNet-18": PatchFeatureNet.load(nets["JUDGE18"])}
    imagenet = ImageNetDistance()
    numbers = {file.stem: n for n, file in enumerate(sorted(args.data.glob("SC-*.npz")))}
    scores: dict[str, Any] = {}
    for title, run in folders.items():
        for acceleration in ACCELERATIONS:
            folder = images_of(run, acceleration, f"multicoil_{args.split}")
            file = folder / "judged.json"
            if not file.is_file():
                values: dict[str, dict[str, float]] = {}
                for subject in subjects_of(args.split):
                    name = f"{subject}.h5"
                    outputs = read(folder / "reconstructions", name)
                    references = read(folder / "stages" / "reference", name)
                    values[subject] = quality(outputs, references, networks=networks, imagenet=imagenet)
                    if acceleration == 5:
                        values[subject] |= of_details(args, folder, subject, numbers[subject], outputs, references)
                write_json(file, values)
            scores.setdefault(title, {})[acceleration] = json.loads(file.read_text(encoding="utf-8"))
    return scores


def of_details(
    args: argparse.Namespace, folder: Path, subject: str, number: int, outputs: np.ndarray, references: np.ndarray
) -> dict[str, float]:
    """How much of the details' contrast is kept, and how well they are told from places without."""
    images = np.load(args.data / f"{subject}.npz", allow_pickle=False)["images"].astype(np.float32) / 255
    _, details = place_details(images, seed=number)
    twin, name = folder.with_name(f"{folder.name}_details"), f"{subject}.h5"
    changed, wanted = read(twin / "reconstructions", name), read(twin / "stages" / "reference", name) - references
    kept = np.array([recovered(detail, changed, outputs, wanted) for detail in details])
    seen = [np.array([visible(detail, images) for detail in details]) for images in (changed, outputs)]
    small = np.array([detail.radius < 1 for detail in details])
    faint = np.array([abs(detail.contrast) <= 0.1 for detail in details])
    return {
        "detail kept": float(np.median(kept)),
        "small detail kept": float(np.median(kept[small])),
        "detail seen": area_under_curve(*seen),
        "faint detail seen": area_under_curve(seen[0][faint], seen[1][faint]),
    }


def report(args: argparse.Namespace, scores: dict[str, Any]) -> dict[str, Any]:
    """Means of each loss over seeds and subjects, and each loss against l2, paired by subject."""
    tables: dict[str, Any] = {}
    for acceleration in ACCELERATIONS:
        by_loss: dict[str, dict[str, dict[str, float]]] = {}
        for name in args.losses:
            seeds = [scores[f"{name}, seed {seed}"][acceleration] for seed in range(1, 1 + args.seeds)]
            by_loss[name] = {
                subject: {metric: float(np.mean([s[subject][metric] for s in seeds])) for metric in seeds[0][subject]}
                for subject in seeds[0]
            }
        metrics = list(next(iter(by_loss[args.losses[0]].values())))
        rows = [
            {"loss": name, **{m: float(np.mean([values[m] for values in of.values()])) for m in metrics}}
            for name, of in by_loss.items()
        ]
        print(f"\n{acceleration}x\n{format_table(rows)}")
        larger = {metric: metric in BETTER or "detail" in metric for metric in metrics if "spectrum" not in metric}
        paired = {
            name: paired_rows(("l2", by_loss["l2"]), (name, by_loss[name]), larger)
            for name in args.losses
            if name != "l2" and "l2" in by_loss
        }
        tables[f"{acceleration}x"] = {"means": rows, "paired with l2": paired, "by subject": by_loss}
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for volumes, caches and runs")
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1_500, help="of the further training")
    parser.add_argument("--lr", type=float, default=1e-3, help="of the further training")
    parser.add_argument("--processes", type=int, default=2, help="side by side, of one thread each")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not args.data.is_dir():
        sys.exit(f"error: no folder {args.data}")
    check_settings(args.work / "ufloss.json", {name: str(getattr(args, name)) for name in ("data", "steps", "lr")})
    root = args.work / "volumes"
    convert(args.data, root)
    convert_with_details(args.data, root)
    nets = pretrain(args, root)
    folders = train(args, root, nets)
    test(args, root, folders)
    tables = report(args, judge(args, folders, nets))
    if args.json:
        settings = {name: getattr(args, name) for name in ("split", "seeds", "steps", "lr")}
        write_json(args.json, {"settings": settings, **tables})


if __name__ == "__main__":
    main()
