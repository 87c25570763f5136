"""The scores of a report: their names, what they mean, and which of them are tested."""

from collections.abc import Sequence
from typing import NamedTuple

from fastmri_ufloss.report.scores.score_settings import COIL_COMBINED, FeatureNetFile, ScoreSettings
from fastmri_ufloss.report.scores.scoring import RESIDUAL, SHARPNESS

__all__ = ["Metric", "list_metrics"]


class Metric(NamedTuple):
    """A score.

    Args:
        name: unique.
        label: the name where the reference is known.
        reference: what is compared with, None if nothing.
        larger_is_better: None where neither more nor less is.
        unit: may be empty.
        explanation: a sentence or two.
        tested: whether methods are tested for a difference.
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
    asked twice.

    Args:
        settings: what is scored.
        classes: of the segmenter that any image has.
        with_residual: whether it is known how the volumes were sampled.
    """
    main = settings.main_reference
    metrics = [
        Metric(f"{score} ({reference})", score, reference, larger, unit, words, tested and reference == main)
        for reference in settings.references
        for score, (larger, unit, words, tested) in _IMAGE_SCORES.items()
    ]
    metrics += [_ufloss(net, settings) for net in settings.feature_nets]
    for number in classes:
        words = f"Dice of class {number} in what the segmenter finds, the mean over the slices that have it."
        # SIS of a single class is Dice but for a constant: it would be tested twice
        metrics.append(Metric(f"Dice {number}", f"Dice {number}", None, True, "", words, tested=len(classes) > 1))
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
