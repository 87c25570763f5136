"""The UFLoss of slices as a metric."""

from torch import Tensor, nn

from fastmri_ufloss.losses.ufloss import ufloss_per_image
from fastmri_ufloss.metrics.volume_metric import VolumeMetric

__all__ = ["UFLossMetric"]


class UFLossMetric(VolumeMetric):
    """UFLoss of each slice over the whole grid of patches, the mean over the slices of each volume and over volumes.

    The value lies in 0 .. 4, is 0 for equal images, and does not depend on the unit of the images. See
    `fastmri_ufloss.losses.UFLoss`, of which this is the value in eval mode.

    The network is frozen, in eval mode, and no part of this module: it is in no state dict and gets no gradient. It
    goes to the device of the metric with the first slices there.

    Args:
        feature_net: a `fastmri_ufloss.models.PatchFeatureNet`: of 2 channels for complex images, of 1 for magnitudes.
        stride: distance of neighbouring patches of the grid in pixels.
        chunk_size: patches that go through the network at once.

    Raises:
        ValueError: if stride or chunk_size is below 1; in `update`, if an image is of the other kind or smaller than
            a patch.
    """

    slice_sums = ("ufloss",)

    def __init__(self, feature_net: nn.Module, *, stride: int = 5, chunk_size: int = 256) -> None:
        super().__init__()
        for name, value in (("stride", stride), ("chunk_size", chunk_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.stride = stride
        self.chunk_size = chunk_size
        # in a list, so that its weights are no part of this module
        self._feature_nets = [feature_net.requires_grad_(False)]

    def slice_values(self, output: Tensor, target: Tensor, max_value: Tensor | None) -> tuple[Tensor]:
        net = self._feature_nets[0].to(self.device).eval()
        return (ufloss_per_image(net, output, target, stride=self.stride, chunk_size=self.chunk_size),)

    def volume_value(self, values: Tensor) -> float:
        return values.mean().item()
