"""The replay buffer of adversarial training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["ReplayBuffer"]


class ReplayBuffer:
    """Generated images of earlier steps, for the discriminator.

    Image by image: until the buffer is full, the present image is stored and used. Then, with the probability p, a
    random stored image is used and the present one takes its place; otherwise the present one is used and not
    stored. Images of several sizes share the buffer: only one of the present image's size can be used, and where
    there is none the present one is used, and with the probability p takes the place of a random one.

    The images stay on the device that they were made on.

    Args:
        size: of the buffer in images; 0 for none.
        probability: p.

    Raises:
        ValueError: if size is below 0 or p is not in 0 .. 1.

    Shrivastava et al., "Learning from simulated and unsupervised images through adversarial training", CVPR 2017;
    80 and 0.5 in Seitzer et al., MICCAI 2018.
    """

    def __init__(self, size: int = 80, *, probability: float = 0.5) -> None:
        if size < 0:
            raise ValueError(f"size must be at least 0, got {size}")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be in 0 .. 1, got {probability}")
        self.size = size
        self.probability = probability
        self.images: list[Tensor] = []

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What the discriminator is to see instead of ``images``.

        Args:
            images: (batch, ...), generated in this step.
            generator: of the random numbers, on the CPU.

        Returns:
            The shape, type and device of ``images``, without gradient.
        """
        used = [self._replace(image, generator) for image in images.detach()]
        return torch.stack([image.to(images) for image in used])

    def _replace(self, image: Tensor, generator: torch.Generator) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        if not self.size or torch.rand((), generator=generator) >= self.probability:
            return image
        same_size = [number for number, stored in enumerate(self.images) if stored.shape == image.shape]
        candidates = same_size or list(range(self.size))
        chosen = candidates[int(torch.randint(len(candidates), (), generator=generator))]
        stored, self.images[chosen] = self.images[chosen], image.clone()
        return stored if same_size else image

    def state_dict(self) -> dict[str, Any]:
        """Its images, on the CPU."""
        return {"images": [image.cpu() for image in self.images]}

    def load_state_dict(self, state: dict[str, Sequence[Tensor]]) -> None:
        """Put images of a checkpoint in place of its own."""
        self.images = list(state["images"])[: self.size]
