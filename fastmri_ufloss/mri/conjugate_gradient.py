"""Conjugate gradients for a batch of Hermitian systems, differentiable in three ways."""

import math
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
    dims: tuple[int, ...] | None = None,
) -> Tensor:
    """Solve A x = b for each sample of a batch with a fixed number of conjugate gradient steps.

    Every system has step sizes of its own; it stays once its residual is as small as rounding errors. At least
    float32 under autocast.

    Args:
        operator: x -> A x, Hermitian and positive definite for each system.
        rhs: b, (batch, ...), real or complex.
        x0: the start, of the shape of ``rhs``; zero if not given.
        num_iterations: number of steps, at least 1.
        backward: how gradients reach ``rhs``, ``x0`` and whatever ``operator`` closes over.
            ``"unrolled"``: through the steps, exact for the truncated solve. ``"checkpoint"``: the same
            gradient, the steps recomputed instead of stored. ``"implicit"``: a second solve of
            A u = (gradient), which is exact only where the solve has converged, and has no gradient in ``x0``.
        dims: the axes of ``rhs`` that one system covers, all but the first if not given. A mixes nothing along the
            others: smaller systems converge in fewer steps.

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
        dims = tuple(range(1, rhs.ndim)) if dims is None else tuple(dim % rhs.ndim for dim in dims)
        if backward == "unrolled":
            return _solve(operator, rhs, x0, num_iterations, dims)
        if backward == "checkpoint":
            return checkpoint(_solve, operator, rhs, x0, num_iterations, dims, use_reentrant=False)
        if backward == "implicit":
            with torch.no_grad():
                x = _solve(operator, rhs, x0, num_iterations, dims)
            if not torch.is_grad_enabled():
                return x
            # dx = A^-1 (db - dA x): the residual carries both derivatives, its value is left out
            return x + _ImplicitSolve.apply(rhs - operator(x), operator, num_iterations, dims)
    raise ValueError(f"backward must be 'unrolled', 'checkpoint' or 'implicit', got {backward!r}")


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _dot(a: Tensor, b: Tensor, dims: tuple[int, ...]) -> Tensor:
    """<a, b> of each system, shaped to multiply it."""
    return (a * b).sum(dim=dims, keepdim=True)


def _ratio(numerator: Tensor, denominator: Tensor, stopped: Tensor) -> Tensor:
    """numerator / denominator, and 0 with zero gradient where a system has stopped."""
    return numerator / denominator.masked_fill(stopped, math.inf)


def _power_of_two(rhs: Tensor, dims: tuple[int, ...]) -> Tensor:
    """About the largest magnitude of each system: to divide by it rounds nothing, and energies stay in range."""
    values = rhs.detach().abs().amax(dim=dims, keepdim=True)
    scale = torch.ldexp(torch.ones_like(values), torch.frexp(values).exponent)
    return torch.where(values > 0, scale, 1.0)


def _solve(operator: Operator, rhs: Tensor, x0: Tensor | None, num_iterations: int, dims: tuple[int, ...]) -> Tensor:
    is_complex = rhs.is_complex()
    scale = _power_of_two(rhs, dims).unsqueeze(-1)
    dims = (*dims, rhs.ndim)

    # real and imaginary parts are an axis: step sizes are real, and so is what updates cost
    def parts(x: Tensor) -> Tensor:
        return torch.view_as_real(x.resolve_conj()) if is_complex else x.unsqueeze(-1)

    def whole(x: Tensor) -> Tensor:
        return torch.view_as_complex(x) if is_complex else x.squeeze(-1)

    right = parts(rhs) / scale
    x = torch.zeros_like(right) if x0 is None else parts(x0) / scale
    residual = right if x0 is None else right - parts(operator(whole(x)))
    direction = residual
    energy = _dot(residual, residual, dims)
    # a residual of the size of rounding errors says nothing, and gradients of its ratios overflow
    smallest = torch.finfo(energy.dtype).eps ** 2 * _dot(right, right, dims).detach()
    for step in range(num_iterations):
        product = parts(operator(whole(direction)))
        curvature = _dot(direction, product, dims)
        stopped = energy <= smallest
        alpha = _ratio(energy, curvature, stopped | (curvature <= 0))
        x = torch.addcmul(x, alpha, direction)
        if step == num_iterations - 1:
            break
        residual = torch.addcmul(residual, alpha, product, value=-1)
        new_energy = _dot(residual, residual, dims)
        direction = torch.addcmul(residual, _ratio(new_energy, energy, stopped), direction)
        energy = new_energy
    return whole(x * scale)


class _ImplicitSolve(torch.autograd.Function):
    """Zero in the forward pass, A^-1 in the backward pass (A is its own adjoint)."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, operator: Operator, num_iterations: int, dims: tuple[int, ...]) -> Tensor:
        ctx.operator = operator
        ctx.num_iterations = num_iterations
        ctx.dims = dims
        return torch.zeros_like(residual)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        with torch.no_grad():
            return _solve(ctx.operator, grad, None, ctx.num_iterations, ctx.dims), None, None, None
