"""The masks of this package: samples counted, places measured, through fastMRI's own doors."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from fastmri.data.transforms import UnetDataTransform, VarNetDataTransform, apply_mask
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from fastmri_ufloss.data.masks import (
    MASK_TYPES,
    Gaussian1DMaskFunc,
    Poisson2DMaskFunc,
    VariableDensity2DMaskFunc,
    create_mask_for_mask_type,
    distance_from_middle,
    distance_from_square,
    draw_without_replacement,
    min_center_shape,
)
from fastmri_ufloss.data.poisson_disk import spacing_for_count

POINTS = ("variable_density_2d", "poisson_2d")
OURS = ("gaussian_1d", *POINTS)
SHAPES = [(640, 372), (320, 320), (320, 256), (230, 180), (128, 128), (96, 110), (97, 61)]
ACCELERATIONS = (2, 3, 4, 5, 8, 10, 12)
CENTERS = (0.02, 0.04, 0.08)


def draw(mask_type: str, shape: tuple[int, int], acceleration: float, seed: int = 0, **options: object) -> np.ndarray:
    """One mask, bool (1 or rows, cols)."""
    mask_func = create_mask_for_mask_type(mask_type, [0.06], [acceleration], **options)
    return mask_func((*shape, 2), seed=seed)[0][..., 0].numpy() > 0


def square(shape: tuple[int, int], side: int) -> tuple[slice, slice]:
    starts = [(size - side + 1) // 2 for size in shape]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mask_type", OURS)
def test_acceleration_and_center(mask_type: str, shape: tuple[int, int]) -> None:
    rows, cols = shape
    for acceleration, fraction in itertools.product(ACCELERATIONS, CENTERS):
        side = max(1, round(fraction * cols))
        if mask_type in POINTS and rows * cols > 5e4 and fraction != CENTERS[acceleration % 3]:
            continue  # a third of the cases of large masks, which take time
        if mask_type == "gaussian_1d" and side >= round(cols / acceleration):
            continue  # an error, tested below
        mask_func = create_mask_for_mask_type(mask_type, [fraction], [acceleration])
        mask, num_low_frequencies = mask_func((1, rows, cols, 2), seed=(1, 2))
        assert mask.dtype == torch.float32 and set(mask.unique().tolist()) == {0.0, 1.0}
        assert num_low_frequencies == side
        if mask_type == "gaussian_1d":
            assert mask.shape == (1, 1, cols, 1)
            # lines come whole: of 61, acceleration 12 is 5 lines or 6. So 3 % or half a line, the larger
            assert abs(int(mask.sum()) - cols / acceleration) <= max(0.5, 0.03 * cols / acceleration)
            assert bool(mask[..., square(shape, side)[1], :].all())
        else:
            assert mask.shape == (1, rows, cols, 1)
            assert int(mask.sum()) == round(rows * cols / acceleration)
            assert abs(mask.numel() / float(mask.sum()) / acceleration - 1) < 0.03
            assert bool(mask[0][square(shape, side)].all())


def test_the_full_center_is_no_larger_than_it_says() -> None:
    """Beside the lines or the square there are gaps: in any mask of high acceleration, on every side."""
    for mask_type in OURS:
        mask_func = create_mask_for_mask_type(mask_type, [0.04], [8])
        gaps = np.zeros(4, dtype=bool)
        for seed in range(10):
            mask, side = mask_func((128, 128, 2), seed=seed)
            sampled = np.broadcast_to(mask[..., 0].numpy() > 0, (128, 128))
            rows, cols = square((128, 128), side)
            gaps |= [
                not sampled[rows, cols.start - 1].all(),
                not sampled[rows, cols.stop].all(),
                not sampled[rows.start - 1, cols].all(),
                not sampled[rows.stop, cols].all(),
            ]
        assert gaps[:2].all() and (mask_type == "gaussian_1d" or gaps.all()), mask_type


@pytest.mark.parametrize("mask_type", OURS)
def test_reproducible_by_seed(mask_type: str) -> None:
    shape = (1, 64, 80, 2)
    mask_func = create_mask_for_mask_type(mask_type, [0.05], [4])
    state = np.random.get_state()[1].copy()
    torch_state = torch.get_rng_state()
    first, again, other = (mask_func(shape, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(mask_func(shape)[0], mask_func(shape)[0])  # the function's own generator goes on
    assert np.array_equal(np.random.get_state()[1], state) and torch.equal(torch.get_rng_state(), torch_state)
    of_files = [mask_func(shape, seed=tuple(map(ord, name)))[0] for name in ("a.h5", "b.h5", "a.h5")]
    assert torch.equal(of_files[0], of_files[2]) and not torch.equal(of_files[0], of_files[1])
    copy = pickle.loads(pickle.dumps(mask_func))  # to a worker of a loader
    assert torch.equal(copy(shape, seed=1)[0], first)


@pytest.mark.parametrize("cls", [Gaussian1DMaskFunc, VariableDensity2DMaskFunc, Poisson2DMaskFunc])
def test_constructor_as_in_fastmri(cls: type) -> None:
    shape = (1, 64, 80, 2)
    same = [cls([0.05], [4], False, 7)(shape)[0] for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], cls([0.05], [4], seed=8)(shape)[0])
    any_combination = cls([0.05, 0.1], [2, 3, 5.5], allow_any_combination=True, seed=0)
    drawn = {(any_combination(shape)[1], round(any_combination(shape)[0].mean().item(), 1)) for _ in range(60)}
    assert len(drawn) == 6


@pytest.mark.parametrize("mask_type", OURS)
def test_pairs_are_drawn_together(mask_type: str) -> None:
    mask_func = create_mask_for_mask_type(mask_type, [0.1, 0.05], [4, 8])
    drawn = set()
    for seed in range(12):
        mask, num_low_frequencies = mask_func((1, 96, 80, 2), seed=seed)
        drawn.add((num_low_frequencies, round(mask.numel() / float(mask.sum()))))
    assert drawn == {(8, 4), (4, 8)}


@pytest.mark.parametrize("mask_type", OURS)
def test_through_fastmri(mask_type: str) -> None:
    mask_func = create_mask_for_mask_type(mask_type, [0.08], [4])
    data = torch.randn(3, 48, 40, 2, generator=torch.Generator().manual_seed(0))
    masked, mask, num_low_frequencies = apply_mask(data, mask_func, seed=5)
    expected, _ = mask_func((1, 48, 40, 2), seed=5)
    assert torch.equal(mask, expected) and num_low_frequencies == 3
    assert torch.equal(masked, data * expected)
    _, padded, _ = apply_mask(data, mask_func, seed=5, padding=(4, 36))
    assert padded[..., :4, :].sum() == 0 == padded[..., 36:, :].sum()
    assert torch.equal(padded[..., 4:36, :], expected[..., 4:36, :])

    kspace = torch.view_as_complex(data).numpy()
    attrs = {"padding_left": 0, "padding_right": 40, "recon_size": (32, 32, 1), "max": 1.0}
    sample = VarNetDataTransform(mask_func)(kspace, None, np.ones((32, 32)), attrs, "a.h5", 0)
    expected, _ = mask_func((1, 48, 40, 2), seed=tuple(map(ord, "a.h5")))
    assert torch.equal(sample.mask, expected.bool())
    assert torch.equal(sample.masked_kspace, data * expected) and sample.num_low_frequencies == 3
    image = UnetDataTransform("multicoil", mask_func)(kspace, None, np.ones((32, 32)), attrs, "a.h5", 0).image
    assert image.shape == (32, 32) and bool(image.isfinite().all())


def test_leading_dimensions() -> None:
    for mask_type in OURS:
        mask_func = create_mask_for_mask_type(mask_type, [0.1], [4])
        rows = 1 if mask_type == "gaussian_1d" else 32
        masks = [mask_func((*lead, 32, 40, 2), seed=0)[0] for lead in ((), (1,), (2, 3), (2, 1, 5))]
        for mask, ones in zip(masks, (0, 1, 2, 3), strict=True):
            assert mask.shape == (*(1,) * ones, rows, 40, 1)
            assert torch.equal(mask.flatten(), masks[0].flatten())


def test_density_falls_outwards() -> None:
    cols, seeds = 200, 400
    lines = np.mean([draw("gaussian_1d", (4, cols), 5, seed) for seed in range(seeds)], axis=0).ravel()
    away = np.abs(np.arange(cols) - cols / 2)
    zones = [lines[(away > low) & (away <= low + 10)].mean() for low in (8, 20, 32, 44)]
    assert zones[0] > 1.3 * zones[1] > 1.3**2 * zones[2]
    # beyond three standard deviations only the floor is left, the same everywhere
    far = [lines[(away > low) & (away <= low + 18)].mean() for low in (62, 81)]
    assert abs(far[0] - far[1]) < 0.02 and far[0] > 0.05
    assert abs(lines[:100].sum() - lines[101:].sum()) < 0.02 * lines.sum()  # left and right alike
    distances = distance_from_square((128, 96), 6)
    for mask_type in POINTS:
        points = np.mean([draw(mask_type, (128, 96), 6, seed) for seed in range(30)], axis=0)
        zones = [points[(distances > low) & (distances <= low + 0.2)].mean() for low in (0, 0.2, 0.4, 0.6, 0.8)]
        # the polynomial has nearly ended in the last zone: there the floor is left
        assert all(inner > 1.2 * outer for inner, outer in itertools.pairwise(zones[:4])), (mask_type, zones)
        assert zones[0] > 4 * zones[4] and zones[3] > zones[4], (mask_type, zones)
        quarters = [points[::flip_row, ::flip_col][:63, :47].mean() for flip_row in (1, -1) for flip_col in (1, -1)]
        assert max(quarters) < 1.04 * min(quarters), (mask_type, quarters)  # no direction is preferred


def spacing_of(shape: tuple[int, int], acceleration: float, side: int) -> np.ndarray:
    distances = distance_from_square(shape, side)
    scale, slope = spacing_for_count(distances[distances > 0], round(shape[0] * shape[1] / acceleration) - side**2)
    return scale * (1 + slope * distances)


@pytest.mark.parametrize("acceleration", [3, 8, 12])
def test_poisson_density_is_one_in_r_squared(acceleration: int) -> None:
    shape, side = (160, 128), 8
    spacing = spacing_of(shape, acceleration, side)
    density = np.mean([draw("poisson_2d", shape, acceleration, s, center_size=side) for s in range(24)], axis=0)
    for low, high in itertools.pairwise(np.quantile(spacing[spacing > 1.2], np.linspace(0, 1, 6))):
        zone = (spacing >= low) & (spacing < high)
        assert density[zone].mean() == pytest.approx((1 / spacing[zone] ** 2).mean(), rel=0.1)
    border = np.ones(shape, dtype=bool)
    border[2:-2, 2:-2] = False
    assert density[border].mean() == pytest.approx((1 / spacing[border] ** 2).mean(), rel=0.15)


@pytest.mark.parametrize("acceleration", [4, 8, 12])
def test_poisson_samples_keep_their_distance(acceleration: int) -> None:
    shape, side = (256, 200), 12
    spacing = spacing_of(shape, acceleration, side)
    far = (spacing > 1.7) & (distance_from_square(shape, side) < 0.9)

    def nearest(mask: np.ndarray) -> np.ndarray:
        """Distance of each sample to the next one, in units of r."""
        places = np.argwhere(mask)
        return (cKDTree(places).query(places, k=2)[0][:, 1] / spacing[mask])[far[mask]]

    mask = draw("poisson_2d", shape, acceleration, center_size=side)
    random = np.random.default_rng(0).random(shape) < 1 / spacing**2
    assert nearest(mask).min() > 0.5  # of random points of that density it is below 0.3
    assert nearest(mask).mean() > 0.8 and nearest(random).mean() < 0.65
    assert np.quantile(nearest(mask), 0.01) > 0.6 > 0.5 > np.quantile(nearest(random), 0.05)
    holes, random_holes = ((distance_transform_edt(~m) / spacing)[far].max() for m in (mask, random))
    assert holes < 0.95 and random_holes > 1.3


def test_where_most_points_are_sampled_the_others_keep_apart() -> None:
    shape = (128, 128)
    spacing = spacing_of(shape, 1.6, 8)
    dense = spacing**2 < 1.55

    def pairs(mask: np.ndarray) -> float:
        """Part of the dense points that are left out which have one like them beside."""
        out = np.argwhere(~mask)
        return float((cKDTree(out).query(out, k=2)[0][:, 1] < 1.1)[dense[~mask]].mean())

    mask = draw("poisson_2d", shape, 1.6, center_size=8)
    random = np.random.default_rng(0).random(shape) < 1 / spacing**2
    assert pairs(mask) < 0.25 and pairs(random) > 0.5
    for acceleration in (1.005, 1.05, 1.3):  # all of it dense
        assert draw("poisson_2d", (100, 90), acceleration).sum() == round(9000 / acceleration)


def test_spacing_for_count() -> None:
    distances = distance_from_square((120, 90), 10)
    outside = distances[distances > 0]
    for count in (10, 300, 3000, 9000, outside.size):
        scale, slope = spacing_for_count(outside, count)
        assert (1 / (scale * (1 + slope * outside)) ** 2).sum() == pytest.approx(count, rel=2e-3)
        assert scale >= 1 and 0 <= slope <= 8 and (scale == 1 or slope == 8)


def test_elliptical() -> None:
    for mask_type, shape in itertools.product(POINTS, [(128, 128), (96, 110), (97, 61)]):
        inside = distance_from_middle(*shape) <= 1
        y, x = np.mgrid[: shape[0], : shape[1]]
        away = [(axis - size // 2) / (size / 2) for axis, size in zip((y, x), shape, strict=True)]
        assert np.array_equal(inside, away[0] ** 2 + away[1] ** 2 <= 1 + 1e-12)
        for acceleration in (2, 8):
            mask = draw(mask_type, shape, acceleration, elliptical=True)
            assert not mask[~inside].any()
            assert mask.sum() == round(shape[0] * shape[1] / acceleration)
            assert draw(mask_type, shape, acceleration)[~inside].any()


def test_center_size_takes_the_place_of_center_fractions() -> None:
    for mask_type, fractions in itertools.product(POINTS, ([], [0.3])):
        mask_func = create_mask_for_mask_type(mask_type, fractions, [8.5], center_size=24)
        mask, num_low_frequencies = mask_func((160, 128, 2), seed=0)
        assert num_low_frequencies == 24 and mask.sum() == round(160 * 128 / 8.5)
        assert bool(mask[square((160, 128), 24)].all())


def test_special_cases() -> None:
    for mask_type in OURS:
        assert draw(mask_type, (20, 30), 1).all()  # every point
        assert draw(mask_type, (4, 4), 2).sum() in (2, 8)
    # a center as wide as the shorter side, and one sample beside the center
    for mask_type in POINTS:
        assert draw(mask_type, (100, 20), 4, center_size=50)[square((100, 20), 20)].all()
        assert draw(mask_type, (100, 100), 100, center_size=9).sum() == 100
        assert draw(mask_type, (200, 150), 30000 / 82, center_size=9).sum() == 82


@pytest.mark.parametrize("mask_type", MASK_TYPES)
def test_min_center_shape_is_in_every_mask(mask_type: str) -> None:
    options = [{}, {"center_size": 7}] if mask_type in POINTS else [{}]
    for option, shape in itertools.product(options, [(40, 96), (33, 101)]):
        mask_func = create_mask_for_mask_type(mask_type, [0.1, 0.08], [4, 8], **option)
        rows, cols = min_center_shape(mask_func, *shape)
        assert rows == (cols if mask_type in POINTS else shape[0]) and cols == (7 if option else 8)
        places = [slice((s - n + 1) // 2, (s - n + 1) // 2 + n) for s, n in zip(shape, (rows, cols), strict=True)]
        for seed in range(20):
            mask, _ = mask_func((1, *shape, 2), seed=seed)
            assert bool(mask.expand(1, *shape, 1)[0, places[0], places[1]].all()), (mask_type, shape, seed)


def test_errors_name_the_way_out() -> None:
    point = "only for the mask types variable_density_2d, poisson_2d"
    for mask_type in set(MASK_TYPES) - set(POINTS):
        with pytest.raises(ValueError, match=f"center_size must be {point}, got 24 for '{mask_type}'"):
            create_mask_for_mask_type(mask_type, [0.1], [4], center_size=24)
        with pytest.raises(ValueError, match=f"elliptical must be {point}"):
            create_mask_for_mask_type(mask_type, [0.1], [4], elliptical=True)
    for arguments, options, message in [
        (("poisson_2d", [], [4]), {}, "same number of values"),
        (("poisson_2d", [], []), {"center_size": 4}, "accelerations must be at least one"),
        (("poisson_2d", [0.1, 0.1], [4]), {"center_size": 4}, "same number of values"),
        (("poisson_2d", [0.1], [4]), {"center_size": 0}, "center_size must be an integer from 1, got 0"),
        (("poisson_2d", [0.1], [4]), {"center_size": 2.5}, "center_size must be an integer from 1, got 2.5"),
        (("poisson_2d", [0.1], [float("nan")]), {}, "accelerations must be at least 1"),
        (("gaussian_1d", [0.25], [4]), {}, "a center fraction of 0.25 alone takes the samples that acceleration 4"),
        (("equispaced", [0.1], [2.5]), {}, "accelerations must be integers for mask_type 'equispaced', got 2.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            create_mask_for_mask_type(*arguments, **options)


def test_masks_that_cannot_be_are_named() -> None:
    for mask_type, option, shape, acceleration, message in [
        ("gaussian_1d", {}, (30, 100), 16, "6 center lines alone take the 6 that acceleration 16 leaves of 100"),
        ("gaussian_1d", {}, (30, 3), 2, "shape must be of at least 4 columns, got"),
        ("poisson_2d", {}, (3, 30), 2, "shape must be of at least 4 rows and columns, got"),
        ("poisson_2d", {"center_size": 30}, (90, 80), 8, "30 x 30 alone takes the 900 samples that acceleration 8 "),
        ("variable_density_2d", {"elliptical": True}, (90, 80), 1.2, "ellipse in 90 x 80 must have the 6000 samples"),
        ("poisson_2d", {"elliptical": True, "center_size": 80}, (90, 80), 1.1, "80 x 80 reaches out of the ellipse"),
    ]:
        with pytest.raises(ValueError, match=message):
            draw(mask_type, shape, acceleration, **option)
    # a pair that cannot work fails at once, not when it is drawn
    with pytest.raises(ValueError, match="alone takes"):
        create_mask_for_mask_type("poisson_2d", [0.05, 0.9], [4, 4])((64, 64, 2), seed=[0, 1])


def test_drawing_without_replacement_follows_the_weights() -> None:
    rng = np.random.RandomState(0)
    weights = np.array([0.0, 1.0, 2.0, 4.0])
    single = sum(draw_without_replacement(weights, 1, rng).astype(int) for _ in range(4000)) / 4000
    assert np.abs(single - weights / 7).max() < 0.03
    pairs = sum(draw_without_replacement(weights, 2, rng).astype(int) for _ in range(4000)) / 4000
    expected = 4 / 7 + 1 / 7 * 4 / 6 + 2 / 7 * 4 / 5  # the heaviest first, or after either of the others
    assert abs(pairs[3] - expected) < 0.03 and pairs[0] == 0 and pairs.sum() == pytest.approx(2)
