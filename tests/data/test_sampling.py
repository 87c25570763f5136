import numpy as np
import pytest

from fastmri_ufloss.data.sampling import center_shape, find_sampling, padding_of, sampled_points, volume_sampling


def test_sampled_points_are_those_of_any_coil() -> None:
    kspace = np.zeros((2, 3, 4), dtype=np.complex64)
    kspace[0, 0, 1] = 1j
    kspace[1, 2, 3] = 1
    expected = np.zeros((3, 4), dtype=bool)
    expected[0, 1] = expected[2, 3] = True
    np.testing.assert_array_equal(sampled_points(kspace), expected)
    np.testing.assert_array_equal(sampled_points(kspace[0]), expected & (np.arange(4) == 1))


def test_borders_are_no_undersampling() -> None:
    y, x = np.mgrid[-1:1:20j, -1:1:24j]
    ellipse = x**2 + y**2 < 1
    partial = np.zeros((20, 24), dtype=bool)
    partial[3:, 5:] = True
    for full in (np.ones((20, 24)), ellipse, partial, ellipse & partial):
        assert find_sampling(full) is None


def test_columns_and_points_are_told_apart() -> None:
    columns = np.zeros((20, 24), dtype=bool)
    columns[:, ::2] = True
    np.testing.assert_array_equal(find_sampling(columns), columns[0])
    columns[:4] = False  # a partial echo
    np.testing.assert_array_equal(find_sampling(columns), columns[5])
    columns[7, 2] = False
    np.testing.assert_array_equal(find_sampling(columns), columns)
    rows = np.zeros((20, 24), dtype=bool)
    rows[::2] = True  # undersampled along the other axis: a mask of points
    np.testing.assert_array_equal(find_sampling(rows), rows)
    with pytest.raises(ValueError, match="sampled must be of shape"):
        find_sampling(np.ones(5))
    with pytest.raises(ValueError, match="got zeros only"):
        find_sampling(np.zeros((3, 5)))


def test_a_few_zeros_by_chance_are_no_undersampling() -> None:
    sampled = np.ones((200, 100), dtype=bool)
    sampled[7, 9] = False
    assert find_sampling(sampled) is None
    sampled[::5, 40] = False
    np.testing.assert_array_equal(find_sampling(sampled), sampled)


def test_padding() -> None:
    sampled = np.zeros((5, 9), dtype=bool)
    with pytest.raises(ValueError, match="leave out the center of 9"):
        padding_of(sampled)
    sampled[2, 3] = sampled[4, 6] = True
    assert padding_of(sampled) == (3, 7)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [("0011110", 2), ("0011110000"[:8], 4), ("1111", 4), ("0000", 0), ("01000010", 0), ("00010000", 0)],
)
def test_center_of_columns(mask: str, expected: int) -> None:
    assert center_shape(np.array([int(c) for c in mask]), 5) == (5, expected)


def test_center_of_points() -> None:
    mask = np.zeros((12, 17), dtype=bool)
    for side in range(1, 13):
        top, left = (12 - side + 1) // 2, (17 - side + 1) // 2
        mask[top : top + side, left : left + side] = True
        mask[0, 0] = True
        assert center_shape(mask, 12) == (side, side)


def test_a_volume_is_judged_by_a_slice_with_a_signal() -> None:
    full = np.ones((3, 2, 16, 20), dtype=np.complex64)
    mask = np.arange(20) % 2 == 0
    full[1] = 0
    assert volume_sampling(full, where="a.h5") is None
    np.testing.assert_array_equal(volume_sampling(full * mask, where="a.h5"), mask)
    np.testing.assert_array_equal(volume_sampling(full[:, 0] * mask, where="a.h5"), mask)  # a single coil
    assert volume_sampling(0 * full, where="a.h5") is None
    mixed = np.stack([full[0], full[0], full[0] * mask])
    with pytest.raises(ValueError, match=r"a\.h5: slice 2 is undersampled.* and slice 1 is not"):
        volume_sampling(mixed, where="a.h5")
