"""Batch norm over the batches of all processes, on a CPU as well as on a GPU."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["SyncBatchNorm2d", "convert_sync_batch_norm"]


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` with the mean and variance over the batches of all processes.

        y = (x - E[x]) / sqrt(Var[x] + eps) * weight + bias

    In training with more than one process, E and Var are taken over all of them, so processes with parts of
    a batch give what one process gives with all of it. Otherwise it is plain batch norm. The arguments and
    the state dict are those of ``BatchNorm2d``. ``torch.nn.SyncBatchNorm`` does the same on a GPU only.

    Raises:
        ValueError: if the input is not (batch, channels, rows, cols).
    """

    def forward(self, input: Tensor) -> Tensor:
        """(batch, channels, rows, cols) to the same shape and type."""
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if not (self.training and several):
            return super().forward(input)
        self._check_input_dim(input)
        # statistics in full precision: sums over a batch overflow in half
        half = input.dtype in (torch.float16, torch.bfloat16)
        x = input.float() if half else input
        total = torch.cat([x.sum(dim=(0, 2, 3)), x.new_tensor([x.numel() / x.shape[1]])])
        total = _all_reduce(total)
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = x - mean[:, None, None]
        # a second sum over the centred values: E[x^2] - E[x]^2 would cancel
        var = _all_reduce(centred.square().sum(dim=(0, 2, 3))) / count
        self._track(mean.detach(), var.detach(), count)
        y = centred * torch.rsqrt(var + self.eps)[:, None, None]
        if self.affine:
            y = y * self.weight[:, None, None] + self.bias[:, None, None]
        return y.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        factor = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_((var * count / (count - 1).clamp(min=1)).to(self.running_var.dtype), factor)


def convert_sync_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every ``BatchNorm2d`` in ``module`` by a `SyncBatchNorm2d` with the same weights and buffers.

    Args:
        module: changed in place. Parameters and buffers stay the same objects.

    Returns:
        ``module``.
    """
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SyncBatchNorm2d
    return module


class _AllReduce(torch.autograd.Function):
    """Sum over all processes. Each process's loss depends on it, so the gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


def _all_reduce(x: Tensor) -> Tensor:
    total: Tensor = _AllReduce.apply(x)
    return total
