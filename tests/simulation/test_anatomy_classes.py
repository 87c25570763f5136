import h5py
import numpy as np
import pytest
from scipy import ndimage

from fastmri_ufloss.data import SegmentationSlices
from fastmri_ufloss.simulation.anatomy import CONTRASTS, draw_knee
from fastmri_ufloss.simulation.anatomy_classes import BONE, CARTILAGE, draw_segmented_knee
from fastmri_ufloss.simulation.demo import make_demo_dataset


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_the_images_are_those_without_classes(contrast):
    images, classes = draw_segmented_knee((64, 48), num_slices=3, contrast=contrast, seed=3)
    assert np.array_equal(images, draw_knee((64, 48), num_slices=3, contrast=contrast, seed=3))
    assert classes.shape == images.shape and classes.dtype == np.uint8


def test_classes_are_where_the_tissues_are():
    images, classes = draw_segmented_knee((128, 128), num_slices=2, contrast="CORPDFS_FBK", seed=1)
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
    images, classes = draw_segmented_knee((128, 128), num_slices=2, contrast="CORPD_FBK", seed=1)
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
    for name, changes in (("shape", {"shape": (16, 64)}), ("num_slices", {"num_slices": 0})):
        with pytest.raises(ValueError, match=name):
            draw_segmented_knee(**{"shape": (64, 64), **changes})
