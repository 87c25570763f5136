import numpy as np
import pytest

from fastmri_ufloss.metrics.segmented_images import SegmentedImages

# two classes beside the background; the second is in two of the images
IMAGES = SegmentedImages(
    volume=np.array(["a", "a", "b", "b"]),
    on_output=np.array([[0, 0.5, 1.0], [0, 0.4, 0], [0, 0.9, 0.5], [0, 0, 0]]),
    on_target=np.array([[0, 1.0, 1.0], [0, 0.5, 0], [0, 0.9, 0.6], [0, 0, 0]]),
    present=np.array([[False, True, True], [False, True, False], [False, True, True], [False, False, False]]),
)


def test_scores_of_images_volumes_and_all() -> None:
    first, second = 2.4 / 3, 1.6 / 2  # on the targets
    assert IMAGES.segmenter_dice([1, 2]) == pytest.approx({1: first, 2: second})
    assert IMAGES.scores([1, 2]) == pytest.approx({1: 0.6 / first, 2: 0.75 / second})
    assert IMAGES.per_volume([1, 2]) == pytest.approx(
        {"a": (0.45 / first + 1 / second) / 2, "b": (0.9 / first + 0.5 / second) / 2}
    )
    expected = [(0.5 / first + 1 / second) / 2, 0.4 / first, (0.9 / first + 0.5 / second) / 2, np.nan]
    np.testing.assert_allclose(IMAGES.per_image([1, 2]), expected)
    np.testing.assert_allclose(IMAGES.per_image([2]), [1 / second, np.nan, 0.5 / second, np.nan])


def test_interval_is_over_subjects() -> None:
    low, high = IMAGES.interval([1, 2], ["x", "x", "y", "y"])
    value = np.mean(list(IMAGES.scores([1, 2]).values()))
    assert low < value < high
    assert np.isnan(IMAGES.interval([1, 2], ["x"] * 4)).all()
