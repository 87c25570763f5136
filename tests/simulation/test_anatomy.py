import h5py
import numpy as np
import pytest
from scipy import ndimage

from fastmri_ufloss.data import SegmentationSlices
from fastmri_ufloss.simulation.anatomy import BONE, CARTILAGE, band_noise, draw_knee
from fastmri_ufloss.simulation.demo import make_demo_dataset


def high_frequency_fraction(image):
    """Fraction of the energy, without the mean, above a quarter of the sampling frequency along some axis."""
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    y, x = np.meshgrid(*(np.abs(np.fft.fftfreq(n)) for n in image.shape), indexing="ij")
    return power[np.maximum(y, x) > 0.25].sum() / power.sum()


def test_fat_is_dark_and_noise_stronger_with_fat_suppression():
    plain, suppressed = (
        draw_knee((96, 96), num_slices=1, contrast=name, seed=2)[0][0] for name in ("CORPD_FBK", "CORPDFS_FBK")
    )
    bright = plain > 0.75  # fat and marrow
    assert bright.mean() > 0.15
    assert np.median(suppressed[bright]) < 0.35
    assert suppressed.max() > 0.7


@pytest.mark.parametrize("contrast", ["CORPD_FBK", "CORPDFS_FBK"])
def test_images_have_texture(contrast):
    for image in draw_knee((160, 160), num_slices=2, contrast=contrast, seed=7)[0]:
        assert np.isfinite(image).all() and image.min() >= 0 and 0.7 < image.max() < 1.6
        assert high_frequency_fraction(image) > 0.03
        # where there is tissue, few patches are flat
        patches = image.reshape(16, 10, 16, 10).transpose(0, 2, 1, 3).reshape(-1, 100)
        patches = patches[patches.min(axis=1) > 0.02]
        assert np.quantile(patches.std(axis=1) / patches.mean(axis=1), 0.1) > 0.08


def test_slices_change_smoothly_and_subjects_do_not_agree():
    first, other = (draw_knee((96, 96), num_slices=6, seed=seed)[0] for seed in (1, 2))

    def alike(a, b):
        return np.corrcoef(a.ravel(), b.ravel())[0, 1]

    near = [alike(first[index], first[index + 1]) for index in range(5)]
    assert min(near) > 0.8 and max(near) < 0.98
    assert alike(first[0], first[5]) < min(near) - 0.04
    assert alike(first[2], other[2]) < min(near) - 0.1


def test_images_depend_on_the_seed_only():
    for first, second in zip(draw_knee((64, 48), seed=3), draw_knee((64, 48), seed=3), strict=True):
        assert np.array_equal(first, second)
    assert [part.shape for part in draw_knee((64, 49), num_slices=1, seed=3)] == [(1, 64, 49)] * 2


def test_band_noise_has_its_band_and_direction():
    generator = np.random.default_rng(0)
    noise = band_noise(generator, (128, 128), wavelength=8, bandwidth=0.2)
    power = np.abs(np.fft.fft2(noise)) ** 2
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128))
    assert (power * frequency).sum() / power.sum() == pytest.approx(1 / 8, rel=0.1)
    assert noise.std() == pytest.approx(1, rel=1e-4) and abs(noise.mean()) < 1e-3
    along = band_noise(generator, (128, 128), wavelength=8, elongation=5)  # downwards
    assert np.abs(np.diff(along, axis=1)).mean() > 2.5 * np.abs(np.diff(along, axis=0)).mean()
    across = band_noise(generator, (128, 128), wavelength=8, elongation=5, angle=np.pi / 2)
    assert np.abs(np.diff(across, axis=0)).mean() > 2.5 * np.abs(np.diff(across, axis=1)).mean()


def test_classes_are_where_the_tissues_are():
    images, classes = draw_knee((128, 128), num_slices=2, contrast="CORPDFS_FBK", seed=1)
    assert classes.shape == images.shape and classes.dtype == np.uint8
    for image, labels in zip(images, classes, strict=True):
        inside = ndimage.binary_erosion(labels == BONE, iterations=4)
        rim = (labels == BONE) & ~ndimage.binary_erosion(labels != 0) & (image < 0.1)
        assert inside.mean() > 0.1 and rim.any()
        # the marrow is dark without its fat, the cortex darker, and cartilage bright
        cartilage = np.median(image[labels == CARTILAGE])
        assert image[rim].mean() < 0.8 * image[inside].mean() < 0.5 * cartilage
        # cartilage coats the ends of the bones
        near = ndimage.binary_dilation(labels == BONE, iterations=4)
        assert 0.005 < (labels == CARTILAGE).mean() < 0.03 and near[labels == CARTILAGE].mean() > 0.95


def test_classes_end_where_the_bones_do():
    images, classes = draw_knee((128, 128), num_slices=2, contrast="CORPD_FBK", seed=1)
    shaft = classes[:, :20] == BONE  # marrow within thick, dark cortex: no bright pixel beside the region's edge
    for image, labels in zip(images[:, :20], shaft, strict=True):
        edge = labels & ~ndimage.binary_erosion(labels, structure=np.ones((1, 3)))
        assert np.median(image[edge]) < 0.5 * np.median(image[labels])


def test_demo_volumes_have_a_segmentation(tmp_path):
    small = {"num_subjects": (2, 0, 0), "slices_per_subject": 2, "shape": (64, 64)}
    for challenge in ("multicoil", "singlecoil"):
        make_demo_dataset(tmp_path, challenge=challenge, num_coils=2, **small)
    many, one = (SegmentationSlices(tmp_path / f"{name}_train") for name in ("multicoil", "singlecoil"))
    assert len(many) == len(one) == 4 and many.num_classes == 3
    for first, second in zip(map(many.__getitem__, range(4)), map(one.__getitem__, range(4)), strict=True):
        assert np.array_equal(first.segmentation, second.segmentation)
        bone = first.image[0][first.segmentation == BONE].mean()
        suppressed = first.fname == "file1000002.h5"
        assert (bone < first.image[0][first.segmentation == CARTILAGE].mean()) == suppressed
    with h5py.File(tmp_path / "multicoil_train" / "file1000001.h5") as volume:
        assert volume["segmentation"].dtype == np.uint8


def test_bad_input_is_named():
    for name, changes in (
        ("shape", {"shape": (16, 64)}),
        ("num_slices", {"num_slices": 0}),
        ("contrast", {"contrast": "T2"}),
    ):
        with pytest.raises(ValueError, match=name):
            draw_knee(**{"shape": (64, 64), **changes})
