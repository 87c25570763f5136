"""UFLoss: the distance of two images in the feature space of their patches."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from fastmri_ufloss.checks import check, check_at_least_one, require
from fastmri_ufloss.losses.images import FrozenNetworkLoss, check_images, check_shape
from fastmri_ufloss.mri.intensity import image_scale, to_patch_channels

__all__ = ["UFLoss", "check_at_least_one", "patch_features", "ufloss_per_image"]


class UFLoss(FrozenNetworkLoss):
    """The mean squared distance between the features of corresponding patches of two images.

        loss = mean_j |f(p_j) - f(p^_j)|^2 = 2 mean_j (1 - <f(p_j), f(p^_j)>)

    p_j and p^_j are patches of target and output at the same place, on a grid of ``stride`` in both directions, and
    f is the feature network, frozen (see `FrozenNetworkLoss`). Both images are divided by the target's
    `fastmri_ufloss.mri.intensity.image_scale`. The value lies in 0 .. 4 and is twice the L_UF of the paper.

    In training (the module in training mode and gradients enabled) both images are rolled by the same random shift
    in [0, stride) in each direction, one shift for the whole batch, and ``patches_per_step`` places are drawn from
    the grid without replacement: an unbiased estimate of the loss over the whole grid. The random numbers come from
    torch's global generator of the CPU. Otherwise the whole grid is used without a shift.

    A network with ``grid_features`` (`PatchFeatureNet` of architecture "narrow") sees all patches of a grid in one
    pass over the image, where the stride is a multiple of its ``grid_step``.

    Wang et al., "High fidelity deep learning-based MRI reconstruction with instance-wise discriminative
    feature matching loss", MRM 2022, eq. 10 and 11.

    Args:
        feature_net: f, patches (n, in_chans, p, p) to unit vectors (n, d), with the attributes ``in_chans``
            (2 for complex images, 1 for magnitudes) and ``patch_size`` (p).
        stride: distance of neighboring patches of the grid in pixels; None: the network's ``grid_step``, else 5.
        patches_per_step: patches of each image in a training step; None: 64 where the network sees one patch after
            the other, all where it sees the grid at once.
        chunk_size: patches that go through the network at once, where it sees one after the other. With more, the
            chunks are computed again in the backward pass instead of being stored.
        inner_layers: add the same distance of the network's inner layers, whose unit vectors belong to each of their
            pixels, the mean over the pixels, one for each layer: finer than a patch. For networks of architecture
            "narrow". The value is in 0 .. 4 for each.

    Raises:
        ValueError: if stride, patches_per_step or chunk_size is below 1, or the network has no such layers.
    """

    feature_net: nn.Module

    def __init__(
        self,
        feature_net: nn.Module,
        *,
        stride: int | None = None,
        patches_per_step: int | None = None,
        chunk_size: int = 256,
        inner_layers: bool = False,
    ) -> None:
        check_at_least_one(stride=stride, chunk_size=chunk_size, patches_per_step=patches_per_step)
        super().__init__("feature_net", feature_net)
        self.stride = _stride(feature_net, stride)
        if inner_layers:
            kind = getattr(feature_net, "architecture", type(feature_net).__name__)
            has_layers = getattr(feature_net, "grid_step", None) is not None
            check(has_layers, "feature_net", "of the architecture 'narrow' for inner_layers", repr(kind))
            step = feature_net.grid_step
            check(
                _sees_grid(feature_net, self.stride), "stride", f"a multiple of {step} for inner_layers", self.stride
            )
        self.inner_layers = inner_layers
        self.patches_per_step = patches_per_step
        self.chunk_size = chunk_size

    def forward(self, output: Tensor, target: Tensor, data_range: Any = None) -> Tensor:
        """The loss of a batch, a scalar, at least float32.

        Images are (batch, 1, rows, cols), not smaller than a patch, complex for a network of 2 channels and real
        magnitudes for 1, ValueError otherwise; ``data_range`` is not used, since the scale is the target's.
        """
        net = self.feature_net
        if not (self.training and torch.is_grad_enabled()):
            values = ufloss_per_image(
                net, output, target, stride=self.stride, chunk_size=self.chunk_size, inner_layers=self.inner_layers
            )
            return values.mean()
        check_images(output, target)
        corners = _grid(net, target, self.stride)
        shift = torch.randint(self.stride, (2,))
        at_once = _sees_grid(net, self.stride)
        number = self.patches_per_step or (len(corners) if at_once else 64)
        chosen = torch.randperm(len(corners))[:number] if number < len(corners) else None
        if at_once:
            output, target = (torch.roll(image, shift.tolist(), dims=(-2, -1)) for image in (output, target))
            *inner, distances = _grid_distances(net, output, target, self.stride, inner_layers=self.inner_layers)
            chosen_distances = distances if chosen is None else distances[:, chosen]
            return torch.stack([layer.mean() for layer in (*inner, chosen_distances)]).sum()
        corners = corners if chosen is None else corners[chosen]
        # taking a patch of the rolled image at a corner is taking it from the image at corner - shift
        return _distance(net, output, target, corners - shift, self.chunk_size).mean()


def ufloss_per_image(
    feature_net: nn.Module,
    output: Tensor,
    target: Tensor,
    *,
    stride: int | None = None,
    chunk_size: int = 256,
    target_features: Tensor | None = None,
    inner_layers: bool = False,
) -> Tensor:
    """`UFLoss` of each image of a batch over the whole grid, (batch,).

    The network is in eval mode. ``target_features``, (batch, patches, d), are what `patch_features` gives for the
    target, its own `image_scale` and the same stride: half the work for every further output of one target. For the
    other arguments and errors see `UFLoss`.
    """
    check_images(output, target)
    check_at_least_one(chunk_size=chunk_size)
    stride = _stride(feature_net, stride)
    corners = _grid(feature_net, target, stride)
    if target_features is not None:
        expected, shape = (len(target), len(corners)), tuple(target_features.shape)
        demand = f"target_features must have shape ({expected[0]}, {expected[1]}, d)"
        require(shape[:2] == expected, demand, shape)
    if _sees_grid(feature_net, stride):
        layers = _grid_distances(feature_net, output, target, stride, target_features, inner_layers=inner_layers)
        return torch.stack([layer.mean(dim=1) for layer in layers]).sum(dim=0)
    return _distance(feature_net, output, target, corners, chunk_size, target_features)


def patch_features(
    feature_net: nn.Module, images: Tensor, scale: Tensor, *, stride: int | None = None, chunk_size: int = 256
) -> Tensor:
    """Features of all patches of the grid, row by row, (batch, patches, d), without gradient.

    The network is in eval mode. The images are divided by ``scale``, (batch,), the `image_scale` of the target. For
    the other arguments and errors see `UFLoss`.
    """
    check_shape("images", images)
    check_at_least_one(chunk_size=chunk_size)
    require(scale.shape == images.shape[:1], f"scale must have shape ({len(images)},)", tuple(scale.shape))
    stride = _stride(feature_net, stride)
    corners = _grid(feature_net, images, stride)
    with torch.no_grad():
        channels = _channels(feature_net, images, scale)
        if _sees_grid(feature_net, stride):
            return feature_net.grid_features(channels, stride=stride)  # type: ignore[operator]
        chunks = [_features(feature_net, channels, c) for c in corners.split(max(1, chunk_size // len(images)))]
    return torch.cat(chunks, dim=1)


def _distance(
    feature_net: nn.Module,
    output: Tensor,
    target: Tensor,
    corners: Tensor,
    chunk_size: int,
    target_features: Tensor | None = None,
) -> Tensor:
    """mean_j |f(p_j) - f(p^_j)|^2 over the patches at ``corners``, (batch,)."""
    scale = image_scale(target)
    output_channels = _channels(feature_net, output, scale)
    target_channels = _channels(feature_net, target.detach(), scale)
    store = not output_channels.requires_grad or len(corners) * len(output) <= chunk_size
    total, start = torch.zeros_like(scale), 0
    for chunk in corners.split(max(1, chunk_size // len(output))):
        if target_features is None:
            with torch.no_grad():
                wanted = _features(feature_net, target_channels, chunk)
        else:
            wanted = target_features[:, start : start + len(chunk)].detach()
        start += len(chunk)
        if store:
            features = _features(feature_net, output_channels, chunk)
        else:
            features = checkpoint(
                _features, feature_net, output_channels, chunk, use_reentrant=False, preserve_rng_state=False
            )
        total = total + (features - wanted).square().sum(dim=(1, 2))
    return total / len(corners)


def _grid_distances(
    feature_net: Any,
    output: Tensor,
    target: Tensor,
    stride: int,
    target_features: Tensor | None = None,
    *,
    inner_layers: bool = False,
) -> list[Tensor]:
    """|f(p_j) - f(p^_j)|^2 of all patches of the grid, (batch, patches), by a network that sees the grid at once;
    with ``inner_layers`` the same of these before, (batch, pixels)."""
    scale = image_scale(target)

    def layers(images: Tensor) -> list[Tensor]:
        channels = _channels(feature_net, images, scale)
        if inner_layers:
            return list(feature_net.grid_layers(channels, stride=stride))
        return [feature_net.grid_features(channels, stride=stride)]

    with torch.no_grad():
        wanted = layers(target) if target_features is None or inner_layers else [target_features]
    pairs = zip(layers(output), wanted, strict=True)
    return [(features - of_target.detach()).square().sum(dim=2) for features, of_target in pairs]


def _features(feature_net: nn.Module, channels: Tensor, corners: Tensor) -> Tensor:
    """Features of the patches of (batch, in_chans, rows, cols) at corners (m, 2), (batch, m, d).

    Indices are modulo the size of the image, so neither the rolled image nor any other patch is made.
    """
    batch, in_chans = channels.shape[:2]
    size = int(feature_net.patch_size)  # type: ignore[arg-type]
    cut = _CutOnCPU.apply if channels.device.type == "cpu" else _cut
    patches: Tensor = cut(channels, corners, size)
    patches = patches.transpose(1, 2).reshape(-1, in_chans, size, size)
    features: Tensor = feature_net(patches)
    return features.reshape(batch, len(corners), -1)


def _cut(channels: Tensor, corners: Tensor, size: int) -> Tensor:
    """Patches (batch, in_chans, m, size, size)."""
    num_rows, num_cols = channels.shape[2:]
    corners = corners.to(channels.device, non_blocking=True)
    span = torch.arange(size, device=channels.device)
    rows = (corners[:, :1] + span) % num_rows
    cols = (corners[:, 1:] + span) % num_cols
    return channels[:, :, rows[:, :, None], cols[:, None, :]]


class _CutOnCPU(torch.autograd.Function):
    """`_cut`, with a gradient that is summed patch by patch: that of indexing is summed by several threads in any
    order on a CPU, so that the same seed would not give the same run."""

    @staticmethod
    def forward(ctx: Any, channels: Tensor, corners: Tensor, size: int) -> Tensor:
        ctx.corners, ctx.size, ctx.shape = corners.tolist(), size, channels.shape
        return _cut(channels, corners, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        batch, in_chans, num_rows, num_cols = ctx.shape
        size = ctx.size
        total = grad.new_zeros(batch, in_chans, num_rows + size, num_cols + size)
        for index, (row, col) in enumerate(ctx.corners):
            row, col = row % num_rows, col % num_cols
            total[:, :, row : row + size, col : col + size] += grad[:, :, index]
        # what lies beyond the lower and the right edge belongs to the upper and the left one
        total[:, :, :size] += total[:, :, num_rows:]
        total[:, :, :, :size] += total[:, :, :, num_cols:]
        return total[:, :, :num_rows, :num_cols].contiguous(), None, None


def _channels(feature_net: nn.Module, images: Tensor, scale: Tensor) -> Tensor:
    """Images (batch, 1, rows, cols) at scale, as real channels in the precision of the network."""
    channels = to_patch_channels(images.squeeze(1), int(feature_net.in_chans))  # type: ignore[arg-type]
    channels = channels.to(scale.dtype) / scale.reshape(-1, 1, 1, 1)
    parameter = next(feature_net.parameters(), None)
    return channels if parameter is None else channels.to(parameter.dtype)


def _stride(feature_net: nn.Module, stride: int | None) -> int:
    return stride if stride is not None else getattr(feature_net, "grid_step", None) or 5


def _sees_grid(feature_net: nn.Module, stride: int) -> bool:
    step = getattr(feature_net, "grid_step", None)
    return step is not None and stride % step == 0


def _grid(feature_net: nn.Module, images: Tensor, stride: int) -> Tensor:
    """Upper left corners of the patches of the grid, (patches, 2), on the CPU."""
    check_at_least_one(stride=stride)
    check(not feature_net.training, "feature_net", "in eval mode", "training mode: call feature_net.eval()")
    size: int = feature_net.patch_size  # type: ignore[assignment]
    num_rows, num_cols = images.shape[-2:]
    expected = f"at least as large as a patch of {size}x{size}"
    check(min(num_rows, num_cols) >= size, "images", expected, f"{num_rows}x{num_cols}")
    rows = torch.arange(0, num_rows - size + 1, stride)
    return torch.cartesian_prod(rows, torch.arange(0, num_cols - size + 1, stride))
