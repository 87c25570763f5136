"""Training, validation and test of MoDL."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fastmri_ufloss.models.modl import MoDL
from fastmri_ufloss.pl_modules.sense_module import SenseModule

__all__ = ["MoDLModule"]


class MoDLModule(SenseModule):
    """MoDL on `MoDLSample` batches, see `SenseModule`.

    Args:
        model: settings of `MoDL`.
        loss, score_feature_net, score_stride, num_log_images: see `SenseModule`.
        lr: Adam's learning rate.
        lr_step_size: epochs after which it is multiplied by lr_gamma, again and again; None keeps it, as the paper.
        lr_gamma: see lr_step_size.
    """

    title = "MoDL"

    def __init__(
        self,
        *,
        model: Mapping[str, Any] | None = None,
        loss: nn.Module | None = None,
        score_feature_net: nn.Module | None = None,
        score_stride: int = 5,
        lr: float = 1e-4,
        lr_step_size: int | None = None,
        lr_gamma: float = 0.1,
        num_log_images: int = 16,
    ) -> None:
        super().__init__(
            loss=loss, score_feature_net=score_feature_net, score_stride=score_stride, num_log_images=num_log_images
        )
        self.save_hyperparameters(ignore=["model", "loss", "score_feature_net"])
        self.save_hyperparameters({"model": dict(model or {})})
        self.modl = MoDL(**dict(model or {}))
        self.lr = lr
        self.lr_step_size = lr_step_size
        self.lr_gamma = lr_gamma

    @property
    def network(self) -> MoDL:
        """The `MoDL`."""
        return self.modl

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        optimizer = torch.optim.Adam(self.modl.parameters(), lr=self.lr)
        if self.lr_step_size is None:
            return [optimizer], []
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, self.lr_step_size, self.lr_gamma)]
