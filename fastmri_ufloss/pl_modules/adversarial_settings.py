"""How a generator and a discriminator are trained against each other."""

from dataclasses import dataclass

__all__ = ["AdversarialSettings"]


@dataclass(frozen=True)
class AdversarialSettings:
    """Settings of `AdversarialModule`; the defaults are those of Seitzer et al., MICCAI 2018.

    Args:
        normalize: whether each term is divided by its value in the first batch.
        label_smoothing: what is taken from the label 1 of real images for the discriminator.
        replay_size: images of the discriminator's replay buffer, 0 for none.
        replay_probability: of a stored image to be used.
        lr: of both Adams.
        beta1: decay of their first moment.
        accumulate_grad_batches: batches of a step.
        seed: of dropout and replay buffer.

    Raises:
        ValueError: if accumulate_grad_batches is below 1.
    """

    normalize: bool = True
    label_smoothing: float = 0.1
    replay_size: int = 80
    replay_probability: float = 0.5
    lr: float = 2e-4
    beta1: float = 0.5
    accumulate_grad_batches: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.accumulate_grad_batches < 1:
            raise ValueError(f"accumulate_grad_batches must be at least 1, got {self.accumulate_grad_batches}")
