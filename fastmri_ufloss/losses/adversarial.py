"""The losses of a discriminator and of the network that plays against it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fastmri_ufloss.checks import check, require
from fastmri_ufloss.losses.images import magnitude, no_autocast

__all__ = ["discriminator_loss", "feature_matching_loss", "generator_loss"]


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, *, label_smoothing: float = 0.1) -> Tensor:
    r"""The cross entropy of a discriminator D, with smooth labels on the side of the real images only.

    .. math:: L_D = -\mathrm{mean} [(1 - s) \log \sigma(D(x)) + s \log (1 - \sigma(D(x)))]
        - \mathrm{mean} \log (1 - \sigma(D(\hat x)))

    The value is a scalar, >= 0, at least float32. The logits D(x) of fully sampled images and D(x_hat) of detached
    reconstructions are real and of one shape, and s lies in [0, 1); ValueError otherwise.

    Goodfellow et al., "Generative adversarial nets", NeurIPS 2014; the labels: Salimans et al., "Improved
    techniques for training GANs", NeurIPS 2016; both in Seitzer et al., MICCAI 2018.
    """
    check(0 <= label_smoothing < 1, "label_smoothing", "in [0, 1)", label_smoothing)
    _check_shapes("fake_logits", fake_logits, "real_logits", real_logits)
    real = _cross_entropy("real_logits", real_logits, 1 - label_smoothing)
    return real + _cross_entropy("fake_logits", fake_logits, 0.0)


def generator_loss(fake_logits: Tensor) -> Tensor:
    r"""How well a discriminator D sees through a reconstruction, in the form that does not saturate.

    .. math:: L_{adv} = -\mathrm{mean} \log \sigma(D(\hat x))

    The value is a scalar, >= 0, at least float32. Logits that are not real, or empty, raise ValueError. Goodfellow et
    al., NeurIPS 2014.
    """
    return _cross_entropy("fake_logits", fake_logits, 1.0)


def feature_matching_loss(real_features: Sequence[Tensor], fake_features: Sequence[Tensor]) -> Tensor:
    r"""The mean absolute difference of the feature maps f_i of a discriminator, averaged over the n maps.

    .. math:: L_{feat} = \frac{1}{n} \sum_i \mathrm{mean} |f_i(x) - f_i(\hat x)|

    The value is a scalar, >= 0, at least float32, and 0 for equal maps. The maps, at least one, are real, without
    dropout and of the same shapes, ValueError otherwise; those of fully sampled images get no gradient.

    Salimans et al., "Improved techniques for training GANs", NeurIPS 2016, as in Seitzer et al., MICCAI 2018.
    """
    counts = len(real_features), len(fake_features)
    demand = "real_features and fake_features must have the same number of maps, at least 1"
    require(counts[0] == counts[1] > 0, demand, f"{counts[0]} and {counts[1]}")
    distances: list[Tensor] = []
    for index, (real, fake) in enumerate(zip(real_features, fake_features, strict=True)):
        real_name, fake_name = f"real_features[{index}]", f"fake_features[{index}]"
        _check_shapes(fake_name, fake, real_name, real)
        goal = _real(real_name, real.detach())
        distances.append((_real(fake_name, fake) - goal).abs().mean())
    return torch.stack(distances).mean()


def _check_shapes(name: str, values: Tensor, other_name: str, other: Tensor) -> None:
    got = f"{tuple(values.shape)} and {tuple(other.shape)}"
    require(values.shape == other.shape, f"{name} must have the shape of {other_name}", got)


def _cross_entropy(name: str, logits: Tensor, label: float) -> Tensor:
    logits = _real(name, logits)
    with no_autocast(logits):
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _real(name: str, values: Tensor) -> Tensor:
    """The values in at least float32, if they are real and not none."""
    fits = values.numel() > 0 and values.is_floating_point()
    check(fits, name, "real and not empty", f"{values.dtype} {tuple(values.shape)}")
    return magnitude(values)  # real already: this makes float32 of half precision
