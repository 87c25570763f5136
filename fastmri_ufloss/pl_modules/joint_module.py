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
        "settings": {"normalize": True},
    },
    "dagan": {
        "weights": {"nmse": 15.0, "frequency": 0.1, "adversarial": 1.0, "perceptual": 0.0025},
        "settings": {"normalize": False},
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
        discriminator: settings of `PatchDiscriminator`.
        settings: of `AdversarialSettings`.
        num_log_images: validation batches whose images are logged.
    """

    def __init__(
        self,
        *,
        recon: Mapping[str, Any],
        image_losses: Mapping[str, nn.Module] | None = None,
        weights: Mapping[str, float] | None = None,
        discriminator: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        num_log_images: int = 16,
    ) -> None:
        if weights is None:
            known = {"adversarial", "feature_matching", *(image_losses or {})}
            weights = {name: weight for name, weight in PRESETS["equal"]["weights"].items() if name in known}
        super().__init__(
            recon=recon,
            weights=weights,
            image_losses=image_losses,
            discriminator=discriminator,
            settings=settings,
            num_log_images=num_log_images,
        )
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
