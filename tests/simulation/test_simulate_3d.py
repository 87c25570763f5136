import functools

import numpy as np
import pytest
from helpers import ifftc

from fastmri_ufloss.simulation import simulate
from fastmri_ufloss.simulation.anatomy import draw_knee_volume
from fastmri_ufloss.simulation.simulate import (
    fft3c,
    loop_field,
    simulate_kspace_3d,
    simulate_phase,
    simulate_sens_maps,
)

SHAPE = (64, 52, 40)


def ball(shape=(24, 20, 18)):
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    inside = z**2 + y**2 + x**2 < 0.6
    return (inside * (1 + 0.3 * np.sin(7 * x) * np.cos(5 * y + z))).astype(np.float32)


def scan(volume, **options):
    return np.stack(list(simulate_kspace_3d(volume, **options)))


def sens_maps(num_coils, shape, **options):
    return np.stack(list(simulate_sens_maps(num_coils, shape, **options)))


def alike(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


@functools.cache
def draw_once(seed, contrast):
    return draw_knee_volume(SHAPE, contrast=contrast, seed=seed)


def knee(seed=1, contrast="CORPD_FBK"):
    return draw_once(seed, contrast)


# the volume


@pytest.mark.parametrize(("seed", "contrast"), [(1, "CORPD_FBK"), (2, "CORPD_FBK"), (1, "CORPDFS_FBK")])
def test_volume_has_air_in_front_and_behind(seed, contrast):
    volume = knee(seed, contrast)
    assert volume.shape == SHAPE and volume.dtype == np.float32
    assert np.isfinite(volume).all() and volume.min() == 0 and 0.7 < volume.max() < 1.6
    assert not volume[..., 0].any() and not volume[..., -1].any()
    assert 0.2 < (volume > 0.05).mean() < 0.7
    assert (volume[:, 26, 20] > 0).mean() > 0.9  # the middle is inside all along the readout


def test_limb_is_round():
    """Across the readout it is an ellipse: its area is pi / 4 of the box around it."""
    for plane in knee()[8:-8:8]:
        inside = plane > 0.02
        height, width = (np.ptp(np.flatnonzero(inside.any(axis=axis))) + 1 for axis in (0, 1))
        assert inside.sum() / height / width == pytest.approx(np.pi / 4, abs=0.06)


def test_planes_change_smoothly_along_all_axes():
    """Neighbors are alike, and the farther planes are apart, the less."""
    for axis in range(3):
        planes = np.moveaxis(knee(), axis, 0)
        middle = len(planes) // 2
        correlation = [alike(planes[middle], planes[middle + step]) for step in (1, 3, 8)]
        assert correlation[0] > 0.75 and correlation[0] > correlation[1] > correlation[2], (axis, correlation)


def test_there_is_texture_across_the_readout():
    """(ky, kz) planes are no stripes: inside of the limb, the steps along both axes are of one size."""
    for number in (8, 20, 44, 54):
        inside = knee()[number, 18:34, 12:28]
        rows, cols = (np.abs(np.diff(inside, axis=axis)).mean() for axis in (0, 1))
        assert min(rows, cols) > 0.02 * inside.mean() and 0.4 < cols / rows < 2.5, (number, rows, cols)


def test_volume_depends_on_the_seed_and_the_contrast_only():
    small = [draw_knee_volume((32, 34, 8), seed=1) for _ in range(2)]
    assert np.array_equal(*small)
    assert np.abs(knee() - knee(2)).mean() > 0.05
    assert np.abs(knee() - knee(1, "CORPDFS_FBK")).mean() > 0.05


def test_bad_volumes_are_named():
    for shape in ((31, 40, 40), (40, 40, 7), (40, 40)):
        with pytest.raises(ValueError, match="shape must be"):
            draw_knee_volume(shape)
    with pytest.raises(ValueError, match="contrast must be"):
        draw_knee_volume(SHAPE, contrast="T2")


# maps and phase


@pytest.mark.parametrize(("num_coils", "shape"), [(4, (24, 20, 30)), (8, (40, 33, 27)), (5, (2, 9, 64))])
def test_maps_have_unit_norm_and_are_smooth(num_coils, shape):
    maps = sens_maps(num_coils, shape)
    assert maps.shape == (num_coils, *shape) and maps.dtype == np.complex64
    np.testing.assert_allclose((np.abs(maps) ** 2).sum(axis=0), 1, rtol=1e-5)
    for axis in (1, 2, 3):
        assert np.abs(np.diff(maps, axis=axis)).max() < 8 / max(shape)


def test_maps_are_the_fields_of_the_loops(monkeypatch):
    """At the nodes of the coarse grid, here all voxels of a small one; without jitter."""
    monkeypatch.setattr(simulate, "JITTER", 0)
    shape, num_coils = (12, 20, 16), 4
    places = [(2 * np.arange(size) + 1 - size) / 20 for size in shape]
    z, y, x = np.meshgrid(*places, indexing="ij")
    fields = []
    for coil in range(num_coils):
        angle = 2 * np.pi * coil / num_coils
        direction = np.array([np.cos(angle), np.sin(angle), 0])
        height = (0.6 / 2) * (-1 if coil % 2 == 0 else 1)  # two rings over the readout, from -0.6 to 0.6
        field = loop_field(np.stack([x, y, z], -1), 1.8 * direction + [0, 0, height], -direction, 0.6)
        fields.append(field[..., 0] - 1j * field[..., 1])
    expected = np.stack(fields) / np.sqrt(sum(np.abs(field) ** 2 for field in fields))
    maps = sens_maps(num_coils, shape)
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_interpolated_maps_are_the_field(monkeypatch):
    maps = sens_maps(3, (32, 40, 28))
    monkeypatch.setitem(simulate.COARSE_GRID, 3, 1000)
    np.testing.assert_allclose(maps, sens_maps(3, (32, 40, 28)), atol=1e-3)


def test_coils_see_different_places():
    maps = np.abs(sens_maps(8, (32, 32, 32))).reshape(8, -1)
    assert len(set(np.argmax(maps, axis=1))) == 8
    centers = (maps @ np.repeat(np.arange(32), 32 * 32)) / maps.sum(axis=1)  # along the readout
    assert centers[::2].max() < 15 and centers[1::2].min() > 16


def test_maps_depend_on_the_seed_only():
    maps = sens_maps(4, (20, 24, 18))
    assert np.array_equal(maps, sens_maps(4, (20, 24, 18)))
    assert np.abs(sens_maps(4, (20, 24, 18), seed=1) - maps).max() > 1e-3
    assert np.array_equal(sens_maps(1, (2, 3, 4)), np.ones((1, 2, 3, 4)))


def test_phase_is_smooth():
    phase = simulate_phase((32, 40, 24), strength=0.7, seed=3)
    assert phase.dtype == np.complex64
    np.testing.assert_allclose(np.abs(phase), 1, rtol=1e-6)
    angle = np.angle(phase)
    for axis in (0, 1, 2):
        angle = np.unwrap(angle, axis=axis)
    assert max(np.abs(np.diff(angle, axis=axis)).max() for axis in (0, 1, 2)) < 0.5
    assert angle.std() == pytest.approx(0.7, rel=1e-3)
    assert np.ptp(np.angle(simulate_phase((8, 9, 10), strength=0))) == 0
    assert not np.allclose(phase, simulate_phase((32, 40, 24), strength=0.7, seed=4))


def test_phase_is_the_sum_of_its_waves():
    """Axes of different sizes keep their order: the waves span the phase along each of them."""
    shape = (9, 12, 15)
    phase = np.angle(simulate_phase(shape, strength=0.1, seed=2))
    for axis, size in enumerate(shape):
        waves = np.cos(np.pi * np.outer((np.arange(size) + 0.5) / size, np.arange(4)))
        rest = np.moveaxis(phase, axis, 0).reshape(size, -1)
        rest = rest - waves @ np.linalg.lstsq(waves, rest, rcond=None)[0]
        assert np.abs(rest).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "num_coils", "shape"),
    [("num_coils", 0, (8, 8, 8)), ("shape", 4, (8, 1, 8)), ("shape", 4, (8, 1)), ("shape", 4, (8, 8, 8, 8))],
)
def test_bad_maps_are_named_at_once(name, num_coils, shape):
    with pytest.raises(ValueError, match=f"{name} must be"):
        simulate_sens_maps(num_coils, shape)


# k-space


def test_transforms_are_inverse_and_centered():
    volume = ball((7, 8, 9)) + 0j
    np.testing.assert_allclose(ifftc(fft3c(volume)), volume, atol=1e-6)
    assert np.linalg.norm(fft3c(volume)) == pytest.approx(np.linalg.norm(volume), rel=1e-6)
    flat = fft3c(np.ones((7, 8, 9), dtype=np.complex64))
    assert flat[3, 4, 4] == pytest.approx(np.sqrt(7 * 8 * 9), rel=1e-5) and np.count_nonzero(np.abs(flat) > 1e-4) == 1


def test_noiseless_kspace_is_that_of_image_times_maps():
    volume = ball()
    kspace = scan(volume, snr=np.inf, num_coils=5, phase_strength=0.6, seed=4)
    assert kspace.dtype == np.complex64
    maps = sens_maps(5, volume.shape, seed=4)
    phase = simulate_phase(volume.shape, strength=0.6, seed=4)
    np.testing.assert_allclose(ifftc(kspace), volume * phase * maps, atol=2e-6)
    np.testing.assert_allclose(np.sqrt((np.abs(ifftc(kspace)) ** 2).sum(axis=0)), volume, atol=2e-6)


def test_complex_volume_keeps_its_phase():
    volume = ball() * np.exp(1j * np.linspace(0, 2, 18))
    np.testing.assert_allclose(ifftc(scan(volume, snr=np.inf, num_coils=1)[0]), volume, atol=2e-6)


def test_noise_level():
    volume = 1e-4 * ball((32, 30, 28))
    noise = scan(volume, num_coils=3, snr=20) - scan(volume, num_coils=3, snr=np.inf)
    deviation = np.sqrt((np.abs(noise) ** 2).mean())
    assert volume[volume > 0].mean() / deviation == pytest.approx(20, rel=0.03)
    assert noise.real.std() == pytest.approx(noise.imag.std(), rel=0.03)
    assert np.abs(np.corrcoef(noise.reshape(3, -1)) - np.eye(3)).max() < 0.03
    images = ifftc(noise)
    assert images[:, :16].std() == pytest.approx(images[:, 16:].std(), rel=0.03)  # white
    assert not scan(np.zeros((8, 8, 8)), num_coils=2).any()


def test_coils_come_one_by_one_and_by_the_seed():
    first = simulate_kspace_3d(ball(), num_coils=3, seed=5)
    assert next(first).shape == (24, 20, 18)
    kspace = scan(ball(), num_coils=3, seed=5)
    assert np.array_equal(next(first), kspace[1])
    assert not np.allclose(kspace, scan(ball(), num_coils=3, seed=6), atol=1e-3)
    assert not np.allclose(kspace, scan(ball(), num_coils=3, seed=5, phase_strength=0.2), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "volume", "options"),
    [
        ("volume", np.ones((8, 8)), {}),
        ("volume", np.full((8, 8, 8), np.nan), {}),
        ("snr", ball(), {"snr": 0}),
        ("num_coils", ball(), {"num_coils": 0}),
        ("strength", ball(), {"phase_strength": -1}),
    ],
)
def test_bad_kspace_is_named_at_once(name, volume, options):
    with pytest.raises(ValueError, match=f"{name} must be"):
        simulate_kspace_3d(volume, **options)
