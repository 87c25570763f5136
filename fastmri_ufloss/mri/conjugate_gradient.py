"""Conjugate gradients for a batch of Hermitian systems, differentiable in three ways."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["Backward", "Operator", "conjugate_gradient"]

Operator = Callable[[Tensor], Tensor]
Backward = Literal["unrolled", "checkpoint", "implicit"]


def conjugate_gradient(
    operator: Operator,
    rhs: Tensor,
    *,
    x0: Tensor | None = None,
    num_iterations: int = 6,
    backward: Backward = "unrolled",
) -> Tensor:
    """Solve A x = b for each sample of a batch with a fixed number of conjugate gradient steps.

    Every sample has step sizes of its own; a sample stays once its residual is as small as rounding errors. At least
    float32 under autocast.

    Args:
        operator: x -> A x, Hermitian and positive definite for each sample.
        rhs: b, (batch, ...), real or complex.
        x0: the start, of the shape of ``rhs``; zero if not given.
        num_iterations: number of steps, at least 1.
        backward: how gradients reach ``rhs``, ``x0`` and whatever ``operator`` closes over.
            ``"unrolled"``: through the steps, exact for the truncated solve. ``"checkpoint"``: the same
            gradient, the steps recomputed instead of stored. ``"implicit"``: a second solve of
            A u = (gradient), which is exact only where the solve has converged, and has no gradient in ``x0``.

    Raises:
        ValueError: if an argument is not as above.
    """
    if rhs.ndim < 2:
        raise ValueError(f"rhs must have shape (batch, ...), got {tuple(rhs.shape)}")
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")
    if x0 is not None and x0.shape != rhs.shape:
        raise ValueError(f"x0 must have the shape of rhs, got {tuple(x0.shape)} and {tuple(rhs.shape)}")
    with torch.autocast(rhs.device.type, enabled=False):
        rhs = _at_least_float32(rhs)
        x0 = None if x0 is None else _at_least_float32(x0)
        if backward == "unrolled":
            return _solve(operator, rhs, x0, num_iterations)
        if backward == "checkpoint":
            return checkpoint(_solve, operator, rhs, x0, num_iterations, use_reentrant=False)
        if backward == "implicit":
            with torch.no_grad():
                x = _solve(operator, rhs, x0, num_iterations)
            if not torch.is_grad_enabled():
                return x
            # dx = A^-1 (db - dA x): the residual carries both derivatives, its value is left out
            return x + _ImplicitSolve.apply(rhs - operator(x), operator, num_iterations)
    raise ValueError(f"backward must be 'unrolled', 'checkpoint' or 'implicit', got {backward!r}")


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Real part of <a, b> per sample, shaped to multiply a sample."""
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    products = (a * b).flatten(1).sum(dim=1)
    return products.reshape(-1, *(1,) * (a.ndim - 1))


def _ratio(numerator: Tensor, denominator: Tensor, active: Tensor) -> Tensor:
    """numerator / denominator, and 0 with zero gradient where a sample is not active or the denominator is 0."""
    active = active & (denominator > 0)
    return torch.where(active, numerator / torch.where(active, denominator, 1.0), 0.0)


def _power_of_two(rhs: Tensor) -> Tensor:
    """About the largest magnitude of each sample: to divide by it rounds nothing, and energies stay in range."""
    values = (torch.view_as_real(rhs) if rhs.is_complex() else rhs).detach().abs().flatten(1).amax(dim=1)
    scale = torch.ldexp(torch.ones_like(values), torch.frexp(values).exponent)
    return torch.where(values > 0, scale, 1.0).reshape(-1, *(1,) * (rhs.ndim - 1))


def _solve(operator: Operator, rhs: Tensor, x0: Tensor | None, num_iterations: int) -> Tensor:
    scale = _power_of_two(rhs)
    rhs = rhs / scale
    x = torch.zeros_like(rhs) if x0 is None else x0 / scale
    residual = rhs if x0 is None else rhs - operator(x)
    direction = residual
    energy = _dot(residual, residual)
    # a residual of the size of rounding errors says nothing, and gradients of its ratios overflow
    smallest = torch.finfo(energy.dtype).eps ** 2 * _dot(rhs, rhs).detach()
    scalar = (-1, *(1,) * (rhs.ndim - 1))
    for step in range(num_iterations):
        product = operator(direction)
        active = energy > smallest
        alpha = _ratio(energy, _dot(direction, product), active).reshape(scalar).to(rhs.dtype)
        x = torch.addcmul(x, alpha, direction)
        if step == num_iterations - 1:
            break
        residual = torch.addcmul(residual, alpha, product, value=-1)
        new_energy = _dot(residual, residual)
        beta = _ratio(new_energy, energy, active).reshape(scalar).to(rhs.dtype)
        direction = torch.addcmul(residual, beta, direction)
        energy = new_energy
    return x * scale


class _ImplicitSolve(torch.autograd.Function):
    """Zero in the forward pass, A^-1 in the backward pass (A is its own adjoint)."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, operator: Operator, num_iterations: int) -> Tensor:
        ctx.operator = operator
        ctx.num_iterations = num_iterations
        return torch.zeros_like(residual)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        with torch.no_grad():
            return _solve(ctx.operator, grad, None, ctx.num_iterations), None, None
