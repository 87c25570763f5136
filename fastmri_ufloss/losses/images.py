"""What losses have in common, and those that compare pixels: l1, l2, nmse.

A loss is called ``loss(output, target, data_range, reduction="mean")`` with

    output: x, (batch, 1, rows, cols), real magnitude or complex,
    target: t, the same shape and kind; no gradient flows to the target,
    data_range: (batch,), the largest intensity of each image's volume, used only by losses that do not divide the
        images by the scale of the target, `fastmri_ufloss.mri.intensity.image_scale`,
    reduction: "mean" over the batch, a scalar; or "none", a value for each image, (batch,),

is >= 0 and 0 for equal images, and raises ValueError if shapes or kinds differ.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from fastmri_ufloss.checks import check, require
from fastmri_ufloss.mri.intensity import image_scale

__all__ = ["L1Loss", "L2Loss", "NMSELoss", "l1_loss", "l2_loss", "nmse_loss"]

Range = Tensor | float | None
Reduction = Literal["mean", "none"]

_Loss = TypeVar("_Loss", bound="FrozenNetworkLoss")


def loss_module(name: str, function: Callable[..., Tensor]) -> type[nn.Module]:
    """A loss function as a class of modules without settings."""

    def forward(self: nn.Module, output: Tensor, target: Tensor, data_range: Range = None) -> Tensor:
        return function(output, target, data_range)

    doc = f"`{function.__name__}` as a module."
    return type(name, (nn.Module,), {"forward": forward, "__doc__": doc, "__module__": function.__module__})


class FrozenNetworkLoss(nn.Module):
    """A module with a network, held as the attribute ``name``, that is frozen and always in eval mode.

    The network is no part of this module's state dict, which loads strictly; weights of a network there are ignored.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        self.add_module(name, network.requires_grad_(False).eval())
        self._network_name = name
        self.register_state_dict_post_hook(_leave_out)
        self.register_load_state_dict_pre_hook(_put_in)

    def train(self: _Loss, mode: bool = True) -> _Loss:
        """Set the mode of this module; the network stays in eval mode."""
        super().train(mode)
        self.get_submodule(self._network_name).eval()
        return self


def _leave_out(module: Any, state_dict: dict[str, Any], prefix: str, local_metadata: Any) -> None:
    network = f"{prefix}{module._network_name}."
    for name in [name for name in state_dict if name.startswith(network)]:
        del state_dict[name]


def _put_in(module: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """The weights that the network has, so that it loads these."""
    _leave_out(module, state_dict, prefix, None)
    network = module.get_submodule(module._network_name)
    state_dict.update(network.state_dict(prefix=f"{prefix}{module._network_name}.", keep_vars=True))


def check_images(output: Tensor, target: Tensor) -> None:
    """Raise ValueError unless both are images (batch, 1, rows, cols) of the same shape and kind."""
    check_shape("output", output)
    shapes = f"{tuple(target.shape)} and {tuple(output.shape)}"
    require(output.shape == target.shape, "target must have the shape of output", shapes)
    demand = "output and target must both be complex or both be magnitudes"
    require(output.is_complex() == target.is_complex(), demand, f"{output.dtype}, {target.dtype}")


def check_shape(name: str, images: Tensor) -> None:
    """Raise ValueError unless images have shape (batch, 1, rows, cols), and there is one."""
    fits = images.ndim == 4 and images.shape[1] == 1 and images.numel() > 0
    require(fits, f"{name} must have shape (batch, 1, rows, cols)", tuple(images.shape))


def at_target_scale(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both images after `check_images`, in at least float32, divided by `image_scale` of the detached target."""
    check_images(output, target)
    target = target.detach()
    scale = image_scale(target).reshape(-1, 1, 1, 1)
    return _at_least_float32(output) / scale, _at_least_float32(target) / scale


def channels(images: Tensor) -> Tensor:
    """Real images (batch, 2, rows, cols) of complex ones: real and imaginary part; magnitudes as they are."""
    if not images.is_complex():
        return images
    return torch.view_as_real(images.resolve_conj()).squeeze(1).permute(0, 3, 1, 2)


def magnitude(images: Tensor) -> Tensor:
    """Real images in at least float32: the magnitude of complex ones, others as they are."""
    return _at_least_float32(images.abs() if images.is_complex() else images)


def no_autocast(images: Tensor) -> torch.autocast:
    """A context without autocast on the device of the images."""
    return torch.autocast(images.device.type, enabled=False)


def reduce(values: Tensor, reduction: Reduction) -> Tensor:
    """The values of the images of a batch, (batch,), or their mean; ValueError for another reduction."""
    check(reduction in ("mean", "none"), "reduction", "'mean' or 'none'", repr(reduction))
    return values.mean() if reduction == "mean" else values


def _at_least_float32(images: Tensor) -> Tensor:
    if images.is_complex():
        return images.to(torch.complex64) if images.dtype == torch.complex32 else images
    return images if images.dtype in (torch.float32, torch.float64) else images.float()


def l1_loss(output: Tensor, target: Tensor, data_range: Range = None, *, reduction: Reduction = "mean") -> Tensor:
    """The mean of |x - t| over pixels and channels (real and imaginary part), at the scale of the target."""
    output, target = at_target_scale(output, target)
    return reduce(channels(output - target).abs().mean(dim=(1, 2, 3)), reduction)


def l2_loss(output: Tensor, target: Tensor, data_range: Range = None, *, reduction: Reduction = "mean") -> Tensor:
    """The mean of |x - t|^2 over pixels and channels (real and imaginary part), at the scale of the target."""
    output, target = at_target_scale(output, target)
    return reduce(channels(output - target).square().mean(dim=(1, 2, 3)), reduction)


def nmse_loss(output: Tensor, target: Tensor, data_range: Range = None, *, reduction: Reduction = "mean") -> Tensor:
    """|x - t|^2 / |t|^2 of each image, 1 for an output of zeros; fastMRI's NMSE is the same of a volume.

    Where the target is zero everywhere, the number of pixels takes the place of its energy.
    """
    output, target = at_target_scale(output, target)
    error = channels(output - target).square().sum(dim=(1, 2, 3))
    energy = channels(target).square().sum(dim=(1, 2, 3))
    return reduce(error / torch.where(energy == 0, float(target[0].numel()), energy), reduction)


L1Loss = loss_module("L1Loss", l1_loss)
L2Loss = loss_module("L2Loss", l2_loss)
NMSELoss = loss_module("NMSELoss", nmse_loss)
