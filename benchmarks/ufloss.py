"""Does UFLoss pay? MoDL that is trained out with l2, then trained further with each loss, before judges of its own.

    python benchmarks/ufloss.py --data FOLDER --work FOLDER [--split test] [--rows NAME ...] [--json FILE]

Data, simulation and split are those of `comparison.py`, and so are the networks that trainings begin with: MoDL with
l2, 9,000 steps on bands of 32 rows at 5x, and RecNet (with the same --work nothing is trained twice). Each loss then
trains MoDL for the same steps at 4x, 5x and 8x by turns, on bands of 64 rows, and UFLoss once from the start; the
refinement is stage 2 of Seitzer et al., on whole slices. At each acceleration the images are judged by what no loss
here was made of (`judges.py`): image metrics, spectra, UFLoss by two networks that were trained on other seeds and
magnitudes, one of another architecture, the features of a network of photographs, Dice of a segmentation network over
its Dice on the references (SIS), the part of the acquired samples that an image does not explain; and by details,
discs of 1 to 6 pixels and 5 to 40% contrast, put into the images before the scan is simulated.

Settings are chosen with ``--split val``, four subjects; ``--split test``, six others, is for the proof. The same
command again goes on where an interrupted run was. Smaller: --begin_steps, --steps, --judge_at.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from comparison import NETWORKS, SNR, check_settings, convert
from judges import DiceOfSegmenter, ImageNetDistance, details_scores, place_details, quality
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from runs import HELD_OUT, RECIPES, VALIDATION, recipe, run_together

from fastmri_ufloss.data import MoDLDataTransform, SensMapCache
from fastmri_ufloss.data.masks import create_mask_for_mask_type
from fastmri_ufloss.files import write_json
from fastmri_ufloss.models import PatchFeatureNet, load_segmenter, read_checkpoint
from fastmri_ufloss.mri.sense import data_residual
from fastmri_ufloss.pl_modules import MriDataModule, RefinementModule, load_reconstruction
from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.figures.drawing import write_figure
from fastmri_ufloss.report.figures.panels import save_panels
from fastmri_ufloss.report.subject_tables import paired_rows
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

ACCELERATIONS = (4, 5, 8)
JUDGED = 5  # where details are, and what pictures show
CENTER = 0.08
UFLOSS = ("--feature_net", "general")
LAYERS = (*UFLOSS, "--inner_layers")
ROWS: dict[str, Sequence[object] | None] = {  # what MoDL is trained further with
    "before": None,
    "l2": ["--loss", "l2=1"],
    "l2 + UFLoss": ["--loss", "l2=1", "ufloss=auto", *UFLOSS],
    "l2 + UFLoss, layers": ["--loss", "l2=1", "ufloss=auto", *LAYERS],
    "l2 + UFLoss, layers, ratio 2": ["--loss", "l2=1", "ufloss=auto:2", *LAYERS],
    "l1": ["--loss", "l1=1"],
    "l1 + UFLoss": ["--loss", "l1=1", "ufloss=auto", *UFLOSS],
    "l1 + SSIM": ["--loss", "l1=1", "ssim=1"],
    "l1 + SSIM + UFLoss": ["--loss", "l1=1", "ssim=1", "ufloss=auto", *UFLOSS],
    "l1 + SSIM + UFLoss, layers": ["--loss", "l1=1", "ssim=1", "ufloss=auto", *LAYERS],
    "l2 + DSSIM": ["--loss", "l2=1", "dssim=auto"],
    "l2 + HaarPSI": ["--loss", "l2=1", "haarpsi=auto"],
    "l2 + ImageNet": ["--loss", "l2=1", "perceptual=auto"],  # by train_imagenet.py
    "l2 + untrained features": ["--loss", "l2=1", "ufloss=auto", "--feature_net", "UNTRAINED"],
    "l2 + UFLoss of hearts": ["--loss", "l2=1", "ufloss=auto", "--feature_net", "HEARTS"],
    "l2 + UFLoss, ResNet-18 of hearts": ["--loss", "l2=1", "ufloss=auto", "--feature_net", "RESNET"],
    "l2 + UFLoss, ratio 0.3": ["--loss", "l2=1", "ufloss=auto:0.3", *UFLOSS],
    "l2 + UFLoss, ratio 3": ["--loss", "l2=1", "ufloss=auto:3", *UFLOSS],
    "l2 + UFLoss, ratio 10": ["--loss", "l2=1", "ufloss=auto:10", *UFLOSS],
    "l2 + untrained features, layers": [
        *("--loss", "l2=1", "ufloss=auto", "--feature_net", "UNTRAINED", "--inner_layers")
    ],
    "l2 + untrained features, ratio 3": ["--loss", "l2=1", "ufloss=auto:3", "--feature_net", "UNTRAINED"],
    "l2 + UFLoss, patches of 40": ["--loss", "l2=1", "ufloss=auto", *UFLOSS, "--patch_size", 40],
    "l2 + 0.0002 UFLoss": ["--loss", "l2=1", "ufloss=0.0002", *UFLOSS],
    "l2 + 0.002 UFLoss": ["--loss", "l2=1", "ufloss=0.002", *UFLOSS],
    "l2 + 0.02 UFLoss": ["--loss", "l2=1", "ufloss=0.02", *UFLOSS],
    "l2 + UFLoss, from the start": ["--loss", "l2=1", "ufloss=auto", *UFLOSS],
    "l2, refined": ["--refinement_chans", 16, "--discriminator_chans", 16, "--lr", 5e-4, "--batch_size", 2],
    "RecNet": None,
    "RecNet, refined": ["--refinement_chans", 16, "--discriminator_chans", 16, "--lr", 5e-4, "--batch_size", 2],
}
SETTINGS = ("begin_steps", "steps", "lr", "judge_at")
REFINEMENT_EPOCHS = 4
FROM_START = 5_600  # steps that take as long as l2 first and 1,000 steps more
NETS = {  # feature networks of losses and judges: options of pretrain.py
    "HEARTS": ["--images", "combined", "--architecture", "narrow", "--lr", 1e-3, "--phase_augmentation"],
    "RESNET": ["--images", "combined", "--lr", 1e-3, "--phase_augmentation"],
    "JUDGE": ["--images", "rss", "--architecture", "narrow", "--lr", 1e-3, "--seed", 7],
    "JUDGE18": ["--images", "rss", "--lr", 1e-3, "--seed", 8],
}
MORE = ["--magnitude_augmentation", "--patches_per_slice", 30, "--batch_size", 64]
LARGER = (
    "PSNR",
    "SSIM",
    "HaarPSI",
    "VSI",
    "SIS",
    "detail kept",
    "small detail kept",
    "detail seen",
    "faint detail seen",
)
FIGURE = {  # metrics of the perception-distortion curve
    "UFLoss, narrow": "UFLoss by a network not trained on",
    "UFLoss, ResNet-18": "UFLoss by a ResNet-18 not trained on",
    "ImageNet": "distance of features of photographs",
    "HaarPSI": "HaarPSI",
    "spectrum 0.75-1": "power in the highest band of spatial frequency",
    "small detail kept": "contrast of details of a pixel",
}
CURVES = {
    "l2 + UFLoss": ["l2", "l2 + UFLoss", "l2 + UFLoss, ratio 3"],
    "l2 + UFLoss, layers": ["l2", "l2 + UFLoss, layers", "l2 + UFLoss, layers, ratio 2"],
    "l2 + untrained features": ["l2", "l2 + untrained features", "l2 + untrained features, ratio 3"],
}
ALONE = ("l1 + SSIM", "l1 + SSIM + UFLoss, layers", "l2 + ImageNet", "l2, refined")


class Run(NamedTuple):
    """A row with a seed, and the checkpoint that is judged."""

    row: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.row}, seed {self.seed}".replace(" ", "_")

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"


def subjects_of(split: str) -> Sequence[str]:
    return VALIDATION if split == "val" else HELD_OUT


def read_subject(file: Path, name: str) -> np.ndarray:
    array: np.ndarray = np.load(file, allow_pickle=False)[name]
    return array.astype(np.float32) / 255 if name == "images" else (array > 0).astype(np.uint8)


def convert_more(source: Path, root: Path) -> None:
    """The subjects to be scored with details in their images and the same noise, the others with segmentations."""
    for number, file in enumerate(sorted(source.glob("SC-*.npz"))):
        images = read_subject(file, "images")
        if file.stem not in HELD_OUT:
            split = "val" if file.stem in VALIDATION else "train"
            path = root / f"singlecoil_{split}" / f"{file.stem}.h5"
            if not path.is_file():
                masks = {"segmentation": read_subject(file, "lv_masks")}
                kspace = simulate_kspace(images, num_coils=None, snr=SNR, seed=number)
                write_volume(path, kspace, patient_id=file.stem, datasets=masks)
        for split in ("val", "test"):
            path = root / f"multicoil_{split}_details" / f"{file.stem}.h5"
            if file.stem in subjects_of(split) and not path.is_file():
                changed, _ = place_details(images, seed=number)
                kspace = simulate_kspace(images, num_coils=8, snr=SNR, seed=number)
                # k-space is linear: what is added has no noise of its own
                kspace += simulate_kspace(changed - images, num_coils=8, snr=np.inf, seed=number)
                write_volume(path, kspace, patient_id=file.stem)


def train_helpers(args: argparse.Namespace, root: Path) -> tuple[dict[str, Path], Path]:
    """The feature networks of the rows and of the judges, an untrained one, and the segmentation network."""
    used = {"JUDGE", "JUDGE18"}.union(*(ROWS[row] or () for row in args.rows))
    folders, segmenter = {x: args.work / f"feature_net_{x}" for x in NETS if x in used}, args.work / "segmenter"
    commands = {
        f"pretrain_{name}": recipe(
            "pretrain.py", root, folder, *MORE, "--max_steps", 3000 if "narrow" in NETS[name] else 600, *NETS[name]
        )
        for name, folder in folders.items()
        if not (folder / "feature_net.safetensors").is_file()
    }
    if not (segmenter / "trained").is_file():
        script = RECIPES / "../adversarial_refinement/train_segmentation.py"
        line: list[object] = [script, "--challenge", "singlecoil", "--data_path", root]
        line += ["--default_root_dir", segmenter, "--max_epochs", 20, "--loss", "dice_ce"]
        line += ["--lr", 1e-3, "--chans", 16, "--num_workers", 0]
        commands["segmenter"] = [sys.executable, *map(str, line)]
    run_each(args, commands)
    files = {name: folder / "feature_net.safetensors" for name, folder in folders.items()}
    files["UNTRAINED"] = args.work / "untrained.safetensors"
    if not files["UNTRAINED"].is_file():
        torch.manual_seed(0)
        PatchFeatureNet(2, architecture="narrow", training_data="none").save(files["UNTRAINED"])
    return files, segmenter / "checkpoints" / "best.ckpt"


def run_each(args: argparse.Namespace, commands: Mapping[str, Sequence[str]]) -> None:
    """Run trainings side by side; a file in the folder of each says that it has ended, and its CPU seconds."""

    def run(name: str) -> None:
        seconds = run_together({name: commands[name]}, args.work / "logs")[name]
        if (args.work / name).is_dir():
            (args.work / name / "trained").write_text(f"{seconds:.0f}\n", encoding="utf-8")

    with ThreadPoolExecutor(args.processes) as pool:
        for _ in pool.map(run, commands):
            pass


def train(args: argparse.Namespace, root: Path, nets: Mapping[str, Path]) -> list[Run]:
    """Train MoDL with l2 with each seed, then further; and RecNet, once, and its refinement with each seed."""
    first: dict[str, list[str]] = {}
    tuned: dict[str, list[str]] = {}
    runs = []
    common = ["--max_epochs", 100_000, "--limit_val_batches", 0, "--num_workers", 0, "--no-score"]
    masks = ["--mask_type", "random", "--center_fractions", *[CENTER] * 3, "--accelerations", *ACCELERATIONS]
    for row in args.rows:
        network = "recnet" if row.startswith("RecNet") else "modl"
        kind, options = NETWORKS[network], ROWS[row]
        seeds = 1 if row == "RecNet" else args.seeds  # which is trained once
        steps = args.begin_steps if network == "modl" else kind.steps
        for seed in range(1, 1 + seeds):
            begun = args.work / f"{network}_seed{1 if network == 'recnet' else seed}_steps{steps}"
            if not (begun / "scores.json").is_file() and not (begun / "trained").is_file():
                mask = ["--mask_type", "random", "--center_fractions", CENTER, "--accelerations", 5]
                flags = ["--max_steps", steps, *common, "--seed", seed, *mask, *kind.options]
                first.setdefault(begun.name, recipe(kind.script, root, begun, *flags))
            run = Run(row, seed, begun)
            if options is not None:
                run = run._replace(folder=args.work / run.name)
                begin = ["--init_checkpoint", begun / "checkpoints" / "last.ckpt", "--max_steps", args.steps]
                begin += ["--lr", args.lr, "--train_rows", 64]
                script: str | Path = "train.py"
                if row.endswith("refined"):
                    script = "../adversarial_refinement/train_refinement.py"
                    begin = ["--recon", begun / "checkpoints" / "last.ckpt", "--max_epochs", REFINEMENT_EPOCHS]
                elif row.endswith("from the start"):
                    begin = ["--max_steps", FROM_START, "--train_rows", 64]
                elif "ImageNet" in row:
                    script = Path(__file__).with_name("train_imagenet.py").resolve()
                flags = [*common, *begin, "--seed", seed, *masks, *(nets.get(str(flag), flag) for flag in options)]
                if not (run.folder / "trained").is_file():
                    tuned[run.name] = recipe(script, root, run.folder, *flags)
            runs.append(run)
    for commands in (first, tuned):
        run_each(args, commands)
    return runs


def reconstruct(module: Any, folder: Path, acceleration: int, cache: Path) -> dict[str, dict[str, np.ndarray]]:
    """Magnitudes ``outputs`` and ``references`` and the ``residuals`` of the slices, by subject."""
    mask = create_mask_for_mask_type("random", [CENTER], [acceleration])
    transform = MoDLDataTransform(mask, sens_maps=SensMapCache(cache / "sens_maps"), keep_reference=True)
    transforms = (transform,) * 3
    data = MriDataModule(
        folder.parent, "multicoil", *transforms, cache_dir=cache, mask_func=mask, test_path=folder, num_workers=0
    )
    data.build_index("test")
    rows: dict[str, list[tuple[np.ndarray, ...]]] = {}
    for batch in data.test_dataloader():
        with torch.no_grad():
            result = module.reconstruct(batch)
        residual = data_residual(result.image[:, 0], batch.masked_kspace, batch.mask, result.sens_maps)
        slices = result.image[0, 0].abs(), result.reference[0, 0].abs(), residual[0]
        rows.setdefault(Path(batch.fname[0]).stem, []).append(tuple(x.double().numpy() for x in slices))
    names = ("outputs", "references", "residuals")
    return {
        subject: dict(zip(names, map(np.stack, zip(*of_slices, strict=True)), strict=True))
        for subject, of_slices in rows.items()
    }


def judge(run: Run, args: argparse.Namespace, root: Path, nets: Mapping[str, Path], segmenter: Path) -> None:
    """Scores of a run by acceleration and subject, into a file, and an image of each."""
    file = judged_file(args, run)
    if file.is_file():
        return
    torch.set_num_threads(1)
    is_refined = any(name.startswith("refinement.") for name in read_checkpoint(run.checkpoint)["state_dict"])
    load: Any = RefinementModule.load_from_checkpoint if is_refined else load_reconstruction
    module = load(run.checkpoint).eval()
    networks = {"narrow": PatchFeatureNet.load(nets["JUDGE"]), "ResNet-18": PatchFeatureNet.load(nets["JUDGE18"])}
    imagenet, dice = ImageNetDistance(), DiceOfSegmenter(load_segmenter(segmenter))
    numbers = {path.stem: number for number, path in enumerate(sorted(args.data.glob("SC-*.npz")))}
    scores: dict[str, Any] = {}
    folder, cache = root / f"multicoil_{args.split}", args.work / "cache"
    for acceleration in args.judge_at:
        subjects = reconstruct(module, folder, acceleration, cache)
        twins = {}
        if acceleration == JUDGED:
            twins = reconstruct(module, folder.with_name(f"{folder.name}_details"), acceleration, cache)
        for subject, images in subjects.items():
            outputs, references = images["outputs"], images["references"]
            row = quality(outputs, references, networks=networks, imagenet=imagenet)
            row["residual"] = float(images["residuals"].mean())
            masks = read_subject(args.data / f"{subject}.npz", "lv_masks")
            row["SIS"] = dice(outputs, masks) / dice(references, masks)
            if twins:
                twin = twins[subject]
                _, details = place_details(
                    read_subject(args.data / f"{subject}.npz", "images"), seed=numbers[subject]
                )
                row |= details_scores(details, twin["outputs"], outputs, twin["references"] - references)
            scores.setdefault(f"{acceleration}x", {})[subject] = row
        if acceleration == JUDGED:
            shown = subjects[min(subjects)]
            middle = len(shown["outputs"]) // 2
            np.savez(file.with_suffix(".npz"), **{name: shown[name][middle] for name in ("outputs", "references")})
    write_json(file, scores)


def judged_file(args: argparse.Namespace, run: Run) -> Path:
    folder: Path = args.work / "judged"
    folder.mkdir(exist_ok=True)
    return folder / f"{args.split}_{run.name}.json"


def report(args: argparse.Namespace, runs: Sequence[Run]) -> dict[str, Any]:
    """Means of each row over seeds and subjects, and each row against l2, paired by subject."""
    scores = {(run.row, run.seed): json.loads(judged_file(args, run).read_text(encoding="utf-8")) for run in runs}
    tables: dict[str, Any] = {}
    for at in (f"{acceleration}x" for acceleration in args.judge_at):
        seeds: dict[str, list[dict[str, dict[str, float]]]] = {}
        for (row, _), of_run in scores.items():
            seeds.setdefault(row, []).append(of_run[at])
        by_row = {
            row: {s: {m: float(np.mean([x[s][m] for x in each])) for m in each[0][s]} for s in each[0]}
            for row, each in seeds.items()
        }
        metrics = list(next(iter(next(iter(by_row.values())).values())))
        means = [
            {"trained with": row, **{m: float(np.mean([values[m] for values in of.values()])) for m in metrics}}
            for row, of in by_row.items()
        ]
        print(f"\n{at}\n{format_table(means)}")
        tables[at] = {"means": means, "by seed and subject": seeds}
        if "l2" in by_row:
            # of sharpness, spectra and residual neither more nor less is better, but what is nearer to 1 or to l2's
            tested = {m: m in LARGER for m in metrics if not m.startswith(("spectrum", "sharpness", "residual"))}
            tables[at]["paired with l2"] = {
                row: paired_rows(("l2", by_row["l2"]), (row, by_row[row]), tested) for row in by_row if row != "l2"
            }
    tables["CPU seconds"] = {
        run.name: float((run.folder / "trained").read_text(encoding="utf-8"))
        for run in runs
        if (run.folder / "trained").is_file()
    }
    return tables


def save_curve(path: Path, of_judged: Mapping[str, Any]) -> None:
    """Each metric against NRMSE as the ratio of a loss grows, both against l2 with the same seed.

    Points are means over subjects and seeds, bars the range of the seeds.
    """
    seeds = of_judged["by seed and subject"]

    def change(row: str, metric: str) -> np.ndarray:
        """Percent of l2, by seed."""
        count = len(seeds[row])
        means = [
            [np.mean([x[metric] for x in each.values()]) for each in seeds[name][:count]] for name in (row, "l2")
        ]
        changes: np.ndarray = 100 * (np.array(means[0]) / np.array(means[1]) - 1)
        return changes

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    lines = {**CURVES, **{row: [row] for row in ALONE}}
    for axis, (metric, title) in zip(axes.flat, FIGURE.items(), strict=True):
        for number, (name, rows) in enumerate(lines.items()):
            points = [np.array([change(row, m) for m in ("NRMSE", metric)]) for row in rows if row in seeds]
            if points:
                means = np.array([point.mean(axis=1) for point in points]).T
                low, high = (np.array([part(point, axis=1) for point in points]).T for part in (np.min, np.max))
                marker = "o" if name in CURVES else "sD^v"[number - len(CURVES)]
                (x, y), (left, below), (right, above) = means, means - low, high - means
                bars = {"xerr": [left, right], "yerr": [below, above], "elinewidth": 0.8}
                axis.errorbar(x, y, fmt=f"{marker}-", color=f"C{number}", label=name, **bars)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("NRMSE", fontsize=9)
        axis.grid(alpha=0.3)
    figure.suptitle("changes against l2, %", fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    write_figure(path, figure, dpi=100)


def save_zoom(path: Path, args: argparse.Namespace, runs: Sequence[Run]) -> None:
    """A slice of the first subject by each row with the first seed."""
    images = {}
    for run in runs:
        if run.seed == 1 and run.row in ("l2", "l2 + UFLoss", *ALONE):
            with np.load(judged_file(args, run).with_suffix(".npz"), allow_pickle=False) as arrays:
                images[run.row], reference = arrays["outputs"], arrays["references"]
    errors = {name: np.linalg.norm(x - reference) / np.linalg.norm(reference) for name, x in images.items()}
    scores = {name: {"NRMSE": f"{error:.3f}"} for name, error in errors.items()}
    save_panels(path, ("reference", reference), images, scores=scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for volumes, caches and runs")
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    steps = NETWORKS["modl"].steps
    parser.add_argument("--begin_steps", type=int, default=steps, help="of MoDL with l2, before the further training")
    parser.add_argument("--steps", type=int, default=1_000, help="of the further training")
    parser.add_argument("--judge_at", nargs="+", type=int, choices=ACCELERATIONS, default=list(ACCELERATIONS))
    parser.add_argument("--lr", type=float, default=1e-3, help="of the further training")
    parser.add_argument("--processes", type=int, default=2, help="side by side, of one thread each")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--curve", type=Path, help="picture of metrics against NRMSE, a PNG or JPG")
    parser.add_argument("--zoom", type=Path, help="picture of a slice, a PNG or JPG")
    args = parser.parse_args()
    if not args.data.is_dir():
        sys.exit(f"error: no folder {args.data}")
    if (args.curve or args.zoom) and JUDGED not in args.judge_at:
        sys.exit(f"error: --curve and --zoom are of {JUDGED}x, got --judge_at {args.judge_at}")
    args.work.mkdir(parents=True, exist_ok=True)
    check_settings(args.work / "ufloss.json", {name: str(getattr(args, name)) for name in ("data", *SETTINGS)})
    root = args.work / "volumes"
    convert(args.data, root)
    convert_more(args.data, root)
    nets, segmenter = train_helpers(args, root)
    runs = train(args, root, nets)
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(judge, run, args, root, nets, segmenter) for run in runs]
        for judged in waiting:
            judged.result()
    tables = report(args, runs)
    if args.curve:
        save_curve(args.curve, tables[f"{JUDGED}x"])
    if args.zoom:
        save_zoom(args.zoom, args, runs)
    if args.json:
        settings = {name: getattr(args, name) for name in ("split", "seeds", *SETTINGS)}
        write_json(args.json, {"settings": settings, **tables})


if __name__ == "__main__":
    main()
