"""fastMRI's VarNetModule and UnetModule on Lightning 2, with a loss to choose."""

import inspect
from typing import Any, Literal, get_args

import fastmri
import fastmri.pl_modules
import torch
from fastmri.data.transforms import center_crop
from fastmri.models.varnet import VarNetBlock
from torch import Tensor, nn

from fastmri_ufloss.checks import check
from fastmri_ufloss.data.reconstruction_writer import leaderboard_size
from fastmri_ufloss.models.unet import HOST_CONVS_PER_STAGE, DeepUnet
from fastmri_ufloss.pl_modules.mri_module import Batch, MriModule, Reconstruction, without_float64

__all__ = ["OptimizerName", "UnetModule", "VarNetModule"]

OptimizerName = Literal["rmsprop", "adam"]
Optimizers = tuple[list[torch.optim.Optimizer], list[Any]]  # and the schedulers


class _VarNetBlock(VarNetBlock):
    """fastMRI's, whose zero comes from the CPU."""

    def forward(self, current_kspace: Tensor, ref_kspace: Tensor, mask: Tensor, sens_maps: Tensor) -> Tensor:
        soft_dc = torch.where(mask, current_kspace - ref_kspace, 0) * self.dc_weight
        model_term = self.sens_expand(self.model(self.sens_reduce(current_kspace, sens_maps)), sens_maps)
        return current_kspace - soft_dc - model_term


class VarNetModule(MriModule, fastmri.pl_modules.VarNetModule):
    """``fastmri.pl_modules.VarNetModule`` for Lightning 2.

    Called as fastMRI's; ``num_low_frequencies`` may be (batch,), and is counted in the masks where it is 0.

    Args:
        loss: in place of ``fastmri.SSIMLoss``: called ``loss(output, target, data_range=max_value)`` with
            root-sum-of-squares images (batch, 1, rows, cols). Not part of the hyperparameters.
        **kwargs: of fastMRI's class.
    """

    prefix = "varnet."
    title = "VarNet"
    samples = "varnet"

    def __init__(self, *, loss: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # the same without waiting for a GPU
        self.varnet.sens_net.mask_center = False
        self.varnet.sens_net.register_forward_pre_hook(_keep_center)
        self.varnet.cascades = nn.ModuleList(_VarNetBlock(block.model) for block in self.varnet.cascades)
        if loss is not None:
            self.loss = loss

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """Magnitudes, cropped as fastMRI crops them, and the root-sum-of-squares image of the file."""
        image = self(batch.masked_kspace, batch.mask, batch.num_low_frequencies).unsqueeze(1)
        with torch.autocast(batch.masked_kspace.device.type, enabled=False):
            coil_images = fastmri.complex_abs(fastmri.ifft2c(batch.masked_kspace))
            zero_filled = fastmri.rss(coil_images, dim=1).unsqueeze(1)
        reference = batch.target.unsqueeze(1).to(image.dtype) if batch.target.ndim == 3 else None
        size = leaderboard_size(image, batch.crop_size) if reference is None else reference.shape[-2:]
        size = tuple(min(a, b) for a, b in zip(size, image.shape[-2:], strict=True))
        cropped = None if reference is None else center_crop(reference, size)
        return Reconstruction(center_crop(image, size), cropped, center_crop(zero_filled, size), None)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(self._for_loss(batch), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        # the metrics get the file's own number, as they do in fastMRI
        return {**super().validation_step(self._for_loss(batch), batch_idx), "max_value": batch.max_value}

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        sizes = tuple(int(torch.as_tensor(size).flatten()[0]) for size in batch.crop_size)
        return super().test_step(batch._replace(crop_size=sizes), batch_idx)

    def configure_optimizers(self) -> Optimizers:
        return _without_frozen(super().configure_optimizers())

    def _for_loss(self, batch: Any) -> Any:
        if isinstance(self.loss, fastmri.SSIMLoss):
            return batch  # as fastMRI, which computes it with the float64 number: its runs are repeated to the bit
        return without_float64(batch, batch.masked_kspace.dtype)


class UnetModule(MriModule, fastmri.pl_modules.UnetModule):
    """``fastmri.pl_modules.UnetModule`` for Lightning 2; with the further defaults fastMRI's class loads checkpoints.

    Args:
        loss: in place of fastMRI's l1 of normalized images: called ``loss(output, target, data_range=max_value)``
            with images (batch, 1, rows, cols) in the intensities of the file. Not part of the hyperparameters.
        convs_per_stage: convolutions in each stage of the U-Net, at least 2, see `DeepUnet`.
        optimizer: ``"rmsprop"``, which is fastMRI's, or ``"adam"``.
        **kwargs: of fastMRI's class.

    Raises:
        ValueError: if an argument is not as above; in training and validation, if a slice has no target.
    """

    prefix = "unet."
    title = "U-Net"
    samples = "unet"

    def __init__(
        self,
        *,
        loss: nn.Module | None = None,
        convs_per_stage: int = HOST_CONVS_PER_STAGE,
        optimizer: OptimizerName = "rmsprop",
        **kwargs: Any,
    ) -> None:
        names = get_args(OptimizerName)
        check(optimizer in names, "optimizer", f"one of {', '.join(names)}", repr(optimizer))
        super().__init__(**kwargs)
        self.loss = loss
        self.optimizer = optimizer
        if convs_per_stage != HOST_CONVS_PER_STAGE:  # fastMRI's own has its initial weights already
            settings = (self.in_chans, self.out_chans, self.chans, self.num_pool_layers, self.drop_prob)
            self.unet = DeepUnet(*settings, convs_per_stage=convs_per_stage)

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """Magnitudes in the intensities of the file, and the image that the file has."""
        mean, std = (value[:, None, None, None].to(batch.image) for value in (batch.mean, batch.std))
        zero_filled = batch.image.unsqueeze(1)
        image = self.unet(zero_filled) * std + mean
        reference = batch.target.unsqueeze(1) * std + mean if batch.target.ndim == 3 else None
        return Reconstruction(image.to(std.dtype), reference, zero_filled * std + mean, None)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.check_target(batch)
        if self.loss is None:
            return super().training_step(batch, batch_idx)
        batch = without_float64(batch, batch.image.dtype)
        result = self.reconstruct(batch)
        loss: Tensor = self.loss(result.image, result.reference, data_range=batch.max_value)
        self.log("loss", loss.detach())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        self.check_target(batch)
        if self.loss is None:
            return super().validation_step(batch, batch_idx)
        single = without_float64(batch, batch.image.dtype)
        logs = super().validation_step(single, batch_idx)
        output, target = logs["output"].unsqueeze(1), logs["target"].unsqueeze(1)
        loss = self.loss(output, target, data_range=single.max_value)
        return {**logs, "max_value": batch.max_value, "val_loss": loss}

    def configure_optimizers(self) -> Optimizers:
        if self.optimizer == "rmsprop":
            return _without_frozen(super().configure_optimizers())
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, self.lr_step_size, self.lr_gamma)
        return _without_frozen(([optimizer], [scheduler]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        # fastMRI's class refuses arguments that it does not know; at their defaults nothing is lost without them
        parameters = inspect.signature(UnetModule).parameters
        stored = checkpoint.get("hyper_parameters", {})
        for name in ("convs_per_stage", "optimizer"):
            if stored.get(name) == parameters[name].default:
                del stored[name]


def _keep_center(sens_net: Any, args: tuple[Tensor, Tensor, int | Tensor | None]) -> tuple[Tensor, Tensor, None]:
    """Zeros in place of all but the center lines, as fastMRI's ``SensitivityModel`` with ``mask_center``."""
    masked_kspace, mask, number = args
    if isinstance(number, Tensor):
        given = number.to(mask.device, non_blocking=True)
    else:
        given = torch.full((1,), number or 0, device=mask.device)
    counted = sens_net.get_pad_and_num_low_freqs(mask)[1]
    count = torch.where(given == 0, counted, given)[:, None]
    first = (mask.shape[-2] - count + 1) // 2
    lines = torch.arange(mask.shape[-2], device=mask.device)
    is_center = (lines >= first) & (lines < first + count)
    return torch.where(is_center[:, None, None, :, None], masked_kspace, 0), mask, None


def _without_frozen(configured: Optimizers) -> Optimizers:
    """Without the parameters of networks that losses and metrics hold: a run may go on with other metrics."""
    for optimizer in configured[0]:
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
    return configured
