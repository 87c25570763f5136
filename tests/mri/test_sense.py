from collections.abc import Callable

import fastmri
import pytest
import torch
from fastmri.models import VarNetBlock
from helpers import column_mask, randn_complex, smooth_maps
from torch import Tensor

from fastmri_ufloss.mri import (
    SenseNormalOperator,
    cg_sense,
    combine_sets,
    data_residual,
    sens_expand,
    sens_reduce,
    sense_adjoint,
)


def real(x: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(x)


def maps_of_two_sets(batch: int, coils: int, rows: int, cols: int, *, dtype: torch.dtype = torch.complex64) -> Tensor:
    """Orthonormal in each pixel, (batch, 2, coils, rows, cols, 2)."""
    vectors = torch.linalg.qr(randn_complex(batch, rows, cols, coils, 2, seed=5, dtype=dtype))[0]
    return real(vectors.permute(0, 4, 3, 1, 2).contiguous())


def masks(batch: int, rows: int, cols: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "columns": column_mask(batch, cols),
        "points": torch.rand(batch, 1, rows, cols, 1, generator=generator) > 0.5,
        "one for all": column_mask(1, cols),
    }


def test_expand_and_reduce_are_those_of_varnet() -> None:
    maps, image = smooth_maps(2, 4, 13, 18), real(randn_complex(2, 1, 13, 18))
    kspace = real(randn_complex(2, 4, 13, 18, seed=1))
    block = VarNetBlock(torch.nn.Identity())
    torch.testing.assert_close(sens_expand(image, maps), block.sens_expand(image, maps))
    torch.testing.assert_close(sens_reduce(kspace, maps), block.sens_reduce(kspace, maps))


def test_expand_and_reduce_are_adjoint() -> None:
    maps = real(randn_complex(2, 5, 12, 9, seed=2, dtype=torch.complex128))
    x, y = (randn_complex(2, n, 12, 9, seed=n, dtype=torch.complex128) for n in (1, 5))
    left = torch.vdot(y.flatten(), torch.view_as_complex(sens_expand(real(x), maps)).flatten())
    right = torch.vdot(torch.view_as_complex(sens_reduce(real(y), maps)).flatten(), x.flatten())
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("kind", ["columns", "points", "one for all"])
@pytest.mark.parametrize("size", [(12, 16), (13, 17)])
def test_normal_operator_is_reduce_mask_expand(kind: str, size: tuple[int, int]) -> None:
    maps, mask = smooth_maps(2, 4, *size), masks(2, *size)[kind]
    image = randn_complex(2, *size)
    expected = sens_reduce(sens_expand(real(image[:, None]), maps) * mask, maps)
    actual = SenseNormalOperator(mask, maps)(image)
    torch.testing.assert_close(actual, torch.view_as_complex(expected)[:, 0])


@pytest.mark.parametrize("make_maps", [smooth_maps, maps_of_two_sets])
@pytest.mark.parametrize("kind", ["columns", "points"])
def test_normal_operator_gradients(kind: str, make_maps: Callable[..., Tensor]) -> None:
    maps = make_maps(2, 3, 6, 8, dtype=torch.complex128)
    operator = SenseNormalOperator(masks(2, 6, 8)[kind], maps)
    image = randn_complex(2, *maps.shape[1:-4], 6, 8, dtype=torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(operator, image)
    assert torch.autograd.gradgradcheck(operator, image)


def test_normal_operator_reaches_maps_that_require_gradients() -> None:
    mask, image = column_mask(1, 8, center=4), randn_complex(1, 6, 8, dtype=torch.complex128)
    maps = smooth_maps(1, 3, 6, 8, dtype=torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: SenseNormalOperator(mask, m)(image), maps)


@pytest.mark.parametrize("kind", ["columns", "points"])
def test_data_larger_than_a_block_give_the_same(kind: str) -> None:
    maps, image = smooth_maps(2, 6, 120, 128), randn_complex(2, 120, 128)
    mask = masks(2, 120, 128)[kind]
    kspace = sens_expand(real(image[:, None]), maps) * mask
    coil_images = torch.view_as_complex(fastmri.ifft2c(kspace))
    expected = (torch.view_as_complex(maps).conj() * coil_images).sum(1)
    torch.testing.assert_close(torch.view_as_complex(sens_reduce(kspace, maps))[:, 0], expected)
    torch.testing.assert_close(SenseNormalOperator(mask, maps)(image), expected)


def test_cg_sense_recovers_the_image_that_maps_and_samples_determine() -> None:
    maps = smooth_maps(2, 8, 24, 20, dtype=torch.complex128)
    image, mask = randn_complex(2, 24, 20, dtype=torch.complex128), column_mask(2, 20, every=2)
    kspace = sens_expand(real(image[:, None]), maps) * mask
    solution = cg_sense(kspace, mask, maps, num_iterations=200, lam=1e-12)
    torch.testing.assert_close(solution, image, atol=1e-4, rtol=0)


def test_cg_sense_of_one_fully_sampled_coil_is_the_inverse_transform() -> None:
    kspace = real(randn_complex(1, 1, 8, 10))
    maps = torch.zeros_like(kspace)
    maps[..., 0] = 1
    mask = torch.ones(1, 1, 1, 10, 1)
    image = cg_sense(kspace, mask, maps, lam=0)
    torch.testing.assert_close(image, torch.view_as_complex(fastmri.ifft2c(kspace))[:, 0])


def test_several_sets_are_summed_up() -> None:
    maps = maps_of_two_sets(2, 5, 12, 9, dtype=torch.complex128)
    image = randn_complex(2, 2, 12, 9, dtype=torch.complex128)
    kspace, single = (
        sens_expand(real(image), maps),
        [sens_expand(real(image[:, i, None]), maps[:, i]) for i in (0, 1)],
    )
    torch.testing.assert_close(kspace, single[0] + single[1])
    other = randn_complex(2, 5, 12, 9, seed=1, dtype=torch.complex128)
    adjoint = sense_adjoint(real(other), maps)
    left = torch.vdot(other.flatten(), torch.view_as_complex(kspace).flatten())
    torch.testing.assert_close(left, torch.vdot(adjoint.flatten(), image.flatten()))
    for mask in masks(2, 12, 9).values():
        normal = SenseNormalOperator(mask, maps)
        torch.testing.assert_close(normal(image), sense_adjoint(kspace * mask, maps))


@pytest.mark.parametrize("kind", ["columns", "points"])
def test_cg_sense_tells_sets_apart(kind: str) -> None:
    """As many places of an object as there are sets lie in each pixel."""
    maps, mask = maps_of_two_sets(2, 8, 24, 20, dtype=torch.complex128), masks(2, 24, 20)[kind]
    image = randn_complex(2, 2, 24, 20, dtype=torch.complex128)
    kspace = sens_expand(real(image), maps) * mask
    solution = cg_sense(kspace, mask, maps, num_iterations=300, lam=1e-12)
    torch.testing.assert_close(solution, image, atol=1e-4, rtol=0)
    assert data_residual(solution, kspace, mask, maps).max() < 1e-4
    assert data_residual(solution[:, 0], kspace, mask, maps[:, 0]).min() > 0.1
    combined = combine_sets(solution)
    torch.testing.assert_close(combined.abs().square(), solution.abs().square().sum(dim=1))
    torch.testing.assert_close(combined.angle(), solution[:, 0].angle())
    assert combine_sets(combined) is combined


def test_sets_of_zero_change_nothing() -> None:
    maps, mask = smooth_maps(1, 4, 12, 10), column_mask(1, 10, every=2, center=4)
    kspace, two = real(randn_complex(1, 4, 12, 10)) * mask, torch.stack([maps, torch.zeros_like(maps)], dim=1)
    torch.testing.assert_close(combine_sets(cg_sense(kspace, mask, two)), cg_sense(kspace, mask, maps))


def test_bad_shapes_are_named() -> None:
    maps = smooth_maps(2, 4, 8, 10)
    with pytest.raises(ValueError, match="sens_maps must have the shape of kspace"):
        sens_reduce(maps[:, :3], maps)
    with pytest.raises(ValueError, match="image must have shape"):
        sens_expand(maps[0], maps)
    with pytest.raises(ValueError, match="mask must have shape"):
        SenseNormalOperator(column_mask(2, 9), maps)
    two = maps_of_two_sets(2, 4, 8, 10)
    with pytest.raises(ValueError, match="sens_maps must have the shape of kspace"):
        sens_reduce(maps[:, :3], two)
    with pytest.raises(ValueError, match=r"image must have shape \(batch, sets, rows, cols\)"):
        data_residual(randn_complex(2, 8, 10), maps, column_mask(2, 10), two)


def test_each_slice_may_have_a_lambda_and_a_right_side_that_is_conjugated() -> None:
    mask, maps = column_mask(2, 12), smooth_maps(2, 3, 8, 12, dtype=torch.complex128)
    rhs, lams = randn_complex(2, 8, 12, dtype=torch.complex128), torch.tensor([0.3, 2.0], dtype=torch.float64)
    solutions = SenseNormalOperator(mask, maps).solve(rhs.conj(), lams.view(2, 1, 1))
    for i, lam in enumerate(lams.tolist()):
        alone = SenseNormalOperator(mask[i : i + 1], maps[i : i + 1]).solve(rhs[i : i + 1].conj().resolve_conj(), lam)
        torch.testing.assert_close(solutions[i : i + 1], alone)
