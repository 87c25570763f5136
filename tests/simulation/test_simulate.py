import xml.etree.ElementTree as etree

import fastmri
import h5py
import numpy as np
import pytest
import torch
from fastmri.data import SliceDataset
from fastmri.data.subsample import RandomMaskFunc
from fastmri.data.transforms import VarNetDataTransform
from helpers import simulate_volume

from fastmri_ufloss.simulation import simulate
from fastmri_ufloss.simulation.simulate import loop_field, simulate_kspace, simulate_phase, write_volume


def disc(slices=3, rows=48, cols=40):
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : cols * 1j]
    image = (np.hypot(y, x) < 0.7) * (1 + 0.3 * np.sin(9 * x) * np.cos(7 * y))
    return np.stack([image * (1 + 0.1 * index) for index in range(slices)]).astype(np.float32)


def to_images(kspace):
    """Complex coil images with fastMRI's own transform."""
    return torch.view_as_complex(fastmri.ifft2c(torch.view_as_real(torch.from_numpy(kspace)))).numpy()


def simulate_sens_maps(num_coils, shape, **options):
    return np.stack(list(simulate.simulate_sens_maps(num_coils, shape, **options)))


# coils and phase


@pytest.mark.parametrize("normal", [(0, 0, 1), (1, 0, 0), (1, -2, 0.5)])
def test_field_on_the_axis_of_a_loop(normal):
    radius, center = 0.7, np.array([0.3, -0.2, 1.0])
    direction = np.array(normal) / np.linalg.norm(normal)
    z = np.array([-2, -0.5, 0, 0.1, 1, 5])
    field = loop_field(center + z[:, None] * direction, center, normal, radius)
    expected = radius**2 / (2 * (radius**2 + z**2) ** 1.5)
    np.testing.assert_allclose(field, expected[:, None] * direction, rtol=1e-9, atol=1e-12)


def test_field_far_from_a_loop_is_a_dipole():
    radius, place = 0.05, np.array([3.0, 1.0, 2.0])
    moment = np.pi * radius**2 * np.array([0, 0, 1])
    distance = np.linalg.norm(place)
    unit = place / distance
    dipole = (3 * unit * (unit @ moment) - moment) / (4 * np.pi * distance**3)
    np.testing.assert_allclose(loop_field(place, [0, 0, 0], [0, 0, 1], radius), dipole, rtol=5e-3)


@pytest.mark.parametrize(("num_coils", "shape"), [(2, (48, 40)), (7, (33, 64)), (16, (2, 100))])
def test_maps_have_unit_norm(num_coils, shape):
    maps = simulate_sens_maps(num_coils, shape)
    assert maps.shape == (num_coils, *shape) and maps.dtype == np.complex64
    np.testing.assert_allclose((np.abs(maps) ** 2).sum(axis=0), 1, rtol=1e-5)


def test_one_coil_is_uniform():
    assert np.array_equal(simulate_sens_maps(1, (8, 9)), np.ones((1, 8, 9)))


def test_maps_are_smooth_and_different():
    maps = simulate_sens_maps(6, (96, 96))
    steps = max(np.abs(np.diff(maps, axis=axis)).max() for axis in (1, 2))
    assert steps < 0.06
    flat = maps.reshape(6, -1)
    products = np.abs(flat.conj() @ flat.T)
    norms = np.sqrt(np.diag(products))
    assert (products / norms[:, None] / norms - np.eye(6)).max() < 0.9
    assert np.argmax(np.abs(flat), axis=1).size == len(set(np.argmax(np.abs(flat), axis=1)))


def test_interpolated_maps_are_the_field(monkeypatch):
    """Fields are computed at 48 points a side and interpolated: compare with those at every pixel."""
    maps = simulate_sens_maps(8, (96, 128))
    monkeypatch.setitem(simulate.COARSE_GRID, 2, 1000)
    np.testing.assert_allclose(maps, simulate_sens_maps(8, (96, 128)), atol=2e-4)


def test_maps_depend_on_the_seed_only():
    maps = simulate_sens_maps(4, (20, 24))
    assert np.array_equal(maps, simulate_sens_maps(4, (20, 24)))
    assert np.abs(simulate_sens_maps(4, (20, 24), seed=1) - maps).max() > 1e-3


def test_phase():
    phase = simulate_phase((64, 80), strength=0.8, seed=3)
    np.testing.assert_allclose(np.abs(phase), 1, rtol=1e-6)
    angle = np.unwrap(np.unwrap(np.angle(phase), axis=0), axis=1)
    assert angle.std() == pytest.approx(0.8, rel=1e-3)
    assert max(np.abs(np.diff(angle, axis=axis)).max() for axis in (0, 1)) < 0.3
    assert np.array_equal(phase, simulate_phase((64, 80), strength=0.8, seed=3))
    assert not np.allclose(phase, simulate_phase((64, 80), strength=0.8, seed=4))
    assert np.ptp(np.angle(simulate_phase((64, 80), strength=0))) == 0


# k-space


def test_noiseless_kspace_gives_the_image_back():
    images = disc()
    kspace = simulate_kspace(images, snr=np.inf, num_coils=5)
    assert kspace.shape == (3, 5, 48, 40) and kspace.dtype == np.complex64
    rss = np.sqrt((np.abs(to_images(kspace)) ** 2).sum(axis=1))
    np.testing.assert_allclose(rss, images, atol=2e-6)


def test_complex_images_keep_their_phase():
    images = disc() * np.exp(1j * np.linspace(0, 3, 40))
    back = to_images(simulate_kspace(images, snr=np.inf, num_coils=None))
    assert back.shape == (3, 48, 40)
    np.testing.assert_allclose(back, images, atol=2e-6)
    phased = to_images(simulate_kspace(disc(), snr=np.inf, num_coils=None, seed=4))
    np.testing.assert_allclose(phased, disc() * simulate_phase((48, 40), seed=4), atol=2e-6)


@pytest.mark.parametrize("num_coils", [None, 4])
def test_noise_level(num_coils):
    images = 1e-4 * disc(rows=64, cols=64)
    object_mean = images[images > 0].mean()
    clean = simulate_kspace(images, num_coils=num_coils, snr=np.inf)
    noise = to_images(simulate_kspace(images, num_coils=num_coils, snr=20) - clean)
    deviation = np.sqrt((np.abs(noise) ** 2).mean())
    assert object_mean / deviation == pytest.approx(20, rel=0.03)
    assert noise.real.std() == pytest.approx(noise.imag.std(), rel=0.05)
    # white: as strong in the corners of k-space as in its center
    power = np.abs(np.fft.fft2(noise, norm="ortho")) ** 2
    assert power[..., :16, :16].mean() == pytest.approx(power[..., 16:48, 16:48].mean(), rel=0.15)
    background = to_images(simulate_kspace(images, num_coils=num_coils, snr=20))[..., :8, :8]
    assert np.sqrt((np.abs(background) ** 2).mean()) == pytest.approx(deviation, rel=0.1)


def test_noise_of_coils_is_independent():
    images = disc(rows=64, cols=64)
    noise = simulate_kspace(images, num_coils=4, snr=1) - simulate_kspace(images, num_coils=4, snr=np.inf)
    flat = noise.transpose(1, 0, 2, 3).reshape(4, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(4)).max() < 0.03


def test_seed_fixes_kspace():
    first = simulate_kspace(disc(), seed=5)
    assert np.array_equal(first, simulate_kspace(disc(), seed=5))
    assert not np.allclose(first, simulate_kspace(disc(), seed=6), atol=1e-3)
    assert not np.allclose(first, simulate_kspace(disc(), seed=5, phase_strength=0.2), atol=1e-3)


def test_empty_images_have_no_noise():
    assert not simulate_kspace(np.zeros((1, 8, 8)), num_coils=2).any()


# volumes


@pytest.fixture(params=["singlecoil", "multicoil"])
def challenge(request):
    return request.param


def coils_of(challenge):
    return 4 if challenge == "multicoil" else None


def test_fastmri_reads_a_volume(tmp_path, challenge):
    simulate_volume(
        tmp_path / "a.h5",
        disc(),
        num_coils=coils_of(challenge),
        recon_size=(32, 24),
        acquisition="CORPDFS_FBK",
        patient_id="me",
    )
    data = SliceDataset(tmp_path, challenge)
    assert len(data) == 3
    kspace, mask, target, attributes, name, number = data[1]
    expected = simulate_kspace(disc(), num_coils=coils_of(challenge))
    assert np.array_equal(kspace, expected[1])
    assert (mask, name, number) == (None, "a.h5", 1)
    assert (attributes["padding_left"], attributes["padding_right"]) == (0, 40)
    assert attributes["encoding_size"] == (48, 40, 1) and attributes["recon_size"] == (32, 24, 1)
    assert attributes["acquisition"] == "CORPDFS_FBK" and attributes["patient_id"] == "me"
    images = torch.from_numpy(np.abs(to_images(expected)))
    images = fastmri.rss(images, dim=1) if challenge == "multicoil" else images
    images = fastmri.data.transforms.center_crop(images, (32, 24)).numpy()
    assert target.dtype == np.float32
    np.testing.assert_allclose(target, images[1], rtol=1e-4, atol=1e-6)
    assert attributes["max"] == pytest.approx(images.max(), rel=1e-5)
    assert attributes["norm"] == pytest.approx(np.linalg.norm(images), rel=1e-5)


@pytest.mark.parametrize("cols", [40, 41])
def test_varnet_transform_masks_a_volume(tmp_path, cols):
    simulate_volume(tmp_path / "a.h5", disc(cols=cols), num_coils=3, recon_size=(31, 30))
    transform = VarNetDataTransform(RandomMaskFunc([0.1], [4]))
    sample = SliceDataset(tmp_path, "multicoil", transform=transform)[0]
    assert sample.masked_kspace.shape == (3, 48, cols, 2) and sample.mask.shape == (1, 1, cols, 1)
    assert 0 < int(sample.mask.sum()) < cols // 2
    assert sample.crop_size == (31, 30) and sample.target.shape == (31, 30)
    outside = sample.masked_kspace * ~sample.mask
    assert not outside.any()


def test_masked_volume_is_like_a_test_file(tmp_path):
    mask = np.arange(40) % 3 == 0
    simulate_volume(tmp_path / "a.h5", disc(), num_coils=2, mask=mask)
    with h5py.File(tmp_path / "a.h5") as volume:
        assert sorted(volume) == ["ismrmrd_header", "kspace", "mask"]
        assert sorted(volume.attrs) == ["acquisition", "patient_id"]
    full = simulate_kspace(disc(), num_coils=2)
    sample = SliceDataset(tmp_path, "multicoil", transform=VarNetDataTransform())[2]
    kspace = torch.view_as_complex(sample.masked_kspace).numpy()
    assert np.array_equal(kspace, full[2] * mask)
    assert np.array_equal(sample.mask.numpy().ravel(), mask)


def test_further_attributes_and_datasets(tmp_path):
    extras = {"attributes": {"field_strength": 3.0}, "datasets": {"sens_maps": np.ones((2, 3))}}
    simulate_volume(tmp_path / "a.h5", disc(), **extras)
    with h5py.File(tmp_path / "a.h5") as volume:
        assert volume.attrs["field_strength"] == 3.0 and volume["sens_maps"].shape == (2, 3)
    with pytest.raises(ValueError, match="kspace"):
        simulate_volume(tmp_path / "a.h5", disc(), datasets={"kspace": np.ones(3)})
    with pytest.raises(ValueError, match="other names than the volume's own, got"):
        simulate_volume(tmp_path / "a.h5", disc(), attributes={"max": 1.0})


def test_header(tmp_path):
    simulate_volume(tmp_path / "a.h5", disc(), recon_size=(24, 20), voxel_size=(0.5, 0.5, 4.5))
    with h5py.File(tmp_path / "a.h5") as volume:
        header = volume["ismrmrd_header"][()]
    space = {"i": "http://www.ismrm.org/ISMRMRD"}
    root = etree.fromstring(header)
    assert root.tag == "{http://www.ismrm.org/ISMRMRD}ismrmrdHeader"
    step = root.find("i:encoding/i:encodingLimits/i:kspace_encoding_step_1", space)
    assert [int(part.text) for part in step] == [0, 39, 20]
    assert root.findtext("i:encoding/i:trajectory", namespaces=space) == "cartesian"
    sizes = root.find("i:encoding/i:reconSpace/i:fieldOfView_mm", space)
    assert [float(size.text) for size in sizes][:2] == [12, 10]


def test_header_is_valid_ismrmrd(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    simulate_volume(tmp_path / "a.h5", disc())
    with h5py.File(tmp_path / "a.h5") as volume:
        header = ismrmrd.xsd.CreateFromDocument(volume["ismrmrd_header"][()])
    encoding = header.encoding[0]
    assert (encoding.encodedSpace.matrixSize.x, encoding.encodedSpace.matrixSize.y) == (48, 40)
    assert encoding.encodingLimits.kspace_encoding_step_1.maximum == 39
    assert encoding.trajectory.value == "cartesian"


def test_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_volume(tmp_path / "a.h5", simulate_kspace(disc()), datasets={"zzz": object()})
    assert list(tmp_path.iterdir()) == []


def test_write_that_fails_keeps_the_old_file(tmp_path):
    simulate_volume(tmp_path / "a.h5", disc())
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(TypeError):
        write_volume(tmp_path / "a.h5", simulate_kspace(disc()), attributes={"zzz": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    assert (tmp_path / "a.h5").read_bytes() == before


NAN = np.full((1, 8, 8), np.nan)


@pytest.mark.parametrize(
    ("name", "images", "options"),
    [
        ("images", NAN, {}),
        ("images", np.ones((8, 8)), {}),
        ("images", np.ones((0, 8, 8)), {}),
        ("num_coils", disc(), {"num_coils": 0}),
        ("snr", disc(), {"snr": 0}),
        ("snr", disc(), {"snr": float("nan")}),
        ("strength", disc(), {"phase_strength": -1}),
        ("recon_size", disc(), {"recon_size": (49, 40)}),
        ("recon_size", disc(), {"recon_size": (0, 40)}),
        ("mask", disc(), {"mask": np.ones(39)}),
        ("voxel_size", disc(), {"voxel_size": (1.0, 0.0, 1.0)}),
    ],
)
def test_bad_input_is_named(tmp_path, name, images, options):
    with pytest.raises(ValueError, match=f"{name} must be"):
        simulate_volume(tmp_path / "a.h5", images, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kspace", [np.ones((2, 8, 8)), np.ones((8, 8), dtype=complex), NAN + 0j])
def test_bad_kspace_is_named(tmp_path, kspace):
    with pytest.raises(ValueError, match="kspace must be"):
        write_volume(tmp_path / "a.h5", kspace)
