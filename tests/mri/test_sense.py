import fastmri
import pytest
import torch
from fastmri.models import VarNetBlock
from helpers import column_mask, randn_complex, smooth_maps

from fastmri_ufloss.mri import cg_sense, sens_expand, sens_reduce, sense_normal_operator


def real(x: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(x)


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
    actual = sense_normal_operator(mask, maps)(image)
    torch.testing.assert_close(actual, torch.view_as_complex(expected)[:, 0])


@pytest.mark.parametrize("kind", ["columns", "points"])
def test_normal_operator_gradients(kind: str) -> None:
    maps = smooth_maps(2, 3, 6, 8, dtype=torch.complex128)
    operator = sense_normal_operator(masks(2, 6, 8)[kind], maps)
    image = randn_complex(2, 6, 8, dtype=torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(operator, image)
    assert torch.autograd.gradgradcheck(operator, image)


def test_normal_operator_reaches_maps_that_require_gradients() -> None:
    mask, image = column_mask(1, 8, center=4), randn_complex(1, 6, 8, dtype=torch.complex128)
    maps = smooth_maps(1, 3, 6, 8, dtype=torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: sense_normal_operator(mask, m)(image), maps)


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


def test_bad_shapes_are_named() -> None:
    maps = smooth_maps(2, 4, 8, 10)
    with pytest.raises(ValueError, match="sens_maps must have the shape of kspace"):
        sens_reduce(maps[:, :3], maps)
    with pytest.raises(ValueError, match="image must have shape"):
        sens_expand(maps[0], maps)
    with pytest.raises(ValueError, match="mask must have shape"):
        sense_normal_operator(column_mask(2, 9), maps)
