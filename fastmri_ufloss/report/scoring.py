"""Scores of volumes: what they mean, and numbers that a file keeps, so that only what has changed is scored again."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastmri_ufloss.files import write_json
from fastmri_ufloss.losses.ufloss import patch_features, ufloss_per_image
from fastmri_ufloss.metrics.semantic_interpretability import dice_of_classes
from fastmri_ufloss.metrics.volumes import (
    IMAGE_SCORES,
    READER_SCORES,
    SPECTRUM,
    ReferenceVolume,
    fine_structures,
    sharpness,
)
from fastmri_ufloss.models import PatchFeatureNet, Segmenter, load_segmenter
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.acquisitions import AcquiredScores, differing_masks
from fastmri_ufloss.report.figures.panels import save_contours
from fastmri_ufloss.report.reconstructions import KSPACE, VolumeFiles, path_stamp
from fastmri_ufloss.workers import interruptible, run_in_processes

__all__ = [
    "FeatureNetFile",
    "Metric",
    "ScoreSettings",
    "ScoredVolumes",
    "add_opinion",
    "list_metrics",
    "score_files",
    "score_volumes",
    "segment_volume",
]

COIL_COMBINED, RESIDUAL, SHARPNESS = "coil-combined", "residual", "sharpness"
VERSION = 5  # of the scores: a new one makes all of them anew
NOT_FINITE = "NaN or infinite values"
CONSTANT = "one value everywhere"
BATCH = 8  # slices that go through a segmenter at once
Numbers = dict[str, Any]
Images = Mapping[str, np.ndarray]  # magnitudes or class numbers, (slices, rows, cols) each, by source


@dataclass(frozen=True)
class FeatureNetFile:
    """A feature network that UFLoss is measured with: magnitudes for 1 of ``in_chans``, complex images for 2.

    The name tells several networks apart, and may be empty.
    """

    path: Path
    in_chans: int
    name: str = ""
    trained_on: bool = False

    @property
    def metric(self) -> str:
        """The name of the score."""
        words = ", ".join(filter(None, (self.name, "trained on" if self.trained_on else "")))
        return f"UFLoss ({words})" if words else "UFLoss"


@dataclass(frozen=True)
class ScoreSettings:
    """What volumes are scored with, in plain values that a worker process can be sent.

    Args:
        references: their names, the main one first; ``COIL_COMBINED`` is computed from the k-space where the volume
            has no file of that name. UFLoss of magnitudes and Dice are measured against the main one.
        segmenter: checkpoint of a segmentation network, for Dice.
        stride: of the patches of UFLoss; its default if None.
        pictures: folder for a picture of each volume with the contours of its segmentations.
        criteria: of the readers whose opinion `add_opinion` has added.
    """

    references: tuple[str, ...]
    feature_nets: tuple[FeatureNetFile, ...] = ()
    segmenter: Path | None = None
    stride: int | None = None
    device: str = "cpu"
    pictures: Path | None = None
    criteria: tuple[str, ...] = ()

    @property
    def image_scores(self) -> tuple[str, ...]:
        """Of each image against each reference; HaarPSI, VSI and GMSD where piq is installed."""
        return (*IMAGE_SCORES, *(READER_SCORES if find_spec("piq") else ()))

    def stamp(self, files: VolumeFiles) -> list[Any]:
        """What the scores of a volume depend on, in plain values."""
        nets = [[*path_stamp(net.path), net.in_chans, net.metric] for net in self.feature_nets]
        segmenter = None if self.segmenter is None else path_stamp(self.segmenter)
        return [VERSION, list(self.image_scores), list(self.references), nets, segmenter, self.stride, files.stamp]

    def picture_path(self, files: VolumeFiles) -> Path | None:
        """The picture of a volume, if a picture is to be drawn."""
        return self.pictures / f"{Path(files.name).stem}.png" if self.segmenter and self.pictures else None


class Metric(NamedTuple):
    """A score: ``label`` is its name where the reference is known, ``tested`` whether methods are compared in it.

    ``reference`` is None where nothing is compared with, ``larger_is_better`` where neither more nor less is.
    """

    name: str
    label: str
    reference: str | None
    larger_is_better: bool | None
    unit: str
    explanation: str
    tested: bool


_RANGE = "The data range is the maximum of the reference volume, as in fastMRI."
_READERS = "Among the scores that agree best with radiologists (Kastryulin et al., IEEE Access 2023); by piq."
_IMAGE_SCORES = {  # larger is better, unit, in words, tested
    "NMSE": (False, "", "|x - t|^2 / |t|^2, fastMRI's. Not tested: it is the square of NRMSE.", False),
    "NRMSE": (False, "", "|x - t| / |t| over the slice or the volume.", True),
    "PSNR": (True, "dB", f"Peak signal-to-noise ratio, fastMRI's. {_RANGE}", True),
    "SSIM": (True, "", f"Structural similarity, fastMRI's: windows of 7x7, the mean over slices. {_RANGE}", True),
    "SSIM Gaussian": (True, "", "SSIM with the Gaussian windows of Wang et al. (IEEE TIP 2004). Not tested.", False),
    "HFEN": (False, "", "|LoG(x - t)| / |LoG(t)|, of edges (Ravishankar and Bresler, IEEE TMI 2011).", True),
    "HaarPSI": (True, "", f"Similarity of wavelets, with the constants of medical images. {_READERS}", True),
    "VSI": (True, "", f"Similarity of gradients and saliency. {_READERS} Not tested.", False),
    "GMSD": (False, "", "Deviation of the similarity of gradients. Not tested.", False),
}
_SPECTRUM_WORDS = (
    "Power of the image over that of the reference in a band of spatial frequency, in parts of the largest along an "
    "axis. 1 is right: less is blur, more is noise or artefacts. A reference has noise of its own, so that an image "
    "without it is below 1 in the last band."
)
_RESIDUAL_WORDS = (
    "|U F S x - y| / |U y|: the part of the acquired samples y that the image does not explain, with the phase of "
    "the reference for all methods. Less agrees better; much more than others have means that something measured was "
    "lost or altered. Not tested: below the value of the reference itself an image fits the noise of the samples."
)
_SHARPNESS_WORDS = (
    "1 - the blur metric of Crété-Roffet et al. (SPIE 2007), without a reference. Noise and aliasing are sharp too: "
    "more is not simply better, it should be about that of the reference."
)


def list_metrics(settings: ScoreSettings, classes: Sequence[int], *, with_residual: bool) -> list[Metric]:
    """The scores of a report, in the order of its columns.

    Those against the main reference are tested, so that the correction for many tests is not for the same question
    asked twice. Classes are those of the segmenter that any image has.
    """
    main = settings.references[0]
    metrics = [
        Metric(f"{score} ({reference})", score, reference, larger, unit, words, tested and reference == main)
        for reference in settings.references
        for score, (larger, unit, words, tested) in _IMAGE_SCORES.items()
        if score in settings.image_scores
    ]
    metrics += [Metric(band, band, main, None, "", _SPECTRUM_WORDS, tested=False) for band in SPECTRUM]
    metrics += [_ufloss(net, settings) for net in settings.feature_nets]
    for label in classes:
        words = f"Dice of class {label} in what the segmenter finds, the mean over the slices that have it."
        # SIS of a single class is Dice but for a constant: it would be tested twice
        metrics.append(Metric(f"Dice {label}", f"Dice {label}", None, True, "", words, tested=len(classes) > 1))
    if classes:
        words = (
            f"Semantic interpretability: mean Dice of the segmenter, relative to its mean Dice on {main} (Seitzer et "
            "al., MICCAI 2018). The means are over all images, and not over subjects."
        )
        metrics.append(Metric("SIS", "SIS", main, True, "", words, tested=True))
    for criterion in settings.criteria:
        words = "The readers' mean of the images that they saw; the volume's is the mean over these slices."
        metrics.append(Metric(opinion_name(criterion), opinion_name(criterion), None, True, "", words, tested=True))
    if with_residual:
        metrics.append(Metric(RESIDUAL, RESIDUAL, None, False, "", _RESIDUAL_WORDS, tested=False))
    return [*metrics, Metric(SHARPNESS, SHARPNESS, None, None, "", _SHARPNESS_WORDS, tested=False)]


def _ufloss(net: FeatureNetFile, settings: ScoreSettings) -> Metric:
    reference, images = settings.references[0], "magnitudes"
    if net.in_chans == 2:
        images = "complex images, all with the phase of the reference"
        reference = COIL_COMBINED if COIL_COMBINED in settings.references else reference
    file = f"{net.path.parent.name}/{net.path.name}"
    words = f"Distance in the feature space of patches (Wang et al., MRM 2022), of {images}. Network: {file}."
    if net.trained_on:
        words += " A method was trained with it: a loss must not grade itself, so it is not tested."
    return Metric(net.metric, net.metric, reference, False, "", words, tested=not net.trained_on)


def opinion_name(criterion: str) -> str:
    return f"readers: {criterion}"


def add_opinion(
    numbers: Mapping[str, Numbers], opinion: Mapping[str, Mapping[tuple[str, str, int], float]]
) -> tuple[str, ...]:
    """Put readers' scores, by criterion and by method, volume and slice, beside the others; returns the criteria.

    ValueError if none of them is of the volumes and methods.
    """
    found = False
    for volume, of in numbers.items():
        for criterion, scores in opinion.items():
            name = opinion_name(criterion)
            for row in of["slices"]:
                row[name] = scores.get((row["method"], volume, row["slice"]))
            for row in of["volumes"]:
                given = [r[name] for r in of["slices"] if r["method"] == row["method"] and r[name] is not None]
                row[name] = float(np.mean(given)) if given else None
                found = found or bool(given)
    if not found:
        raise ValueError("--readers has no answers about these methods and files")
    return tuple(opinion)


class ScoredVolumes(NamedTuple):
    """What `score_files` gives, or why a volume could not be scored, by name, and how many scores were known."""

    numbers: dict[str, Numbers]
    failed: dict[str, str]
    num_cached: int


def score_volumes(
    volumes: Sequence[VolumeFiles], settings: ScoreSettings, *, cache: str | Path, num_workers: int = 1
) -> ScoredVolumes:
    """Score volumes in processes of one thread each, whose number does not change the scores.

    The scores of each volume are kept in a file of the cache with a stamp of the settings and of the volume's files.
    A volume with the same stamp is not read again, so that a call that was interrupted goes on where it was. Raises
    ValueError if ``num_workers`` is below 1.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")
    outcomes = {files.name: _read_known(files, settings, Path(cache)) for files in volumes}
    missing = [files for files in volumes if outcomes[files.name] is None]
    num_cached, failed = len(volumes) - len(missing), {}
    bar = tqdm(total=len(volumes), initial=num_cached, desc="Scores", unit="volume", disable=not missing)
    attempt = partial(_attempt, settings=settings, cache=Path(cache))
    with interruptible(), bar:
        for files, outcome in _call_for_all(attempt, missing, min(num_workers, len(missing))):
            if isinstance(outcome, str):
                failed[files.name] = outcome if files.name in outcome else f"{files.name}: {outcome}"
            else:
                outcomes[files.name] = outcome
            bar.update()
    return ScoredVolumes({name: of for name, of in outcomes.items() if of is not None}, failed, num_cached)


def _call_for_all(
    attempt: Callable[[VolumeFiles], Numbers | str], volumes: Sequence[VolumeFiles], num_workers: int
) -> Iterator[tuple[VolumeFiles, Numbers | str]]:
    if num_workers > 1:
        yield from run_in_processes(attempt, volumes, num_workers=num_workers)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker: sums depend on the number of threads in the last digit
    try:
        for files in volumes:
            yield files, attempt(files)
    finally:
        torch.set_num_threads(threads)


def _attempt(files: VolumeFiles, settings: ScoreSettings, cache: Path) -> Numbers | str:
    """Score a volume and keep its numbers; an error about its files is returned as text."""
    stamp = settings.stamp(files)
    try:
        numbers = score_files(files, settings)
    except (ValueError, OSError) as error:
        return str(error)
    write_json(cache / f"{files.name}.json", {"stamp": stamp, "numbers": numbers})
    return numbers


def _read_known(files: VolumeFiles, settings: ScoreSettings, cache: Path) -> Numbers | None:
    """What the cache has of a volume, None if that is nothing, or of other files or settings."""
    # a volume without any slice to score has no picture, and is quickly read again
    picture = settings.picture_path(files)
    if picture is not None and not picture.is_file():
        return None
    try:
        kept = json.loads((cache / f"{files.name}.json").read_text(encoding="utf-8"))
        return dict(kept["numbers"]) if kept["stamp"] == settings.stamp(files) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def score_files(files: VolumeFiles, settings: ScoreSettings) -> Numbers:
    """Read a volume of all methods and score it.

    A slice in which any image, or the k-space, is not finite is left out for all methods, so that comparisons stay
    paired; so is a volume without such slices or whose reference has no signal. A file that cannot be read or does
    not fit the networks raises ValueError that names the file.

    Returns:
        Numbers and texts only: ``volumes``, a row for each source, methods and references, which have their own
        sharpness, residual and Dice; ``slices``, a row for each slice and source; ``excluded``, what was left out,
        with ``slice`` None for the volume; ``constant``, [source, slice] of images with one value everywhere;
        ``differing_masks``, methods.
    """
    scores = _VolumeScores(files, settings)
    if scores.kept.size:
        scores.add_image_scores()
        for net in settings.feature_nets:
            scores.add_ufloss(net)
        if settings.segmenter is not None and scores.truth is not None:
            scores.add_dice(load_segmenter(settings.segmenter), scores.truth)
        scores.add_residuals()
    return scores.numbers()


class _VolumeScores:
    """The slices of a volume that are scored, and by source their columns of scores and the volume's values."""

    def __init__(self, files: VolumeFiles, settings: ScoreSettings) -> None:
        self.files, self.settings, self.main = files, settings, settings.references[0]
        references, outputs, truth = files.read()
        self.acquired = None if files.kspace is None else AcquiredScores(files, outputs, device=settings.device)
        if self.acquired is not None and COIL_COMBINED in settings.references and COIL_COMBINED not in references:
            if not self.acquired.is_fully_sampled:
                raise ValueError(
                    f"{files.kspace} is undersampled: there is no coil-combined reference; name one with --reference"
                )
            references[COIL_COMBINED] = np.abs(self.acquired.image)
        references = {name: references[name] for name in settings.references}
        self.excluded: list[dict[str, Any]] = []
        self.kept = self._choose_slices(references, outputs)
        self.references = {name: images[self.kept] for name, images in references.items()}
        self.outputs = {method: images[self.kept] for method, images in outputs.items()}
        self.truth = None if truth is None else truth[self.kept]
        self.constant: list[list[Any]] = []
        self.slices: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        self.volumes: dict[str, dict[str, float]] = defaultdict(dict)

    def _choose_slices(self, references: Images, outputs: Images) -> np.ndarray:
        """The numbers of the slices to score; the others are excluded."""

        def exclude(source: str, why: str, slices: Sequence[int | None] = (None,)) -> None:
            self.excluded += [{"slice": slice_num, "source": source, "why": why} for slice_num in slices]

        for source, images in {**references, **outputs}.items():
            exclude(source, NOT_FINITE, np.flatnonzero(~np.isfinite(images).all(axis=(1, 2))).tolist())
        if self.acquired is not None:
            exclude(KSPACE, NOT_FINITE, self.acquired.bad)
        kept = np.setdiff1d(np.arange(self.files.num_slices), [row["slice"] for row in self.excluded])
        if not kept.size:
            exclude("all", "no slice is left")
        for name, images in references.items():
            if kept.size and not images[kept].max() > 0:
                exclude(name, "no value is above 0")
                kept = kept[:0]
        return kept

    def numbers(self) -> Numbers:
        """What `score_files` gives."""
        slices = []
        for index, slice_num in enumerate(self.kept.tolist()):
            for source, columns in self.slices.items():
                of_slice = _plain({name: column[index] for name, column in columns.items()})
                slices.append({"slice": slice_num, "method": source, **of_slice})
        masks = differing_masks(self.files.read_masks()) if self.acquired is None else self.acquired.differing
        return {
            "volumes": [{"slices": len(self.kept), "method": s, **_plain(of)} for s, of in self.volumes.items()],
            "slices": slices,
            "constant": self.constant,
            "excluded": self.excluded,
            "differing_masks": masks,
        }

    def _add(self, source: str, name: str, slices: np.ndarray, volume: float | None = None) -> None:
        """Add a score; the volume's is the mean over the slices that have a value, if none is given."""
        present = slices[~np.isnan(slices)]
        self.slices[source][name] = slices
        self.volumes[source][name] = (present.mean() if present.size else math.nan) if volume is None else volume

    def add_image_scores(self) -> None:
        """Scores against each reference, and the sharpness, also of the references."""
        references = {name: ReferenceVolume(images) for name, images in self.references.items()}
        for method, output in self.outputs.items():
            fine = fine_structures(output)  # once for all references
            for name, reference in references.items():
                of_slices, of_volume = reference.score(output, fine, names=self.settings.image_scores)
                for score, values in of_slices.items():
                    self._add(method, f"{score} ({name})", values, of_volume[score])
            of_slices, of_volume = references[self.main].score(output, names=SPECTRUM)
            for band, values in of_slices.items():
                self._add(method, band, values, of_volume[band])
        for source, images in {**self.references, **self.outputs}.items():
            constant = self.kept[np.ptp(images, axis=(1, 2)) == 0]
            self.constant += [[source, slice_num] for slice_num in constant.tolist()]
            self._add(source, SHARPNESS, np.array([sharpness(image) for image in images]))

    @torch.no_grad()
    def add_ufloss(self, net: FeatureNetFile) -> None:
        """UFLoss of each slice over the whole grid; nan where the reference is constant."""
        settings, phase, targets = self.settings, None, self.references[self.main]
        if net.in_chans == 2:
            if self.acquired is None:
                raise ValueError(f"{net.path} is a network of complex images, which need k-space for their phase")
            targets = self.references.get(COIL_COMBINED, targets)
            phase = torch.from_numpy(np.angle(self.acquired.image[self.kept]))
        network = PatchFeatureNet.load(net.path).to(settings.device)

        def tensor(images: np.ndarray, index: int) -> Tensor:
            """An image (1, 1, rows, cols), complex with a phase."""
            image = torch.from_numpy(images[index])
            if phase is not None:
                image = torch.polar(image, phase[index].to(image.dtype))
            return image[None, None].to(settings.device)

        values = {method: np.full(len(self.kept), np.nan) for method in self.outputs}
        for index in np.flatnonzero(np.ptp(targets, axis=(1, 2))).tolist():
            target = tensor(targets, index)
            # once for all methods
            features = patch_features(network, target, image_scale(target), stride=settings.stride)
            for method, images in self.outputs.items():
                loss = ufloss_per_image(
                    network, tensor(images, index), target, target_features=features, stride=settings.stride
                )
                values[method][index] = float(loss)
        for method, of_slices in values.items():
            self._add(method, net.metric, of_slices)

    def add_dice(self, net: Segmenter, truth: np.ndarray) -> None:
        """Dice of each method and of the main reference by class, nan without the class, and a picture."""
        if truth.min() < 0 or truth.max() >= net.num_classes:
            raise ValueError(
                f"{self.files.segmentation} must have the segmenter's classes 0 .. {net.num_classes - 1}, got "
                f"{truth.min()} .. {truth.max()}"
            )
        images = {self.main: self.references[self.main], **self.outputs}
        labels = segment_volume(net, images, device=self.settings.device)
        for source, classes in labels.items():
            dice = dice_of_classes(torch.from_numpy(classes), torch.from_numpy(truth), net.num_classes).double()
            for label, column in enumerate(dice.numpy().T, start=1):
                self._add(source, f"Dice {label}", column)
        if path := self.settings.picture_path(self.files):
            self._save_contours(path, truth, images, labels)

    def _save_contours(self, path: Path, truth: np.ndarray, images: Images, labels: Images) -> None:
        """Draw the slice with the largest segmented area, or the middle slice."""
        areas = (truth > 0).sum(axis=(1, 2))
        index = int(areas.argmax()) if areas.any() else len(areas) // 2
        notes = {}
        for source in images:
            values = {name: column[index] for name, column in self.slices[source].items()}
            texts = [f"PSNR {values[f'PSNR ({self.main})']:.1f} dB"] if source in self.outputs else []
            if areas.any():
                dice = [value for name, value in values.items() if name.startswith("Dice ")]
                texts.append(f"Dice {np.nanmean(dice):.2f}")
            notes[source] = ", ".join(texts)
        shown, predictions = ({source: x[index] for source, x in of.items()} for of in (images, labels))
        title = f"{self.files.name}, slice {self.kept[index]}"
        save_contours(path, shown, truth=truth[index], predictions=predictions, notes=notes, title=title)

    def add_residuals(self) -> None:
        """Residuals of the methods, and that of the coil-combined reference, if there is one."""
        acquired, kept = self.acquired, self.kept
        if acquired is None or not acquired.residual:
            return
        for name in [*self.outputs, *([""] if acquired.is_fully_sampled else [])]:
            self._add(name or COIL_COMBINED, RESIDUAL, acquired.residual[name][kept], acquired.of_volume(name, kept))


@torch.no_grad()
def segment_volume(net: nn.Module, images: Images, *, device: str) -> dict[str, np.ndarray]:
    """Class numbers (slices, rows, cols) that a segmenter finds in magnitudes of the same shape, by name."""
    net, labels = net.to(device).eval(), {}
    for source, volume in images.items():
        batches = torch.from_numpy(np.ascontiguousarray(volume)).unsqueeze(1).split(BATCH)
        labels[source] = torch.cat([net(batch.to(device)).cpu() for batch in batches]).numpy()
    return labels


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """None for what is not defined; what is infinite stays, to be told of."""
    return {name: None if math.isnan(value) else float(value) for name, value in values.items()}
