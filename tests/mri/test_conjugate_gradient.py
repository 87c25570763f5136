from collections.abc import Callable

import pytest
import torch
from helpers import randn_complex

from fastmri_ufloss.mri import conjugate_gradient

BACKWARDS = ["unrolled", "checkpoint", "implicit"]


def spd(batch: int, n: int, seed: int = 0) -> torch.Tensor:
    """Well-conditioned Hermitian matrices."""
    a = randn_complex(batch, n, n, seed=seed, dtype=torch.complex128)
    return a @ a.mH / n + 0.5 * torch.eye(n)


def product(matrix: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.einsum("bij,bj->bi", matrix, x)


@pytest.mark.parametrize("backward", BACKWARDS)
def test_equals_linalg_solve(backward: str) -> None:
    matrix, rhs = spd(3, 6), randn_complex(3, 6, dtype=torch.complex128)
    x = conjugate_gradient(product(matrix), rhs, num_iterations=12, backward=backward)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, rhs))


def test_start_at_the_solution_stays_there() -> None:
    matrix, rhs = spd(2, 5), randn_complex(2, 5, dtype=torch.complex128)
    exact = torch.linalg.solve(matrix, rhs)
    torch.testing.assert_close(conjugate_gradient(product(matrix), rhs, x0=exact, num_iterations=3), exact)


def test_truncated_solve_minimizes_the_energy_over_the_krylov_space() -> None:
    matrix, rhs, steps = spd(1, 8), randn_complex(1, 8, dtype=torch.complex128), 3
    basis = [rhs]
    for _ in range(steps - 1):
        basis.append(product(matrix)(basis[-1]))
    krylov = torch.linalg.qr(torch.stack(basis, dim=-1)).Q
    best = krylov @ torch.linalg.solve(krylov.mH @ matrix @ krylov, krylov.mH @ rhs[..., None])
    x = conjugate_gradient(product(matrix), rhs, num_iterations=steps)
    torch.testing.assert_close(x, best[..., 0])


def test_samples_of_a_batch_do_not_depend_on_each_other() -> None:
    matrix, rhs = spd(3, 6), randn_complex(3, 6, dtype=torch.complex128) * torch.tensor([[1], [1e6], [1e-6]])
    together = conjugate_gradient(product(matrix), rhs, num_iterations=3)
    for i in range(3):
        alone = conjugate_gradient(product(matrix[i : i + 1]), rhs[i : i + 1], num_iterations=3)
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("backward", BACKWARDS)
@pytest.mark.parametrize("dims", [(-1,), (2,), (0, 2)])
def test_systems_along_other_axes_have_steps_of_their_own(backward: str, dims: tuple[int, ...]) -> None:
    """A batch of (samples, rows, columns) whose operator mixes columns, and for (0, 2) samples too."""
    matrix = spd(3, 12 if len(dims) == 2 else 6).repeat(2 if len(dims) == 1 else 1, 1, 1)
    data = randn_complex(2, 3, 6, dtype=torch.complex128)

    def systems(x: torch.Tensor) -> torch.Tensor:
        return x.permute(1, 0, 2).reshape(3, 12) if len(dims) == 2 else x.reshape(6, 6)

    def apply(x: torch.Tensor) -> torch.Tensor:
        y = product(matrix)(systems(x))
        return y.reshape(3, 2, 6).permute(1, 0, 2) if len(dims) == 2 else y.reshape(2, 3, 6)

    rhs, flat = data.clone().requires_grad_(), systems(data).clone().requires_grad_()
    x = conjugate_gradient(apply, rhs, num_iterations=3, backward=backward, dims=dims)  # type: ignore[arg-type]
    alone = conjugate_gradient(product(matrix), flat, num_iterations=3, backward=backward)  # type: ignore[arg-type]
    torch.testing.assert_close(systems(x), alone)
    gradients = (torch.autograd.grad((y.abs() ** 4).sum(), of)[0] for y, of in ((x, rhs), (alone, flat)))
    torch.testing.assert_close(systems(next(gradients)), next(gradients))


@pytest.mark.parametrize("backward", BACKWARDS)
def test_zero_residual_is_safe(backward: str) -> None:
    matrix, rhs = spd(2, 4), randn_complex(2, 4, dtype=torch.complex128)
    rhs[0] = 0
    rhs.requires_grad_()
    x = conjugate_gradient(product(matrix), rhs, num_iterations=20, backward=backward)
    x.abs().square().sum().backward()
    assert torch.equal(x[0], torch.zeros_like(x[0]))
    assert rhs.grad is not None and rhs.grad.isfinite().all()


@pytest.mark.parametrize("backward", ["unrolled", "checkpoint"])
@pytest.mark.parametrize("scale", [1e-12, 1e-9, 1.0, 1e6])
@pytest.mark.parametrize("kind", ["many steps", "projection", "start at the solution"])
def test_gradients_are_finite_at_convergence(backward: str, scale: float, kind: str) -> None:
    """In float32 the residual underflows; the gradient stays that of the solution."""
    matrix = spd(2, 6).to(torch.complex64)
    if kind == "projection":  # as of one coil: the first step is exact
        matrix = torch.diag_embed(torch.tensor([1.0, 1, 0, 1, 0, 0]) + 0.05).to(torch.complex64).expand(2, 6, 6)
    rhs = (scale * randn_complex(2, 6, seed=1)).requires_grad_()
    solution = torch.linalg.solve(matrix, rhs.detach())
    x0 = solution.clone() if kind == "start at the solution" else None
    x = conjugate_gradient(product(matrix), rhs, x0=x0, num_iterations=100, backward=backward)
    torch.testing.assert_close(x.detach() / scale, solution / scale, rtol=1e-4, atol=1e-5)
    weights = randn_complex(2, 6, seed=2)
    (x * weights).real.sum().backward()
    assert rhs.grad is not None and rhs.grad.isfinite().all()
    if kind != "start at the solution":  # where no step was made
        expected = torch.linalg.solve(matrix.mH, weights.conj())
        torch.testing.assert_close(rhs.grad, expected, rtol=1e-2, atol=1e-2)


def test_scale_does_not_change_a_bit() -> None:
    matrix, rhs = spd(2, 6), randn_complex(2, 6, dtype=torch.complex128)
    base, small = (conjugate_gradient(product(matrix), s * rhs, num_iterations=3) for s in (1.0, 2.0**-40))
    assert torch.equal(base * 2.0**-40, small)


@pytest.mark.parametrize("backward", ["unrolled", "checkpoint"])
@pytest.mark.parametrize("steps", [2, 6])
def test_gradients_of_the_truncated_solve_are_exact(backward: str, steps: int) -> None:
    matrix = spd(2, 5)

    def solve(rhs: torch.Tensor, lam: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        return conjugate_gradient(
            lambda x: product(matrix)(x) + lam * x, rhs, x0=x0, num_iterations=steps, backward=backward
        )

    rhs, x0 = (randn_complex(2, 5, seed=i, dtype=torch.complex128).requires_grad_() for i in (1, 2))
    lam = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(solve, (rhs, lam, x0))


def test_implicit_gradients_are_exact_at_convergence_and_not_before() -> None:
    matrix, weights = spd(2, 5), randn_complex(2, 5, seed=9, dtype=torch.complex128)

    def gradients(backward: str, steps: int) -> torch.Tensor:
        rhs = randn_complex(2, 5, seed=1, dtype=torch.complex128).requires_grad_()
        lam = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        x = conjugate_gradient(lambda x: product(matrix)(x) + lam * x, rhs, num_iterations=steps, backward=backward)
        (x.abs().square() * weights.abs()).sum().backward()
        return torch.cat([torch.view_as_real(rhs.grad).flatten(), lam.grad.flatten()])

    torch.testing.assert_close(gradients("implicit", 20), gradients("unrolled", 20))
    assert not torch.allclose(gradients("implicit", 2), gradients("unrolled", 2), rtol=1e-3)


def test_float32_under_autocast() -> None:
    matrix = spd(2, 6).real.float()
    rhs = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = conjugate_gradient(lambda x: torch.einsum("bij,bj->bi", matrix, x), rhs.bfloat16(), num_iterations=20)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, torch.linalg.solve(matrix, rhs.bfloat16().float()), rtol=1e-3, atol=1e-4)


def test_bad_arguments_are_named() -> None:
    rhs = torch.ones(2, 3)
    with pytest.raises(ValueError, match="num_iterations"):
        conjugate_gradient(lambda x: x, rhs, num_iterations=0)
    with pytest.raises(ValueError, match="backward must be"):
        conjugate_gradient(lambda x: x, rhs, backward="exact")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x0 must have the shape of rhs"):
        conjugate_gradient(lambda x: x, rhs, x0=torch.ones(2, 4))
    with pytest.raises(ValueError, match="rhs must have shape"):
        conjugate_gradient(lambda x: x, torch.ones(3))
