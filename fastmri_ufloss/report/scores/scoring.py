"""Scores of volumes by all methods, as numbers that a file keeps: a volume is scored again only if it has changed."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastmri_ufloss.files import write_json
from fastmri_ufloss.losses.ufloss import patch_features, ufloss_per_image
from fastmri_ufloss.metrics.semantic_interpretability import dice_of_classes
from fastmri_ufloss.metrics.volumes import ReferenceVolume, fine_structures, sharpness
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.acquisitions import AcquiredScores, differing_masks
from fastmri_ufloss.report.figures.panels import save_contours
from fastmri_ufloss.report.reconstructions import KSPACE, VolumeFiles
from fastmri_ufloss.report.scores.score_settings import (
    COIL_COMBINED,
    RESIDUAL,
    SHARPNESS,
    FeatureNetFile,
    ScoreSettings,
)
from fastmri_ufloss.workers import interruptible, run_in_processes

__all__ = ["CONSTANT", "NOT_FINITE", "ScoredVolumes", "score_files", "score_volumes", "segment_volume"]

NOT_FINITE = "NaN or infinite values"
CONSTANT = "one value everywhere"
BATCH = 8  # slices that go through a segmenter at once
Numbers = dict[str, Any]
Images = Mapping[str, np.ndarray]  # magnitudes or class numbers, (slices, rows, cols) each, by source


class ScoredVolumes(NamedTuple):
    """What `score_files` gives, or why a volume could not be scored, by name, and how many scores were known."""

    numbers: dict[str, Numbers]
    failed: dict[str, str]
    num_cached: int


class _Task(NamedTuple):
    files: VolumeFiles
    settings: ScoreSettings
    cache: Path
    stamp: list[Any]


def score_volumes(
    volumes: Sequence[VolumeFiles], settings: ScoreSettings, *, cache: str | Path, num_workers: int = 1
) -> ScoredVolumes:
    """Score volumes in processes of one thread each, whose number does not change the scores.

    The scores of each volume are kept in a file of the cache with a stamp of the settings and of the volume's files.
    A volume with the same stamp is not read again, so that a call that was interrupted goes on where it was.

    Raises:
        ValueError: if ``num_workers`` is below 1.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")
    stamp, failed = settings.stamp, {}
    tasks = [_Task(files, settings, Path(cache) / f"{files.name}.json", [stamp, files.stamp]) for files in volumes]
    outcomes = {task.files.name: _read_known(task) for task in tasks}
    tasks = [task for task in tasks if outcomes[task.files.name] is None]
    num_cached = len(volumes) - len(tasks)
    bar = tqdm(total=len(volumes), initial=num_cached, desc="Scores", unit="volume", disable=not tasks)
    with interruptible(), bar:
        for task, outcome in _attempt_all(tasks, min(num_workers, len(tasks))):
            name = task.files.name
            if isinstance(outcome, str):
                failed[name] = outcome if name in outcome else f"{name}: {outcome}"
            else:
                outcomes[name] = outcome
            bar.update()
    return ScoredVolumes({name: of for name, of in outcomes.items() if of is not None}, failed, num_cached)


def _attempt_all(tasks: Sequence[_Task], num_workers: int) -> Iterator[tuple[_Task, Numbers | str]]:
    """Each task with its numbers, or with a text that says what is wrong."""
    if num_workers > 1:
        yield from run_in_processes(_attempt, tasks, num_workers=num_workers)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker: sums depend on the number of threads in the last digit
    try:
        for task in tasks:
            yield task, _attempt(task)
    finally:
        torch.set_num_threads(threads)


def _attempt(task: _Task) -> Numbers | str:
    """Score a volume and keep its numbers; an error about its files is returned as text."""
    try:
        numbers = score_files(task.files, task.settings)
    except (ValueError, OSError) as error:
        return str(error)
    write_json(task.cache, {"stamp": task.stamp, "numbers": numbers})
    return numbers


def _read_known(task: _Task) -> Numbers | None:
    """What the cache has of a volume, None if that is nothing, or of other files or settings."""
    # a volume without any slice to score has no picture, and is quickly read again
    picture = task.settings.picture_path(task.files.name)
    if picture is not None and not picture.is_file():
        return None
    try:
        kept = json.loads(task.cache.read_text(encoding="utf-8"))
        return dict(kept["numbers"]) if kept["stamp"] == task.stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def score_files(files: VolumeFiles, settings: ScoreSettings) -> Numbers:
    """Read a volume of all methods and score it.

    A slice in which any image, or the k-space, is not finite is left out for all methods, so that comparisons stay
    paired; so is a volume without such slices or whose reference has no signal.

    Returns:
        Numbers and texts only: ``volumes``, a row for each method; ``slices``, a row for each slice and method;
        ``excluded``, what was left out, with ``slice`` None for the volume; ``constant``, [source, slice] of images
        with one value everywhere; ``references``, the sharpness and residual of each reference; ``segmenter``, of
        each slice the Dice on the main reference; ``differing_masks``, methods.

    Raises:
        ValueError: if a file cannot be read or does not fit the networks; the message names the file.
    """
    scores = _VolumeScores(files, settings)
    if scores.kept.size:
        scores.add_image_scores()
        for net in settings.feature_nets:
            scores.add_ufloss(net)
        if settings.segmenter is not None:
            scores.add_dice()
        scores.add_residuals()
    return scores.numbers()


class _VolumeScores:
    """The slices of a volume that are scored, and by method their columns of scores and the volume's values."""

    def __init__(self, files: VolumeFiles, settings: ScoreSettings) -> None:
        self.files, self.settings, self.main = files, settings, settings.main_reference
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
        self.of_references: dict[str, dict[str, float]] = {}
        self.segmenter: list[dict[str, Any]] = []
        self.slices: dict[str, dict[str, np.ndarray]] = {method: {} for method in outputs}
        self.volumes: dict[str, dict[str, float]] = {method: {} for method in outputs}

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
        volumes = [{"method": m, "slices": len(self.kept), **_plain(of)} for m, of in self.volumes.items()]
        slices = []
        for index, slice_num in enumerate(self.kept.tolist()):
            for method, columns in self.slices.items():
                of_slice = _plain({name: column[index] for name, column in columns.items()})
                slices.append({"slice": slice_num, "method": method, **of_slice})
        masks = differing_masks(self.files.read_masks()) if self.acquired is None else self.acquired.differing
        return {
            "volumes": volumes if self.kept.size else [],
            "slices": slices,
            "constant": self.constant,
            "references": {name: _plain(of_reference) for name, of_reference in self.of_references.items()},
            "segmenter": self.segmenter,
            "excluded": self.excluded,
            "differing_masks": masks,
        }

    def _add(self, method: str, name: str, slices: np.ndarray, volume: float | None = None) -> None:
        """Add a score; the volume's is the mean over the slices that have a value, if none is given."""
        self.slices[method][name] = slices
        self.volumes[method][name] = _mean(slices) if volume is None else volume

    def add_image_scores(self) -> None:
        """Scores against each reference, and the sharpness, also of the references."""
        references = {name: ReferenceVolume(images) for name, images in self.references.items()}
        for method, output in self.outputs.items():
            fine = fine_structures(output)  # once for all references
            for name, reference in references.items():
                of_slices, of_volume = reference.score(output, fine)
                for score, values in of_slices.items():
                    self._add(method, f"{score} ({name})", values, of_volume[score])
        for source, images in {**self.references, **self.outputs}.items():
            constant = self.kept[np.ptp(images, axis=(1, 2)) == 0]
            self.constant += [[source, slice_num] for slice_num in constant.tolist()]
            values = np.array([sharpness(image) for image in images])
            if source in self.outputs:
                self._add(source, SHARPNESS, values)
            else:
                self.of_references[source] = {SHARPNESS: _mean(values)}

    @torch.no_grad()
    def add_ufloss(self, net: FeatureNetFile) -> None:
        """UFLoss of each slice over the whole grid; nan where the reference is constant."""
        settings, phase, targets = self.settings, None, self.references[self.main]
        if net.in_chans == 2:
            if self.acquired is None:
                raise ValueError(f"{net.path} is a network of complex images, which need k-space for their phase")
            targets = self.references.get(COIL_COMBINED, targets)
            phase = torch.from_numpy(np.angle(self.acquired.image[self.kept]))
        network = settings.load_feature_net(net)
        options = {} if settings.stride is None else {"stride": settings.stride}

        def tensor(images: np.ndarray, index: int) -> Tensor:
            """An image (1, 1, rows, cols), complex with a phase."""
            image = torch.from_numpy(images[index])
            if phase is not None:
                image = torch.polar(image, phase[index].to(image.dtype))
            return image[None, None].to(settings.device)

        values = {method: np.full(len(self.kept), np.nan) for method in self.outputs}
        for index in np.flatnonzero(np.ptp(targets, axis=(1, 2))).tolist():
            target = tensor(targets, index)
            features = patch_features(network, target, image_scale(target), **options)  # once for all methods
            for method, images in self.outputs.items():
                loss = ufloss_per_image(network, tensor(images, index), target, target_features=features, **options)
                values[method][index] = float(loss)
        for method, of_slices in values.items():
            self._add(method, net.metric, of_slices)

    def add_dice(self) -> None:
        """Dice of each method and of the main reference by class, nan without the class, and a picture."""
        truth, net = self.truth, self.settings.load_segmenter()
        if truth is None:
            raise ValueError(f"a segmenter needs segmentations, got none of {self.files.name}")
        if truth.min() < 0 or truth.max() >= net.num_classes:
            raise ValueError(
                f"{self.files.segmentation} must have the segmenter's classes 0 .. {net.num_classes - 1}, got "
                f"{truth.min()} .. {truth.max()}"
            )
        images = {self.main: self.references[self.main], **self.outputs}
        labels = segment_volume(net, images, device=self.settings.device)
        dice = {}
        for source, classes in labels.items():
            of_source = dice_of_classes(torch.from_numpy(classes), torch.from_numpy(truth), net.num_classes)
            dice[source] = of_source.double().numpy()
        names = [f"Dice {label}" for label in range(1, net.num_classes)]
        for method in self.outputs:
            for name, column in zip(names, dice[method].T, strict=True):
                self._add(method, name, column)
        for slice_num, row in zip(self.kept.tolist(), dice[self.main], strict=True):
            self.segmenter.append({"slice": slice_num, **_plain(dict(zip(names, row, strict=True)))})
        if path := self.settings.picture_path(self.files.name):
            self._save_contours(path, truth, images, labels, dice)

    def _save_contours(self, path: Path, truth: np.ndarray, images: Images, labels: Images, dice: Images) -> None:
        """Draw the slice with the largest segmented area, or the middle slice."""
        areas = (truth > 0).sum(axis=(1, 2))
        index = int(areas.argmax()) if areas.any() else len(areas) // 2
        notes = {}
        for source in images:
            texts = []
            if source in self.outputs:
                texts.append(f"PSNR {self.slices[source][f'PSNR ({self.main})'][index]:.1f} dB")
            if areas.any():
                texts.append(f"Dice {np.nanmean(dice[source][index]):.2f}")
            notes[source] = ", ".join(texts)
        shown, predictions = ({source: x[index] for source, x in of.items()} for of in (images, labels))
        title = f"{self.files.name}, slice {self.kept[index]}"
        save_contours(path, shown, truth=truth[index], predictions=predictions, notes=notes, title=title)

    def add_residuals(self) -> None:
        """Residuals of the methods, and that of the coil-combined reference, if there is one."""
        acquired, kept = self.acquired, self.kept
        if acquired is None or not acquired.residual:
            return
        for method in self.outputs:
            self._add(method, RESIDUAL, acquired.residual[method][kept], acquired.of_volume(method, kept))
        if acquired.is_fully_sampled:
            self.of_references.setdefault(COIL_COMBINED, {})[RESIDUAL] = acquired.of_volume("", kept)


@torch.no_grad()
def segment_volume(net: nn.Module, images: Images, *, device: str) -> dict[str, np.ndarray]:
    """Class numbers (slices, rows, cols) that a segmenter finds in magnitudes of the same shape, by name."""
    labels = {}
    for source, volume in images.items():
        batches = torch.from_numpy(np.ascontiguousarray(volume)).unsqueeze(1).split(BATCH)
        labels[source] = torch.cat([net(batch.to(device)).cpu() for batch in batches]).numpy()
    return labels


def _mean(values: np.ndarray) -> float:
    """The mean of the values that are not nan; nan if there are none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else math.nan


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """None for what is not defined; what is infinite stays, to be told of."""
    return {name: None if math.isnan(value) else float(value) for name, value in values.items()}
