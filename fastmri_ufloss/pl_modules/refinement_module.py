"""Stage 2: a network that refines the images of a frozen reconstruction network."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fastmri_ufloss.models.refinement import RefinementNet
from fastmri_ufloss.models.sync_batch_norm import convert_sync_batch_norm
from fastmri_ufloss.pl_modules.adversarial_module import AdversarialModule, Batch, load_adversarial_module
from fastmri_ufloss.pl_modules.checkpoints import read_checkpoint
from fastmri_ufloss.pl_modules.reconstructor import TITLES, ImageKind, load_reconstructor, network_of
from fastmri_ufloss.pl_modules.stages import Generated

__all__ = ["WEIGHTS", "RefinementModule", "load_refinement_module", "refine_checkpoint"]

WEIGHTS = {"adversarial": 0.5, "feature_matching": 0.5, "penalty": 0.1}
"""Of the paper's objective, normalised; each image loss has 1."""


class RefinementModule(AdversarialModule):
    """Refines the images of a frozen reconstruction network, adversarially.

        x_hat = R(x_u) + gate * V(R(x_u)),
        L(V) = (L_adv / M + L_feat / N) / 2 + L_perc / O + alpha |x_V|_1

    R is any network of `NETWORKS`: frozen, in eval mode, without gradients, in no optimiser, and in the checkpoint.
    For V and the gate see `RefinementNet`, for the training `AdversarialModule`. M, N and O make their terms 1 in the
    first step, alpha makes the penalty 0.1. ``validation_loss`` is the perceptual term, or without one the normalised
    mean squared error.

    Args:
        recon: R, see `AdversarialModule`; its weights come by `refine_checkpoint`, or a checkpoint.
        refinement: settings of `RefinementNet` but for the channels.
        image_losses: see `AdversarialModule`; the paper's only one is ``perceptual``.
        weights: see `AdversarialModule`; `WEIGHTS`, and 1 for each image loss, where not given.
        discriminator: settings of `PatchDiscriminator`.
        settings: of `AdversarialSettings`.
        num_log_images: validation batches whose images are logged.

    Seitzer et al., "Adversarial and perceptual refinement for compressed sensing MRI reconstruction", MICCAI 2018.
    """

    def __init__(
        self,
        *,
        recon: Mapping[str, Any],
        refinement: Mapping[str, Any] | None = None,
        image_losses: Mapping[str, nn.Module] | None = None,
        weights: Mapping[str, float] | None = None,
        discriminator: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        num_log_images: int = 16,
    ) -> None:
        weights = self.default_weights(image_losses or {}) if weights is None else dict(weights)
        super().__init__(
            recon=recon,
            weights=weights,
            image_losses=image_losses,
            discriminator=discriminator,
            settings=settings,
            num_log_images=num_log_images,
        )
        self.save_hyperparameters({"refinement": dict(refinement or {})})
        self.base_title = TITLES[self.reconstructor.name]
        self.title = f"{self.base_title} + refinement"
        self.reconstructor.requires_grad_(False).eval()
        in_chans: Literal[1, 2] = 2 if self.reconstructor.images == "complex" else 1
        self.refinement = RefinementNet(in_chans=in_chans, **dict(refinement or {}))
        convert_sync_batch_norm(self.refinement)

    @staticmethod
    def default_weights(image_losses: Iterable[str]) -> dict[str, float]:
        """The paper's weights, for image losses of these names."""
        return {**WEIGHTS, **dict.fromkeys(image_losses, 1.0)}

    def train(self, mode: bool = True) -> "RefinementModule":
        """Set the mode of all but R, which stays in eval mode."""
        super().train(mode)
        self.reconstructor.eval()
        return self

    def generator_parameters(self) -> list[nn.Parameter]:
        return list(self.refinement.parameters())

    def generate(self, batch: Batch) -> Generated:
        with torch.no_grad():
            base = self.reconstructor(batch)
        measured = {}
        if self.refinement.data_consistency:
            measured = {"masked_kspace": batch.masked_kspace, "mask": batch.mask, "sens_maps": base.sens_maps}
        refined = self.refinement(base.image, **measured)
        return Generated(refined.image, base, refined.change)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)
        self.log("gate", self.refinement.gate.detach())


def refine_checkpoint(path: str | Path, *, images: ImageKind | None = None, **options: Any) -> RefinementModule:
    """A new `RefinementModule` on top of a trained reconstruction network.

    Args:
        path: a checkpoint of `RecNetModule`, `MoDLModule`, `VarNetModule` or `UnetModule`.
        images: to refine, ``"complex"`` or ``"magnitude"``; what the network gives if not given.
        **options: further arguments of `RefinementModule`.

    Raises:
        FileNotFoundError, ValueError: if there is no such checkpoint, or it is one of another model.
    """
    network, settings = network_of(path)
    module = RefinementModule(recon={"network": network, "settings": settings, "images": images}, **options)
    module.reconstructor.load_state_dict(load_reconstructor(path, images=images).state_dict())
    return module


def load_refinement_module(path: str | Path, **options: Any) -> RefinementModule:
    """The `RefinementModule` of a checkpoint of stage 2, R included.

    Args:
        path: a checkpoint that training wrote.
        **options: further arguments of `RefinementModule`, such as ``image_losses``.

    Raises:
        FileNotFoundError, ValueError: see `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path, prefix="refinement.")
    return load_adversarial_module(RefinementModule, path, checkpoint, options)
