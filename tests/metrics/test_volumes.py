from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastmri.evaluate
import h5py
import numpy as np
import pytest
import skimage.metrics
import torch
from scipy import ndimage
from skimage.measure import blur_effect

from fastmri_ufloss.losses import reader_score
from fastmri_ufloss.losses.fine_structure import laplacian_of_gaussian
from fastmri_ufloss.losses.ssim import gaussian_ssim
from fastmri_ufloss.metrics import HFEN, ReferenceVolume, mean_scores, score_run, sharpness
from fastmri_ufloss.metrics.volumes import IMAGE_SCORES, READER_SCORES, SPECTRUM, fine_structures


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


def test_scores_of_readers_have_the_range_of_the_volume() -> None:
    target, output = images()
    found = ReferenceVolume(target).score(output, names=READER_SCORES)
    x, t = (torch.from_numpy(image)[:, None] for image in (output, target))
    for name, score in READER_SCORES.items():
        expected = reader_score(score, x, t, float(target.max()))
        np.testing.assert_allclose(found.slices[name], expected, rtol=1e-5)
        assert found.volume[name] == pytest.approx(float(expected.mean()), rel=1e-5)
    small = ReferenceVolume(target[:, :15]).score(output[:, :15], names=("HaarPSI", "SSIM"))
    assert np.isnan(small.volume["HaarPSI"]) and small.volume["SSIM"] > 0


def test_spectrum_is_the_ratio_of_powers_in_rings() -> None:
    target, output = images(shape=(24, 20))
    found = ReferenceVolume(target).score(output, names=SPECTRUM)
    x, t = (np.fft.fftshift(np.abs(np.fft.fft2(image.astype(np.float64))) ** 2, (1, 2)) for image in (output, target))
    row, col = np.mgrid[-12:12, -10:10]
    radius = np.hypot(row / 12, col / 10)
    for name, low in zip(SPECTRUM, (0, 0.25, 0.5, 0.75), strict=True):
        ring = (radius >= low) & (radius < low + 0.25)
        np.testing.assert_allclose(found.slices[name], x[:, ring].sum(axis=1) / t[:, ring].sum(axis=1))
        assert found.volume[name] == pytest.approx(x[:, ring].sum() / t[:, ring].sum())
    smooth = ndimage.gaussian_filter(target, (0, 1, 1), mode="wrap")
    of_smooth = list(ReferenceVolume(target).score(smooth, names=SPECTRUM).volume.values())
    assert 1 > of_smooth[0] > of_smooth[1] > of_smooth[2] > of_smooth[3]  # blur is seen at high frequencies first


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


def test_data_range_of_the_volume_and_scores_by_name() -> None:
    target, output = images()
    largest = 2.5 * float(target.max())
    volume = ReferenceVolume(target, max_value=largest).score(output).volume
    assert volume["PSNR"] == float(fastmri.evaluate.psnr(target, output, maxval=largest))
    assert volume["SSIM"] == fastmri.evaluate.ssim(target, output, maxval=largest).item()
    other = ReferenceVolume(target).score(output).volume
    assert volume["SSIM Gaussian"] > other["SSIM Gaussian"] and volume["HFEN"] == other["HFEN"]
    names = ["SSIM", "NMSE"]
    assert ReferenceVolume(target).score(output, names=names).volume == {name: other[name] for name in names}
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="max_value must be above 0, got"):
            ReferenceVolume(target, max_value=bad)


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


def shapes_and_noise() -> np.ndarray:
    shapes = np.zeros((48, 40))
    shapes[10:30, 8:30] = 1
    shapes[15:20, 12:18] = 0.5
    return shapes + 0.05 * np.random.default_rng(0).random(shapes.shape)


def test_sharpness_falls_with_blur_and_rises_with_noise() -> None:
    values = [sharpness(ndimage.gaussian_filter(shapes_and_noise(), sigma)) for sigma in (0, 0.5, 1, 2, 4)]
    assert values == sorted(values, reverse=True) and values[0] - values[-1] > 0.2
    smooth = ndimage.gaussian_filter(shapes_and_noise(), 2)
    noise = np.random.default_rng(1).normal(size=smooth.shape)
    assert sharpness(smooth + 0.02 * noise) > sharpness(smooth) + 0.05


def test_sharpness_is_that_of_scikit_image_in_any_unit() -> None:
    image = shapes_and_noise()
    assert sharpness(image) == pytest.approx(1 - blur_effect(image))
    assert sharpness((image * 1e-14).astype(np.float32)) == pytest.approx(sharpness(image), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.0, 1e-7])
def test_an_image_of_one_value_has_no_sharpness(value: float) -> None:
    assert np.isnan(sharpness(np.full((20, 20), value)))


def test_wants_one_shapes_and_noise() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(rows, cols\), got \(2, 20, 20\)"):
        sharpness(np.ones((2, 20, 20)))


SLICES = {"a.h5": [0, 2, 3], "b.h5": [1, 4]}
# of these files, by the code that summed up the slices of a volume while they were reconstructed: NRMSE, PSNR, SSIM
RSS = {
    ("a.h5", "zero-filled"): (0.45385296765482036, 12.297820587203159, 0.6943798917694157),
    ("a.h5", "MoDL"): (0.1652350752273645, 21.074079328234188, 0.9512552608843563),
    ("b.h5", "zero-filled"): (0.4879254158059045, 11.800214154836855, 0.643927594532772),
    ("b.h5", "MoDL"): (0.16925454461219214, 20.996476199817586, 0.9450121383581842),
}
COIL_COMBINED = {
    ("a.h5", "zero-filled"): (0.4286502805556211, 11.959211085387203, 0.7038849345883544),
    ("a.h5", "MoDL"): (0.15118242192167933, 21.011247363655045, 0.9545378461986982),
    ("b.h5", "zero-filled"): (0.4604772690599765, 11.447626142864769, 0.6538773843524407),
    ("b.h5", "MoDL"): (0.15590749399248788, 20.854450257235403, 0.9483297096223247),
}
UFLOSS = {"zero-filled": {"a.h5": 0.3, "b.h5": 0.3}, "MoDL": {"a.h5": 0.1, "b.h5": 0.1}}


def write(path: Path, data: Mapping[str, np.ndarray], **attributes: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, images in data.items():
            file[name] = images
        file.attrs.update(attributes)


@pytest.fixture
def run(tmp_path: Path) -> dict[str, dict[str, Path]]:
    """A run on some slices of two volumes, whose outputs are narrower and higher than the RSS images."""
    outputs = {"zero-filled": tmp_path / "zero_filled", "MoDL": tmp_path / "reconstructions"}
    references = {"RSS": tmp_path / "volumes", "coil-combined": tmp_path / "reference"}
    for (fname, numbers), unit, seed in zip(SLICES.items(), (1e-4, 3.0), (0, 1), strict=True):
        rng = np.random.default_rng(seed)
        base = unit * rng.random((5, 24, 24), dtype=np.float32)
        combined = (1.05 * base[:, :, 2:22])[numbers]
        rss = base[:, 2:22]
        write(references["RSS"] / fname, {"reconstruction_rss": rss}, max=float(1.1 * rss.max()))
        write(references["coil-combined"] / fname, {"reconstruction": combined})
        for folder, noise in zip(outputs.values(), (0.3, 0.1), strict=True):
            error = unit * noise * rng.standard_normal(combined.shape, dtype=np.float32)
            write(folder / fname, {"reconstruction": np.abs(combined + error)})
    return {"outputs": outputs, "references": references}


def test_scores_of_a_run_are_those_that_its_slices_had(run: dict[str, dict[str, Path]]) -> None:
    rows = score_run(**run, slices=SLICES, more=UFLOSS)
    assert [(row["volume"], row["method"]) for row in rows] == list(RSS)
    for row in rows:
        names = [f"{score} ({reference})" for reference in run["references"] for score in ("NRMSE", "PSNR", "SSIM")]
        assert list(row) == ["volume", "method", *names, "UFLoss"]
        key = row["volume"], row["method"]
        for reference, expected in (("RSS", RSS[key]), ("coil-combined", COIL_COMBINED[key])):
            # differences of float32 images were rounded to float32; the mean of PSNR, fastMRI's, still is
            for score, value, precision in zip(("NRMSE", "PSNR", "SSIM"), expected, (1e-8, 1e-6, 1e-12), strict=True):
                assert row[f"{score} ({reference})"] == pytest.approx(value, rel=precision)
        assert row["UFLoss"] == UFLOSS[row["method"]][row["volume"]]


def test_means_of_a_run_are_over_its_volumes(run: dict[str, dict[str, Path]]) -> None:
    rows = score_run(**run, slices=SLICES, more=UFLOSS)
    first, second = mean_scores(rows)
    assert list(first) == ["method", "volumes", *list(rows[0])[2:]]
    assert (first["method"], second["method"], first["volumes"]) == ("zero-filled", "MoDL", 2)
    for name in list(rows[0])[2:]:
        assert second[name] == pytest.approx((rows[1][name] + rows[3][name]) / 2)


def test_volumes_that_cannot_be_compared_are_left_out(run: dict[str, dict[str, Path]]) -> None:
    expected = score_run(**run, slices=SLICES)
    assert score_run(**run, slices={"b.h5": SLICES["b.h5"]}) == expected[2:]
    (run["outputs"]["zero-filled"] / "a.h5").unlink()
    assert score_run(**run, slices=SLICES) == expected[2:]
    (run["references"]["coil-combined"] / "b.h5").unlink()
    rows = score_run(**run, slices=SLICES)  # against the reference that is left
    assert rows == [{name: x for name, x in row.items() if "coil" not in name} for row in expected[2:]]
    assert [mean["volumes"] for mean in mean_scores([*expected, *rows])] == [3, 3]
    name = "NRMSE (coil-combined)"
    assert mean_scores([*rows, *expected])[0][name] == mean_scores(expected)[0][name]
    write(run["references"]["RSS"] / "b.h5", {"kspace": np.ones((5, 2, 24, 24), np.complex64)})  # undersampled
    assert score_run(**run, slices=SLICES) == []


def test_all_slices_of_a_run_and_no_largest_value(run: dict[str, dict[str, Path]]) -> None:
    outputs, rss = run["outputs"], run["references"]["RSS"] / "a.h5"
    with h5py.File(rss) as file:
        target = file["reconstruction_rss"][()]
    for folder in outputs.values():
        write(folder / "a.h5", {"reconstruction": 0.9 * target})
        (folder / "b.h5").unlink()
    write(rss, {"reconstruction_rss": target})
    for row in score_run(outputs, {"RSS": rss.parent}):
        assert row["PSNR (RSS)"] == pytest.approx(float(fastmri.evaluate.psnr(target, 0.9 * target)), rel=1e-6)
        assert row["SSIM (RSS)"] == pytest.approx(fastmri.evaluate.ssim(target, 0.9 * target).item(), rel=1e-6)
    write(rss, {"reconstruction_rss": 0 * target})
    rows = score_run(outputs, {"RSS": rss.parent})
    assert len(rows) == 2
    assert all(np.isnan(row[f"{name} (RSS)"]) for row in rows for name in ("NRMSE", "PSNR", "SSIM"))


def test_files_that_do_not_fit_are_named(run: dict[str, dict[str, Path]]) -> None:
    with pytest.raises(ValueError, match=r"a.h5: outputs and references .* of the same slices, got .*\(5, 20"):
        score_run(**run)
    with pytest.raises(ValueError, match=r"volumes/b.h5 must have the slices 1, 5, got 5 slices"):
        score_run(**run, slices={"b.h5": [1, 5]})
    write(run["outputs"]["MoDL"] / "b.h5", {"reconstruction": np.ones((2, 10, 10))})
    with pytest.raises(ValueError, match=r"b.h5: images must have shape .* at least 11x11, got \(2, 10, 10\)"):
        score_run(**run, slices=SLICES)
    (run["outputs"]["MoDL"] / "a.h5").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=r"reconstructions/a.h5 is not an HDF5 file"):
        score_run(**run, slices=SLICES)
