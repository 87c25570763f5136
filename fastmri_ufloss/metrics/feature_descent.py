"""Gradient descent on UFLoss alone: does it lead an image back to its target?"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import trange

from fastmri_ufloss.losses.ufloss import UFLoss, patch_features, ufloss_per_image
from fastmri_ufloss.mri.intensity import image_scale

__all__ = ["LR", "Descent", "descend", "summarize_descent"]

Optimizer = Literal["sgd", "adam"]

LR = {"sgd": 2e-4, "adam": 0.005}
"""Step sizes with which UFLoss fell steadily; that of gradient descent is for each pixel."""


class Descent(NamedTuple):
    """What happened to an image.

    Args:
        steps: at which it was measured, from 0 to the last one.
        ufloss: of the whole grid, at each of them.
        nrmse: |x - t| / |t|, at each of them.
        images: (rows, cols) by step, in the unit of the target.
    """

    steps: list[int]
    ufloss: list[float]
    nrmse: list[float]
    images: dict[int, Tensor]


def descend(
    feature_net: nn.Module,
    start: Tensor,
    target: Tensor,
    *,
    num_steps: int = 300,
    optimizer: Optimizer = "sgd",
    lr: float | None = None,
    patches_per_step: int | None = 64,
    stride: int = 5,
    measure_stride: int = 10,
    measure_every: int = 10,
    keep: Sequence[int] = (),
    chunk_size: int = 256,
    seed: int = 0,
) -> Descent:
    """Change an image step by step so that its UFLoss falls.

        x <- x - lr N dL / dx        with N pixels: the gradient of a mean gets smaller with their number

    The gradient is that of `UFLoss` in training: of random patches of a grid that moves. What is measured is the
    UFLoss of all patches of a grid that stays. Images are divided by `image_scale` of the target, so lr has no unit.

    Args:
        feature_net: see `UFLoss`, in eval mode.
        start: x, (rows, cols), complex or real as the network has it.
        target: t, like start.
        num_steps: of the descent.
        optimizer: ``"sgd"`` for plain gradient descent as above, eq. 14 of the paper, or ``"adam"``, without N.
        lr: step size, that of ``LR`` if not given.
        patches_per_step: see `UFLoss`; None for the whole grid.
        stride: of the grid of the gradient.
        measure_stride: of the grid that is measured.
        measure_every: steps between two measurements; the last step is measured too.
        keep: steps whose images are returned; they are measured too.
        chunk_size: patches that go through the network at once.
        seed: of the patches; torch's generator is left as it was.

    Raises:
        ValueError: if an image has another shape, a step is out of its range, or optimizer is another one.

    Wang et al., "High fidelity deep learning-based MRI reconstruction with instance-wise discriminative feature
    matching loss", MRM 2022, figure 4B.
    """
    _check(start, target, num_steps, measure_every, keep)
    scale = image_scale(target[None])
    wanted, x = target[None, None] / scale, (start[None, None] / scale).clone()
    is_complex = x.is_complex()
    values = (torch.view_as_real(x) if is_complex else x).requires_grad_()
    loss = UFLoss(feature_net, stride=stride, patches_per_step=patches_per_step, chunk_size=chunk_size).train()
    step_rule = _make_optimizer(optimizer, values, lr, wanted.numel())
    grid: dict[str, Any] = {"stride": measure_stride, "chunk_size": chunk_size}
    grid["target_features"] = patch_features(feature_net, wanted, image_scale(wanted), **grid)
    result = Descent([], [], [], {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in trange(num_steps + 1, desc="Descent on UFLoss", unit="step", delay=2):
            image = torch.view_as_complex(values) if is_complex else values
            if step % measure_every == 0 or step == num_steps or step in keep:
                with torch.no_grad():
                    result.steps.append(step)
                    result.ufloss.append(float(ufloss_per_image(feature_net, image, wanted, **grid)))
                    result.nrmse.append(float((image - wanted).norm() / wanted.norm()))
                    if step in keep:
                        result.images[step] = (image * scale)[0, 0].clone()
            if step < num_steps:
                step_rule.zero_grad()
                loss(image, wanted).backward()
                step_rule.step()
    return result


def summarize_descent(descent: Descent) -> dict[str, Any]:
    """Where a descent ended relative to its start, and whether it fell all the way.

    Returns:
        ``ufloss_ratio`` and ``nrmse_ratio``, last value / first value; ``monotone`` and ``nrmse_monotone``, whether
        no measured value is above the one before; ``largest_rise``, of the UFLoss between two measurements, relative
        to the first value.
    """
    rises, nrmse_rises = (
        [later - earlier for earlier, later in pairwise(values)] for values in (descent.ufloss, descent.nrmse)
    )
    return {
        "ufloss_ratio": descent.ufloss[-1] / descent.ufloss[0],
        "nrmse_ratio": descent.nrmse[-1] / descent.nrmse[0],
        "monotone": all(rise <= 0 for rise in rises),
        "nrmse_monotone": all(rise <= 0 for rise in nrmse_rises),
        "largest_rise": max(0.0, *rises) / descent.ufloss[0],
    }


def _check(start: Tensor, target: Tensor, num_steps: int, measure_every: int, keep: Sequence[int]) -> None:
    if target.ndim != 2 or start.shape != target.shape or start.is_complex() != target.is_complex():
        raise ValueError(
            "start and target must both be (rows, cols), both complex or both real, got "
            f"{start.dtype} {tuple(start.shape)} and {target.dtype} {tuple(target.shape)}"
        )
    if torch.equal(start, target):
        raise ValueError("start must differ from target, got equal images")
    for name, number in (("num_steps", num_steps), ("measure_every", measure_every)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if wrong := [step for step in keep if not 0 <= step <= num_steps]:
        raise ValueError(f"keep must be steps from 0 to {num_steps}, got {wrong}")


def _make_optimizer(name: str, values: Tensor, lr: float | None, num_pixels: int) -> torch.optim.Optimizer:
    if name not in LR:
        raise ValueError(f"optimizer must be one of {', '.join(LR)}, got {name!r}")
    lr = LR[name] if lr is None else lr
    if not lr > 0:
        raise ValueError(f"lr must be positive, got {lr}")
    return torch.optim.Adam([values], lr=lr) if name == "adam" else torch.optim.SGD([values], lr=lr * num_pixels)
