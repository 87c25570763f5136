"""Joint training: one generator for pixels and for looks, the baseline that refinement is compared with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fastmri_ufloss.models.sync_batch_norm import convert_sync_batch_norm
from fastmri_ufloss.pl_modules.adversarial_module import AdversarialModule, Batch, load_adversarial_module
from fastmri_ufloss.pl_modules.checkpoints import read_checkpoint
from fastmri_ufloss.pl_modules.reconstructor import TITLES
from fastmri_ufloss.pl_modules.stages import Generated

__all__ = ["PRESETS", "JointModule", "load_joint_module"]

PRESETS: dict[str, dict[str, Any]] = {
    "equal": {
        "weights": {"l2": 1.0, "adversarial": 0.5, "feature_matching": 0.5, "perceptual": 1.0},
        "normalize": True,
    },
    "dagan": {
        "weights": {"nmse": 15.0, "frequency": 0.1, "adversarial": 1.0, "perceptual": 0.0025},
        "normalize": False,
    },
}
"""Objectives by name.

"equal" has the visual terms of `RefinementModule` beside l2, each 1 in the first step. "dagan" has the terms and
weights of DAGAN's code, but each term at the scale that it has in this package: NMSE is squared here, the Fourier
transform is orthonormal and VGG's images lie in 0 .. 1, so the terms are not in DAGAN's proportion.
"""


class JointModule(AdversarialModule):
    """One reconstruction network, trained from the start for pixels, adversarially and perceptually together.

        L(R) = sum_i w_i L_i,    of an image loss such as l2, the adversarial loss, feature matching, ...

    It is what Seitzer et al., MICCAI 2018, argue against. ``PRESETS["dagan"]`` with a VGG-16 has the terms of Yang et
    al., "DAGAN", IEEE TMI 2018. ``validation_loss`` is as in `RefinementModule`.

    Args:
        recon: R, see `AdversarialModule`.
        image_losses: see there; one for each weight that is none of ``adversarial`` and ``feature_matching``.
        weights: see there; those of ``PRESETS["equal"]`` whose image losses are given, where not given.
        normalize: whether each term is divided by its value in the first step.
        discriminator: settings of `PatchDiscriminator`.
        label_smoothing: what is taken from the label 1 of real images for the discriminator.
        replay_size: images of the discriminator's replay buffer, 0 for none.
        replay_probability: of a stored image to be used.
        lr: of both Adams.
        beta1: decay of their first moment.
        accumulate_grad_batches: batches of a step.
        seed: of dropout and replay buffer.
        num_log_images: validation batches whose images are logged.
    """

    def __init__(
        self,
        *,
        recon: Mapping[str, Any],
        image_losses: Mapping[str, nn.Module] | None = None,
        weights: Mapping[str, float] | None = None,
        normalize: bool = True,
        discriminator: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.1,
        replay_size: int = 80,
        replay_probability: float = 0.5,
        lr: float = 2e-4,
        beta1: float = 0.5,
        accumulate_grad_batches: int = 1,
        seed: int = 0,
        num_log_images: int = 16,
    ) -> None:
        if weights is None:
            known = {"adversarial", "feature_matching", *(image_losses or {})}
            weights = {name: weight for name, weight in PRESETS["equal"]["weights"].items() if name in known}
        super().__init__(
            recon=recon,
            weights=weights,
            image_losses=image_losses,
            normalize=normalize,
            discriminator=discriminator,
            label_smoothing=label_smoothing,
            replay_size=replay_size,
            replay_probability=replay_probability,
            lr=lr,
            beta1=beta1,
            accumulate_grad_batches=accumulate_grad_batches,
            seed=seed,
            num_log_images=num_log_images,
        )
        self.save_hyperparameters(ignore=["image_losses", "recon", "weights", "discriminator"])
        nested = {"recon": recon, "weights": weights, "discriminator": discriminator}
        self.save_hyperparameters({name: dict(value or {}) for name, value in nested.items()})
        convert_sync_batch_norm(self.reconstructor)
        self.title = f"{TITLES[self.reconstructor.name]}, joint training"
        self.base_title = self.title

    def generator_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.reconstructor.parameters() if parameter.requires_grad]

    def generate(self, batch: Batch) -> Generated:
        base = self.reconstructor(batch)
        return Generated(base.image, base, None)


def load_joint_module(path: str | Path, **options: Any) -> JointModule:
    """The `JointModule` of a checkpoint.

    Args:
        path: a checkpoint that training wrote.
        **options: further arguments of `JointModule`, such as ``image_losses``.

    Raises:
        FileNotFoundError, ValueError: see `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path, prefix="reconstructor.")
    if any(name.startswith("refinement.") for name in checkpoint["state_dict"]):
        raise ValueError(f"{path} is a checkpoint of another model: a refinement, not joint training")
    return load_adversarial_module(JointModule, path, checkpoint, options)
