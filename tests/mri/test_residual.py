import numpy as np
import pytest
import torch
from helpers import column_mask, randn_complex, smooth_maps

from fastmri_ufloss.mri import sens_expand
from fastmri_ufloss.mri.sense import data_residual


def test_zero_for_the_image_of_the_samples_and_one_for_none() -> None:
    image, maps, mask = randn_complex(2, 13, 18), smooth_maps(2, 4, 13, 18), column_mask(2, 18)
    kspace = sens_expand(torch.view_as_real(image[:, None]), maps) * mask
    assert (data_residual(image, kspace, mask, maps) < 1e-6).all()
    torch.testing.assert_close(data_residual(0 * image, kspace, mask, maps), torch.ones(2))


@pytest.mark.parametrize("kind", ["columns", "points", "one for all"])
def test_the_formula_in_numpy(kind: str) -> None:
    image, maps = randn_complex(2, 12, 15), smooth_maps(2, 3, 12, 15)
    kspace = torch.view_as_real(randn_complex(2, 3, 12, 15, seed=1))  # not masked: what is not sampled must not count
    mask = torch.rand(2, 1, 12, 15, 1, generator=torch.Generator().manual_seed(0)) > 0.6
    if kind != "points":
        mask = column_mask(2 if kind == "columns" else 1, 15)
    actual = data_residual(image, kspace, mask, maps)
    for i in range(2):
        coil_images = torch.view_as_complex(maps)[i].numpy() * image[i].numpy()
        shifted = np.fft.ifftshift(coil_images, axes=(-2, -1))
        samples = np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1))
        y, sampled = torch.view_as_complex(kspace)[i].numpy(), mask[i % len(mask), 0, ..., 0].numpy()
        expected = np.linalg.norm((samples - y) * sampled) / np.linalg.norm(y * sampled)
        assert actual[i].item() == pytest.approx(expected, rel=1e-5)


def test_a_sample_does_not_depend_on_its_batch_nor_on_the_unit() -> None:
    image, maps, mask = randn_complex(2, 12, 10), smooth_maps(2, 3, 12, 10), column_mask(2, 10, center=4)
    kspace = torch.view_as_real(randn_complex(2, 3, 12, 10, seed=1)) * mask
    together = data_residual(image, kspace, mask, maps)
    for i in range(2):
        alone = data_residual(image[i : i + 1], kspace[i : i + 1], mask[i : i + 1], maps[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)
    torch.testing.assert_close(data_residual(1e-7 * image, 1e-7 * kspace, mask, maps), together)


def test_float32_without_gradient_and_zero_where_nothing_was_measured() -> None:
    image = randn_complex(2, 8, 10, dtype=torch.complex128).requires_grad_()
    maps, mask = smooth_maps(2, 3, 8, 10, dtype=torch.complex128), column_mask(2, 10, center=4)
    kspace = torch.view_as_real(randn_complex(2, 3, 8, 10, dtype=torch.complex128)) * mask
    kspace[0] = 0
    residual = data_residual(image, kspace, mask, maps)
    assert residual.dtype == torch.float32 and not residual.requires_grad
    assert residual[0] == 0 and residual[1] > 0
    assert (data_residual(image, kspace, torch.zeros_like(mask), maps) == 0).all()


def test_bad_arguments_are_named() -> None:
    image, maps, mask = randn_complex(2, 8, 10), smooth_maps(2, 3, 8, 10), column_mask(2, 10, center=4)
    with pytest.raises(ValueError, match="image must be complex"):
        data_residual(image.abs(), maps, mask, maps)
    with pytest.raises(ValueError, match="image must have shape"):
        data_residual(image[:, None], maps, mask, maps)
    with pytest.raises(ValueError, match="sens_maps must have shape"):
        data_residual(image, maps, mask, maps[0])
    with pytest.raises(ValueError, match="sens_maps must have the shape of masked_kspace"):
        data_residual(image, maps[:, :2], mask, maps)
    with pytest.raises(ValueError, match="mask must have shape"):
        data_residual(image, maps, mask[..., :5, :], maps)
