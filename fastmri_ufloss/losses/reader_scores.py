"""Image scores that agree with readers of MR images better than PSNR and SSIM: HaarPSI, VSI, GMSD, by piq.

Arguments and errors are those of `fastmri_ufloss.losses.ssim`; of images the magnitudes count, divided by the data
range and cut off at 0 and 1. In 14,700 scores by radiologists HaarPSI and VSI were among the four that agreed best
(Kastryulin et al., IEEE Access 2023).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from fastmri_ufloss.checks import check
from fastmri_ufloss.losses.images import Range, Reduction, no_autocast, reduce
from fastmri_ufloss.losses.ssim import at_unit_range

__all__ = ["HaarPSILoss", "haarpsi_loss", "reader_score"]

ReaderScore = Literal["haarpsi", "vsi", "gmsd"]

C, ALPHA = 5.0, 4.9  # of HaarPSI for medical images; the original has 30 and 4.2, for photographs
MIN_SIZE = 16  # rows and columns, of HaarPSI's coarsest wavelet


def reader_score(
    name: ReaderScore, output: Tensor, target: Tensor, data_range: Range, *, c: float = C, alpha: float = ALPHA
) -> Tensor:
    """A score of each image, (batch,).

    haarpsi: similarity of Haar wavelets, 0 .. 1, 1 for equal images (Reisenhofer et al., Signal Processing: Image
    Communication 2018). ``c`` and ``alpha`` are its constants, by default those that were fitted to medical images
    (Karner et al., arXiv 2410.24098).
    vsi: similarity of gradients and saliency, 0 .. 1, 1 for equal images (Zhang et al., IEEE TIP 2014).
    gmsd: deviation of the similarity of gradients, 0 for equal images (Xue et al., IEEE TIP 2014).
    """
    names = ("haarpsi", "vsi", "gmsd")
    check(name in names, "name", f"one of {', '.join(names)}", repr(name))
    try:
        import piq
    except ImportError as error:
        raise ImportError(f"{name} needs piq ({error}): pip install 'fastmri-ufloss[scores]'") from error
    x, t = at_unit_range(name, output, target, data_range, [MIN_SIZE])
    precision = t.dtype
    if t.device.type != "mps":  # which has no float64; other GPUs may round convolutions in float32 to 10 bits
        x, t = x.double(), t.double()
    x, t = x.clamp(0, 1), t.clamp(0, 1)
    known = ~(x + t).flatten(1).isnan().any(dim=1)  # piq refuses NaN, and gives it for two empty images
    usable = (known & ((x + t).flatten(1) > 0).any(dim=1)).reshape(-1, 1, 1, 1)
    x, t = (torch.where(usable, image, 0.5) for image in (x, t))
    with no_autocast(output):
        if name == "haarpsi":
            values = piq.haarpsi(x, t, c=c, alpha=alpha, reduction="none")
        elif name == "vsi":  # of gray images in the channels of color
            values = piq.vsi(x.expand(-1, 3, -1, -1), t.expand(-1, 3, -1, -1), reduction="none")
        else:
            values = piq.gmsd(x, t, reduction="none")
        return torch.where(known, values.reshape(len(x)).to(precision), torch.nan)


def haarpsi_loss(
    output: Tensor,
    target: Tensor,
    data_range: Range,
    *,
    c: float = C,
    alpha: float = ALPHA,
    reduction: Reduction = "mean",
) -> Tensor:
    """1 - HaarPSI, 0 to 1, see `reader_score`.

    VSI and GMSD are no losses: their gradients are not finite where an image is dark or equals its target.
    """
    return reduce(1 - reader_score("haarpsi", output, target, data_range, c=c, alpha=alpha), reduction)


class HaarPSILoss(nn.Module):
    """`haarpsi_loss` as a module."""

    def __init__(self, *, c: float = C, alpha: float = ALPHA) -> None:
        super().__init__()
        check(c > 0 and alpha > 0, "c and alpha", "above 0", (c, alpha))
        self.c, self.alpha = c, alpha

    def forward(self, output: Tensor, target: Tensor, data_range: Range = None) -> Tensor:
        return haarpsi_loss(output, target, data_range, c=self.c, alpha=self.alpha)
