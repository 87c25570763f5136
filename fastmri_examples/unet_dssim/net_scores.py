"""Leaderboard files, scores by subject and a picture of two trained networks and the zero-filled image."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import command_line as cli
import fastmri
import fastmri.evaluate
import h5py
import nifti_subjects
import numpy as np
import torch
from fastmri.data.transforms import center_crop
from fastmri_ufloss.pl_modules.reconstruction_writer import ReconstructionWriter
from tqdm import tqdm

from fastmri_ufloss.data import IndexedSliceDataset, UnetDataTransform
from fastmri_ufloss.metrics import DSSIM, RelativeError
from fastmri_ufloss.pl_modules import MriDataModule
from fastmri_ufloss.pl_modules.scoring import write_json
from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.figures.panels import save_panels
from fastmri_ufloss.report.paired_table import p_value_note, paired_rows

ZERO_FILLED = "zero-filled"
LARGER_IS_BETTER = {
    "SSIM": True,
    "SSIM (Gaussian)": True,
    "PSNR": True,
    "relative error": False,
    "MSE": False,
}


class ZeroFilled:
    """In the place of a U-Net's transform: the same mask, and the magnitude image, neither scaled nor clamped."""

    def __init__(self, transform: UnetDataTransform) -> None:
        self.masking = transform.masking

    def __call__(
        self,
        kspace: np.ndarray,
        mask: np.ndarray | None,
        target: np.ndarray | None,
        attrs: dict[str, Any],
        fname: str,
        slice_num: int,
    ) -> tuple[str, int, torch.Tensor]:
        masked = self.masking(kspace, mask, attrs, fname, slice_num, epoch=0).masked_kspace
        image = fastmri.rss(fastmri.complex_abs(fastmri.ifft2c(masked)))
        rows, cols = attrs["recon_size"][:2] if target is None else target.shape[-2:]
        return fname, slice_num, center_crop(image, (min(rows, image.shape[-2]), min(cols, image.shape[-1])))


def has_references(folder: Path, key: str) -> bool:
    """Whether a split can be scored, by its first volume."""
    first = next(iter(sorted(folder.glob("*.h5"))), None) if folder.is_dir() else None
    if first is None:
        return False
    with h5py.File(first, "r") as volume:
        return key in volume


def split_to_score(data: MriDataModule, *, is_chosen: bool) -> Path:
    """The test split where it has references, or else, unless the user has chosen it, the validation split."""
    folder = data.folder("test")
    if has_references(folder, reference_key(data)):
        return folder
    if is_chosen:
        raise ValueError(
            f"{folder} has no volumes with '{reference_key(data)}' to score against: choose another --test_path, or "
            "leave it out"
        )
    return data.folder("val")


def reference_key(data: MriDataModule) -> str:
    """The data set of a volume that is its reference image."""
    return "reconstruction_esc" if data.challenge == "singlecoil" else "reconstruction_rss"


def write_zero_filled(dataset: IndexedSliceDataset, folder: Path) -> None:
    """Zero-filled images of a split, as leaderboard files."""
    unet_transform = dataset.transform
    dataset.transform = ZeroFilled(unet_transform)
    writer = ReconstructionWriter(folder)
    try:
        for index in tqdm(range(len(dataset)), desc="Zero-filled images", unit="slice"):
            writer.add(*dataset[index])
        writer.close()
    finally:
        dataset.transform = unet_transform


def compare(data: MriDataModule, run_dir: Path, methods: Mapping[str, str], *, pair: tuple[str, str]) -> None:
    """Write ``scores.json`` and ``comparison.png`` into the run's folder, and print the tables.

    The reference is the file's own image: that of the training is clamped, as fastMRI does it for its U-Net.

    Args:
        data: whose test split is scored.
        run_dir: with a folder for each method that holds ``reconstructions``.
        methods: names of methods by their folder.
        pair: the two of them whose difference is asked for, second minus first.
    """
    dataset = data.dataset("test")
    write_zero_filled(dataset, run_dir / next(iter(methods)) / "reconstructions")
    slices: dict[Path, list[int]] = {}
    for sample in dataset.raw_samples:
        slices.setdefault(Path(sample.fname), []).append(sample.slice_ind)
    subjects = nifti_subjects.read_subjects(data.data_path)
    rows: list[dict[str, Any]] = []
    for path, numbers in tqdm(slices.items(), desc="Scores", unit="volume"):
        with contextlib.ExitStack() as stack:
            volume = stack.enter_context(h5py.File(path, "r"))
            if reference_key(data) not in volume:
                raise ValueError(f"{path} has no '{reference_key(data)}' to score against: move it out of the split")
            outputs = {
                name: stack.enter_context(h5py.File(run_dir / folder / "reconstructions" / path.name, "r"))[
                    "reconstruction"
                ]
                for folder, name in methods.items()
            }
            subject = nifti_subjects.subject_of(path, str(volume.attrs.get("patient_id", "")), subjects)
            references = volume[reference_key(data)]
            scores = score_volume(references, numbers, outputs)
            place = {"volume": path.name, "subject": subject}
            if not rows:
                save_middle(run_dir / "comparison.png", references, numbers, outputs, title=path.stem)
            rows += [{**place, "method": name, **scores[name]} for name in methods.values()]
    report(rows, run_dir, pair)


def score_volume(
    references: h5py.Dataset, slices: Sequence[int], outputs: Mapping[str, h5py.Dataset]
) -> dict[str, dict[str, float]]:
    """Scores of a volume by method, read slice by slice; the data range is the maximum of the reference volume.

    SSIM (7x7 windows of equal weights) and PSNR are fastMRI's. SSIM with Gaussian windows is that of the loss
    ``dssim``. The relative error is |e| / |x| of each slice. SSIM and relative error are means over slices; the MSE
    is that of all pixels, of images divided by the data range.

    Args:
        references: (slices, rows, cols).
        slices: of the reference, that the outputs have.
        outputs: (len(slices), rows, cols) by name.
    """
    data_range = maximum(references)
    sums = {name: {"SSIM": 0.0, "MSE": 0.0} for name in outputs}
    gaussian = {name: DSSIM() for name in outputs}
    relative = {name: RelativeError() for name in outputs}
    for i, number in enumerate(slices):
        reference = references[number]
        for name, images in outputs.items():
            target, output = center_crop(reference, images.shape[1:]), images[i]
            sums[name]["SSIM"] += fastmri.evaluate.ssim(target[None], output[None], maxval=data_range).item()
            error = (output.astype(np.float64) - target) / data_range
            sums[name]["MSE"] += float(np.square(error).mean())
            pair = (torch.from_numpy(output)[None], torch.from_numpy(target)[None].float())
            place = {"fname": ["volume"], "slice_num": [i], "max_value": torch.tensor([data_range])}
            for metric in (gaussian[name], relative[name]):
                metric.update(*pair, **place)
    found = {}
    for name in outputs:
        ssim, mse = (sums[name][score] / len(slices) for score in ("SSIM", "MSE"))
        found[name] = {
            "SSIM": ssim,
            "SSIM (Gaussian)": 1 - float(gaussian[name].compute()),
            "PSNR": float(-10 * np.log10(mse)) if mse > 0 else float("inf"),
            "relative error": float(relative[name].compute()),
            "MSE": mse,
        }
    return found


def maximum(references: h5py.Dataset) -> float:
    """The data range of a volume's scores."""
    found = max(float(references[i].max()) for i in range(len(references)))
    if not found > 0:
        raise ValueError(f"{references.file.filename}: all of {references.name} is 0, it cannot be scored")
    return found


def save_middle(
    path: Path, references: h5py.Dataset, slices: Sequence[int], outputs: Mapping[str, h5py.Dataset], *, title: str
) -> None:
    """A picture of the middle slice, with its own SSIM."""
    middle = len(slices) // 2
    number = slices[middle]
    data_range = maximum(references)
    images = {name: volume[middle] for name, volume in outputs.items()}
    reference = center_crop(references[number], next(iter(images.values())).shape)
    ssim = {
        name: fastmri.evaluate.ssim(reference[None], image[None], maxval=data_range).item()
        for name, image in images.items()
    }
    scores = {name: {"SSIM": f"{value:.3f}"} for name, value in ssim.items()}
    save_panels(path, ("reference", reference), images, scores=scores, title=f"{title}, slice {number}")


def by_subject(rows: Sequence[Mapping[str, Any]], method: str) -> dict[str, dict[str, float]]:
    """The scores of a method by subject, the means over the subject's volumes."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["method"] == method:
            found.setdefault(row["subject"], []).append(row)
    return {
        subject: {metric: float(np.mean([row[metric] for row in of_subject])) for metric in LARGER_IS_BETTER}
        for subject, of_subject in found.items()
    }


def report(rows: Sequence[Mapping[str, Any]], run_dir: Path, pair: tuple[str, str]) -> None:
    """Means over subjects and paired differences, on the terminal and in ``scores.json``."""
    means = []
    for method in dict.fromkeys(row["method"] for row in rows):
        scores = by_subject(rows, method).values()
        mean = {metric: float(np.mean([score[metric] for score in scores])) for metric in LARGER_IS_BETTER}
        means.append({"method": method, "subjects": len(scores), **mean})
    first, second = ((name, by_subject(rows, name)) for name in pair)
    differences = paired_rows(first, second, LARGER_IS_BETTER)
    note = p_value_note(len(first[1]))
    document = {"means": means, "differences": differences, "note": note, "volumes": rows}
    write_json(run_dir / "scores.json", document)
    cli.say(f"\nMeans over subjects, SSIM with fastMRI's windows and with those of the loss:\n{format_table(means)}")
    shown = [{name: "-" if value is None else value for name, value in row.items()} for row in differences]
    cli.say(f"\n{pair[1]} minus {pair[0]}, paired by subject:\n{format_table(shown)}")
    if note:
        cli.say(note)
    cli.say(f"Scores: {run_dir / 'scores.json'}\nPicture: {run_dir / 'comparison.png'}")
