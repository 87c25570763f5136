"""fastMRI's VarNetModule and UnetModule on Lightning 2, with a loss to choose."""

import inspect
from typing import Any, Literal, get_args

import fastmri
import fastmri.pl_modules
import torch
from fastmri.data.transforms import center_crop
from torch import Tensor, nn

from fastmri_ufloss.checks import check
from fastmri_ufloss.data.reconstruction_writer import leaderboard_size
from fastmri_ufloss.models.unet import HOST_CONVS_PER_STAGE, DeepUnet
from fastmri_ufloss.pl_modules.mri_module import Batch, MriModule, Reconstruction, without_float64

__all__ = ["OptimizerName", "UnetModule", "VarNetModule"]

OptimizerName = Literal["rmsprop", "adam"]
Optimizers = tuple[list[torch.optim.Optimizer], list[Any]]  # and the schedulers


class VarNetModule(MriModule, fastmri.pl_modules.VarNetModule):
    """``fastmri.pl_modules.VarNetModule`` for Lightning 2.

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
        if loss is not None:
            self.loss = loss

    def forward(self, masked_kspace: Tensor, mask: Tensor, num_low_frequencies: int | Tensor | None) -> Tensor:
        """fastMRI's VarNet; of a batch with different numbers it counts the center lines in the masks."""
        if isinstance(num_low_frequencies, Tensor):
            numbers = set(num_low_frequencies.flatten().tolist())
            num_low_frequencies = numbers.pop() if len(numbers) == 1 else None
        return super().forward(masked_kspace, mask, num_low_frequencies)

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


def _without_frozen(configured: Optimizers) -> Optimizers:
    """Without the parameters of networks that losses and metrics hold: a run may go on with other metrics."""
    for optimizer in configured[0]:
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
    return configured
