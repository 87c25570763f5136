"""Training, validation and test of RecNet."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fastmri_ufloss.models.recnet import RecNet
from fastmri_ufloss.pl_modules.sense_module import SenseModule

__all__ = ["RecNetModule"]

BETAS = (0.5, 0.999)  # of Adam in the paper


class RecNetModule(SenseModule):
    """RecNet on `MoDLSample` batches, see `SenseModule`; stage 1 of `RefinementModule`.

    Args:
        model: settings of `RecNet`.
        loss, score_feature_net, score_stride, num_log_images: see `SenseModule`.
        lr: Adam's learning rate.

    Seitzer et al., "Adversarial and perceptual refinement for compressed sensing MRI reconstruction", MICCAI 2018.
    """

    title = "RecNet"

    def __init__(
        self,
        *,
        model: Mapping[str, Any] | None = None,
        loss: nn.Module | None = None,
        score_feature_net: nn.Module | None = None,
        score_stride: int = 5,
        lr: float = 2e-4,
        num_log_images: int = 16,
    ) -> None:
        super().__init__(
            loss=loss, score_feature_net=score_feature_net, score_stride=score_stride, num_log_images=num_log_images
        )
        self.save_hyperparameters(ignore=["model", "loss", "score_feature_net"])
        self.save_hyperparameters({"model": dict(model or {})})
        self.recnet = RecNet(**dict(model or {}))
        self.lr = lr

    @property
    def network(self) -> RecNet:
        """The `RecNet`."""
        return self.recnet

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.recnet.parameters(), lr=self.lr, betas=BETAS)
