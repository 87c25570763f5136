"""fastMRI's VarNetModule and UnetModule on Lightning 2, with a loss to choose."""

from typing import Any

import fastmri.pl_modules
import torch
from torch import Tensor, nn

from fastmri_ufloss.pl_modules.mri_module import MriModule

__all__ = ["UnetModule", "VarNetModule"]


def _forget_loss(module: MriModule) -> None:
    """fastMRI's constructors store all arguments as hyperparameters; a loss is no plain value."""
    module.hparams.pop("loss", None)
    module._hparams_initial.pop("loss", None)


class VarNetModule(MriModule, fastmri.pl_modules.VarNetModule):
    """``fastmri.pl_modules.VarNetModule`` for Lightning 2.

    Args:
        loss: in place of ``fastmri.SSIMLoss``: called ``loss(output, target, data_range=max_value)`` with
            root-sum-of-squares images (batch, 1, rows, cols). Not part of the hyperparameters.
        **kwargs: of fastMRI's class.
    """

    def __init__(self, *, loss: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _forget_loss(self)
        if loss is not None:
            self.loss = loss

    def forward(self, masked_kspace: Tensor, mask: Tensor, num_low_frequencies: int | Tensor | None) -> Tensor:
        """fastMRI's VarNet; of a batch with different numbers it counts the centre lines in the masks."""
        if isinstance(num_low_frequencies, Tensor):
            numbers = set(num_low_frequencies.flatten().tolist())
            num_low_frequencies = numbers.pop() if len(numbers) == 1 else None
        return super().forward(masked_kspace, mask, num_low_frequencies)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        sizes = tuple(int(torch.as_tensor(size).flatten()[0]) for size in batch.crop_size)
        return super().test_step(batch._replace(crop_size=sizes), batch_idx)


class UnetModule(MriModule, fastmri.pl_modules.UnetModule):
    """``fastmri.pl_modules.UnetModule`` for Lightning 2.

    Args:
        loss: in place of fastMRI's l1 of normalised images: called ``loss(output, target,
            data_range=max_value)`` with images (batch, 1, rows, cols) in the intensities of the file. Not part
            of the hyperparameters.
        **kwargs: of fastMRI's class.
    """

    def __init__(self, *, loss: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _forget_loss(self)
        self.loss = loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.loss is None:
            return super().training_step(batch, batch_idx)
        loss = self._loss(batch, self.loss, self(batch.image))
        self.log("loss", loss.detach())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        logs = super().validation_step(batch, batch_idx)
        if self.loss is not None:
            output, target = logs["output"].unsqueeze(1), logs["target"].unsqueeze(1)
            logs["val_loss"] = self.loss(output, target, data_range=batch.max_value)
        return logs

    def _loss(self, batch: Any, loss: nn.Module, output: Tensor) -> Tensor:
        mean, std = batch.mean[:, None, None, None], batch.std[:, None, None, None]
        output, target = (x.unsqueeze(1) * std + mean for x in (output, batch.target))
        return loss(output, target, data_range=batch.max_value)
