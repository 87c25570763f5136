"""What volumes are scored with, in plain values that a worker process can be sent, and what the scores mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from fastmri_ufloss.models import PatchFeatureNet, Segmenter, load_segmenter
from fastmri_ufloss.report.reconstructions import path_stamp

__all__ = ["COIL_COMBINED", "RESIDUAL", "SHARPNESS", "FeatureNetFile", "Metric", "ScoreSettings", "list_metrics"]

COIL_COMBINED, RESIDUAL, SHARPNESS = "coil-combined", "residual", "sharpness"
VERSION = 3  # of the scores: a new one makes all of them anew


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
    """What volumes are scored with.

    Args:
        references: their names, the main one first; ``COIL_COMBINED`` is computed from the k-space where the volume
            has no file of that name.
        segmenter: checkpoint of a segmentation network, for Dice.
        stride: of the patches of UFLoss; its default if None.
        pictures: folder for a picture of each volume with the contours of its segmentations.
    """

    references: tuple[str, ...]
    feature_nets: tuple[FeatureNetFile, ...] = ()
    segmenter: Path | None = None
    stride: int | None = None
    device: str = "cpu"
    pictures: Path | None = None

    @property
    def main_reference(self) -> str:
        """The reference that UFLoss of magnitudes and Dice are measured against."""
        return self.references[0]

    @property
    def stamp(self) -> list[Any]:
        """What the scores depend on, in plain values."""
        nets = [[*path_stamp(net.path), net.in_chans, net.metric] for net in self.feature_nets]
        segmenter = None if self.segmenter is None else path_stamp(self.segmenter)
        return [VERSION, list(self.references), nets, segmenter, self.stride]

    def picture_path(self, name: str) -> Path | None:
        """The picture of a volume, if a picture is to be drawn."""
        if self.segmenter is None or self.pictures is None:
            return None
        return self.pictures / f"{Path(name).stem}.png"

    def load_feature_net(self, net: FeatureNetFile) -> nn.Module:
        """A frozen network in eval mode on the device."""
        return PatchFeatureNet.load(net.path).to(self.device).eval().requires_grad_(False)

    def load_segmenter(self) -> Segmenter:
        """The segmenter, likewise."""
        if self.segmenter is None:
            raise ValueError("settings must have a segmenter, got none")
        return load_segmenter(self.segmenter).to(self.device).eval().requires_grad_(False)


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
_SSIM = f"Structural similarity, fastMRI's: uniform windows of 7x7, the mean over slices. {_RANGE}"
_GAUSSIAN = (
    "Structural similarity with the Gaussian windows of Wang et al. (IEEE TIP 2004), as papers give it. Not "
    "tested: it is SSIM again with other windows."
)
_HFEN = (
    "High-frequency error norm: |LoG(x - t)| / |LoG(t)|, of edges and fine structures (after Ravishankar and "
    "Bresler, IEEE TMI 2011)."
)
_IMAGE_SCORES = {  # larger is better, unit, in words, tested
    "NMSE": (False, "", "|x - t|^2 / |t|^2, fastMRI's. Not tested: it is the square of NRMSE.", False),
    "NRMSE": (False, "", "|x - t| / |t| over the slice or the volume.", True),
    "PSNR": (True, "dB", f"Peak signal-to-noise ratio, fastMRI's. {_RANGE}", True),
    "SSIM": (True, "", _SSIM, True),
    "SSIM Gaussian": (True, "", _GAUSSIAN, False),
    "HFEN": (False, "", _HFEN, True),
}
_RESIDUAL_WORDS = (
    "|U F S x - y| / |U y|: the part of the acquired samples y that the image does not explain, with the phase of "
    "the reference for all methods. Less agrees better; much more than others have means that something measured was "
    "lost or altered. It is a check and not tested: below the value of the reference itself an image fits the noise "
    "of the samples."
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
    main = settings.main_reference
    metrics = [
        Metric(f"{score} ({reference})", score, reference, larger, unit, words, tested and reference == main)
        for reference in settings.references
        for score, (larger, unit, words, tested) in _IMAGE_SCORES.items()
    ]
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
    if with_residual:
        metrics.append(Metric(RESIDUAL, RESIDUAL, None, False, "", _RESIDUAL_WORDS, tested=False))
    return [*metrics, Metric(SHARPNESS, SHARPNESS, None, None, "", _SHARPNESS_WORDS, tested=False)]


def _ufloss(net: FeatureNetFile, settings: ScoreSettings) -> Metric:
    is_complex = net.in_chans == 2
    reference = COIL_COMBINED if is_complex and COIL_COMBINED in settings.references else settings.main_reference
    images = "complex images, all with the phase of the reference" if is_complex else "magnitudes"
    file = f"{net.path.parent.name}/{net.path.name}"
    words = f"Distance in the feature space of patches (Wang et al., MRM 2022), of {images}. Network: {file}."
    if net.trained_on:
        words += " A method was trained with it: a loss must not grade itself, so it is not tested."
    return Metric(net.metric, net.metric, reference, False, "", words, tested=not net.trained_on)
