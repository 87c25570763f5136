import fastmri.evaluate
import numpy as np
import pytest
import skimage.metrics
import torch

from fastmri_ufloss.losses.fine_structure import laplacian_of_gaussian
from fastmri_ufloss.losses.ssim import gaussian_ssim
from fastmri_ufloss.metrics import HFEN
from fastmri_ufloss.metrics.image_scores import IMAGE_SCORES, ReferenceVolume, fine_structures


def images(
    *, slices: int = 3, shape: tuple[int, int] = (20, 24), scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """A volume whose slices differ in brightness, and a noisy copy."""
    generator = np.random.default_rng(0)
    target = generator.random((slices, *shape)) * np.arange(1, slices + 1)[:, None, None]
    output = np.abs(target + 0.1 * generator.normal(size=target.shape))
    return (scale * target).astype(np.float32), (scale * output).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_volumes_are_those_of_fastmri(scale: float) -> None:
    target, output = images(scale=scale)
    volume = ReferenceVolume(target).score(output).volume
    assert tuple(volume) == IMAGE_SCORES
    assert volume["PSNR"] == float(fastmri.evaluate.psnr(target, output))
    assert volume["SSIM"] == fastmri.evaluate.ssim(target, output).item()
    # fastMRI rounds its sums to the precision of the images
    exact = fastmri.evaluate.nmse(target.astype(np.float64), output.astype(np.float64)).item()
    assert volume["NMSE"] == pytest.approx(exact, rel=1e-13)
    assert volume["NMSE"] == pytest.approx(fastmri.evaluate.nmse(target, output).item(), rel=1e-5)
    assert volume["NRMSE"] == pytest.approx(exact**0.5, rel=1e-13)


def test_slices_are_those_of_scikit_image_with_the_range_of_the_volume() -> None:
    target, output = images()
    slices = ReferenceVolume(target).score(output).slices
    for number, (t, x) in enumerate(zip(target, output, strict=True)):
        options = {"data_range": target.max()}
        assert slices["PSNR"][number] == skimage.metrics.peak_signal_noise_ratio(t, x, **options)
        assert slices["SSIM"][number] == skimage.metrics.structural_similarity(t, x, **options)
        nrmse = skimage.metrics.normalized_root_mse(t.astype(np.float64), x.astype(np.float64))
        assert slices["NRMSE"][number] == pytest.approx(nrmse, rel=1e-13)
        assert slices["NMSE"][number] == pytest.approx(nrmse**2, rel=1e-13)
    of_its_own = skimage.metrics.peak_signal_noise_ratio(target[0], output[0], data_range=target[0].max())
    assert slices["PSNR"][0] - of_its_own > 9  # dB: the slice has a third of the volume's maximum


def test_gaussian_ssim_is_that_of_the_loss() -> None:
    target, output = images()
    found = ReferenceVolume(target).score(output)
    unit = [torch.from_numpy(x.astype(np.float64) / target.max())[:, None] for x in (output, target)]
    expected = gaussian_ssim(*unit).numpy()
    np.testing.assert_allclose(found.slices["SSIM Gaussian"], expected, rtol=1e-6)
    assert found.volume["SSIM Gaussian"] == pytest.approx(expected.mean(), rel=1e-6)
    assert np.abs(found.slices["SSIM Gaussian"] - found.slices["SSIM"]).min() > 1e-4


def test_hfen_is_the_metric() -> None:
    target, output = images(scale=1e-5)
    metric = HFEN()
    batch = [torch.from_numpy(x) for x in (output, target)]
    metric.update(*batch, fname=["a"] * 3, slice_num=[0, 1, 2])
    found = ReferenceVolume(target).score(output)
    assert found.volume["HFEN"] == pytest.approx(float(metric.compute()), rel=1e-6)
    single = HFEN()
    single.update(*(x[1:2] for x in batch), fname=["a"], slice_num=[1])
    assert found.slices["HFEN"][1] == pytest.approx(float(single.compute()), rel=1e-6)
    expected = laplacian_of_gaussian(batch[0].double()[:, None])[:, 0].numpy()
    np.testing.assert_allclose(fine_structures(output), expected, atol=1e-12 * np.abs(expected).max())


def test_a_constant_slice_has_no_scores_and_counts_in_the_volume() -> None:
    target, output = images()
    target[0] = 0
    found = ReferenceVolume(target).score(output)
    for name in IMAGE_SCORES:
        assert np.isnan(found.slices[name]).tolist() == [True, False, False]
    assert found.volume["SSIM"] == fastmri.evaluate.ssim(target, output).item()
    assert found.volume["PSNR"] == float(fastmri.evaluate.psnr(target, output))


def test_equal_images() -> None:
    target, _ = images()
    found = ReferenceVolume(target).score(target)
    assert found.volume == {
        "NMSE": 0, "NRMSE": 0, "PSNR": float("inf"), "SSIM": 1, "SSIM Gaussian": pytest.approx(1), "HFEN": 0
    }  # fmt: skip


def test_bad_images() -> None:
    target, output = images()
    with pytest.raises(ValueError, match=r"at least 11x11, got \(3, 10, 24\)"):
        ReferenceVolume(target[:, :10])
    with pytest.raises(ValueError, match="must have a signal, got a largest value of 0"):
        ReferenceVolume(np.zeros_like(target))
    with pytest.raises(ValueError, match=r"output must have the shape of images, got \(2, 20, 24\)"):
        ReferenceVolume(target).score(output[:2])


def test_constant_slices_of_the_reference_have_no_fine_structures() -> None:
    """But for the rounding of a transform, which nothing may be divided by."""
    target, output = images()
    target[1] = 1e-4
    scores = ReferenceVolume(target).score(output)
    error = np.square(fine_structures(output) - fine_structures(target)).sum()
    energy = np.square(fine_structures(target[[0, 2]])).sum()
    assert scores.volume["HFEN"] == pytest.approx(np.sqrt(error / energy), rel=1e-6)
    assert np.isnan(scores.slices["HFEN"][1])
    scores = ReferenceVolume(np.full_like(target, 1e-4)).score(output)
    assert np.isnan(scores.volume["HFEN"]) and np.isfinite(scores.volume["NRMSE"])
