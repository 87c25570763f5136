import h5py
import numpy as np
import pytest
from fastmri.data import SliceDataset
from helpers import DATA, needs_data

from fastmri_ufloss.convert.arrays import convert_numpy
from fastmri_ufloss.convert.volumes import transform_readout
from fastmri_ufloss.data.index import read_metadata
from fastmri_ufloss.simulation.simulate import simulate_kspace
from fastmri_ufloss.simulation.volume_file import fft2c, ifft2c


def random_images(*shape, seed=0):
    """Complex noise: it has no symmetry."""
    real = np.random.default_rng(seed).standard_normal((*shape, 2), dtype=np.float32)
    return real.view(np.complex64)[..., 0]


def convert(folder, array, **options):
    """The k-space and the names of the volume of an array."""
    np.save(folder / "scan.npy", array)
    convert_numpy(folder / "scan.npy", folder / "scan.h5", **options)
    with h5py.File(folder / "scan.h5") as volume:
        return volume["kspace"][()], set(volume)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, ">c8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_kspace_is_kept(tmp_path, dtype, order):
    images = random_images(3, 2, 11, 8)
    kspace, names = convert(tmp_path, np.asarray(fft2c(images), dtype=dtype, order=order))
    np.testing.assert_allclose(ifft2c(kspace), images, atol=1e-5)
    assert names == {"kspace", "ismrmrd_header", "reconstruction_rss"}


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((6, 5), None, (1, 6, 5)),
        ((4, 6, 5), None, (1, 4, 6, 5)),
        ((3, 4, 6, 5), None, (3, 4, 6, 5)),
        ((6, 5, 4), "rows, cols, coils", (1, 4, 6, 5)),
        ((5, 6, 3, 4), "cols,rows,slices,coils", (3, 4, 6, 5)),
        ((5, 3, 6), "cols,slices,rows", (3, 6, 5)),
    ],
)
def test_axes_of_kspace(tmp_path, shape, axes, expected):
    array = random_images(*shape)
    kspace, names = convert(tmp_path, array, axes=axes)
    given = ("rows,cols" if axes is None else axes).replace(" ", "").split(",")
    order = [given.index(name) for name in ("slices", "coils", "rows", "cols") if name in given]
    np.testing.assert_array_equal(kspace, (array if axes is None else array.transpose(order)).reshape(expected))
    assert ("reconstruction_rss" in names) == (len(expected) == 4)
    assert ("reconstruction_esc" in names) == (len(expected) == 3)


@pytest.mark.parametrize("axes", ["coils,readout,rows,cols", "rows,cols,coils,readout"])
def test_3d_kspace_is_transformed_along_the_readout(tmp_path, axes):
    images = random_images(7, 2, 9, 8)
    names = ("readout", "coils", "rows", "cols")
    kspace = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(fft2c(images), 0), axis=0, norm="ortho"), 0)
    found, _ = convert(tmp_path, kspace.transpose([names.index(name) for name in axes.split(",")]), axes=axes)
    np.testing.assert_allclose(ifft2c(found), images, atol=1e-5)


def test_magnitude_images_are_simulated(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (2, 16, 12), dtype=np.uint8)
    options = {"num_coils": 3, "snr": 20.0, "phase_strength": 0.5, "seed": 4}
    kspace, names = convert(tmp_path, images, **options)
    np.testing.assert_array_equal(kspace, simulate_kspace(images.astype(np.float32), **options))
    assert "reconstruction_rss" in names
    for name, value in {"num_coils": 4, "snr": 10.0, "phase_strength": 2.0, "seed": 5}.items():
        other, _ = convert(tmp_path, images, **{**options, name: value})
        assert other.shape != kspace.shape or not np.array_equal(other, kspace), name
    single, names = convert(tmp_path, images[0], num_coils=None, snr=np.inf, phase_strength=0.0)
    np.testing.assert_allclose(ifft2c(single)[0], images[0], atol=1e-3)
    assert "reconstruction_esc" in names


def test_complex_images_keep_their_phase(tmp_path):
    images = random_images(12, 16, 2)
    kspace, _ = convert(tmp_path, images, kind="image", axes="rows,cols,slices", num_coils=None, snr=np.inf)
    np.testing.assert_allclose(ifft2c(kspace), images.transpose(2, 0, 1), atol=1e-5)


def test_archives(tmp_path):
    kspace, images = random_images(2, 8, 8), np.ones((2, 8, 8), dtype=np.uint8)
    source, output = tmp_path / "scan.npz", tmp_path / "scan.h5"

    def found(arrays, **options):
        np.savez_compressed(source, **arrays)
        convert_numpy(source, output, **options)
        with h5py.File(output) as volume:
            return volume["kspace"].shape

    assert found({"anything": kspace}) == (1, 2, 8, 8)
    assert found({"kspace": kspace, "names": np.array(["a"])}) == (1, 2, 8, 8)
    assert found({"images": images, "names": np.array(["a"])}, num_coils=None) == (2, 8, 8)
    assert found({"images": images, "kspace": kspace}, key="kspace") == (1, 2, 8, 8)
    for arrays, key in (({"images": images, "kspace": kspace}, None), ({"a": kspace, "b": kspace}, None)):
        with pytest.raises(ValueError, match=r"scan.npz must have an array named .* name its key"):
            found(arrays, key=key)
    with pytest.raises(ValueError, match=r"scan.npz must have an array named other, got a"):
        found({"a": kspace}, key="other")


def test_undersampled_kspace_gets_its_mask(tmp_path):
    points = np.random.default_rng(0).random((16, 12)) < 0.4
    points[5:11, 3:9] = True
    full = random_images(2, 3, 16, 12)
    kspace, names = convert(tmp_path, full * points)
    np.testing.assert_array_equal(kspace, full * points)
    assert names == {"kspace", "ismrmrd_header", "mask"}
    with h5py.File(tmp_path / "scan.h5") as volume:
        np.testing.assert_array_equal(volume["mask"], points)


@pytest.mark.parametrize("shape", [(12,), (16, 12)])
def test_mask_of_a_file(tmp_path, shape):
    mask = np.random.default_rng(0).random(shape) < 0.5
    mask[..., 4:8] = True
    np.save(tmp_path / "mask.npy", mask.astype(np.uint8))
    full = random_images(2, 3, 16, 12)
    kspace, names = convert(tmp_path, full, mask=tmp_path / "mask.npy")
    np.testing.assert_array_equal(kspace, full * mask)
    assert "mask" in names and "reconstruction_rss" not in names
    np.save(tmp_path / "mask.npy", np.ones(5))
    with pytest.raises(ValueError, match=r"scan.npy: mask must be of shape"):
        convert(tmp_path, full, mask=tmp_path / "mask.npy")
    np.save(tmp_path / "mask.npy", np.full(12, np.nan))
    with pytest.raises(ValueError, match=r"mask must be zeros and ones, got .*mask.npy"):
        convert(tmp_path, full, mask=tmp_path / "mask.npy")


def test_noise_whitens_the_coils(tmp_path):
    mixing = random_images(3, 3, seed=1)
    noise, scan = np.tensordot(mixing, random_images(3, 2, 20000, seed=2), 1), random_images(3, 200, 100, seed=3)
    np.save(tmp_path / "noise.npy", noise)
    kspace, _ = convert(tmp_path, np.tensordot(mixing, scan, 1), noise=tmp_path / "noise.npy")
    covariance = np.cov(kspace.reshape(3, -1))
    np.testing.assert_allclose(covariance, np.eye(3), atol=0.03)
    for array, message in (
        (random_images(4, 8, 8), r"scan.npy: noise must be of shape \(4, ...\), got \(3, 2, 20000\) in .*noise.npy"),
        (random_images(8, 8), "noise must be left out"),
        (np.ones((2, 8, 8)), "noise must be left out"),
    ):
        with pytest.raises(ValueError, match=message):
            convert(tmp_path, array, noise=tmp_path / "noise.npy")
    np.save(tmp_path / "noise.npy", noise[:, 0, :2])
    with pytest.raises(ValueError, match=r"noise.npy: noise must be of more samples"):
        convert(tmp_path, random_images(3, 8, 8), noise=tmp_path / "noise.npy")


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.ones((2, 2, 2, 8, 8), np.complex64), {}, "name its axes"),
        (np.ones((8, 8), np.complex64), {"axes": "coils,rows,cols"}, "axes must be 2 names"),
        (np.ones((2, 8, 8), np.complex64), {"axes": "coil,rows,cols"}, "axes of k-space must be rows, cols"),
        (np.ones((2, 8, 8), np.complex64), {"axes": "rows,rows,cols"}, "axes of k-space must be rows, cols"),
        (np.ones((2, 2, 8, 8), np.complex64), {"axes": "slices,readout,rows,cols"}, "slices or readout"),
        (np.ones((2, 8, 8)), {"axes": "coils,rows,cols"}, "axes of images must be rows, cols"),
        (np.ones((2, 8, 8)), {"kind": "kspace"}, "k-space must be complex, got float64"),
        (np.ones((2, 8, 8)), {"kind": "raw"}, "kind must be one of auto, kspace, image"),
        (np.full((2, 8, 8), np.nan + 0j), {}, "scan.npy: kspace must be finite"),
        (np.full((2, 8, 8), np.inf), {}, "scan.npy: images must be finite"),
        (np.zeros((2, 8, 8), np.complex64), {}, "scan.npy: k-space must have a signal"),
        (np.array(["text"]), {}, "scan.npy: the array must be of numbers"),
        (np.ones((2, 8, 8)), {"num_coils": 0}, "scan.npy: num_coils must be at least 1"),
    ],
)
def test_bad_arrays_are_named(tmp_path, array, options, message):
    with pytest.raises(ValueError, match=message):
        convert(tmp_path, array, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npy"]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_broken_files_are_named(tmp_path, suffix):
    source = tmp_path / f"scan{suffix}"
    (np.save if suffix == ".npy" else np.savez)(source, random_images(2, 8, 8))
    whole = source.read_bytes()
    for content in (whole[:-200], whole[:20], b"", b"nonsense" * 100):
        source.write_bytes(content)
        with pytest.raises(ValueError, match=f"scan{suffix} is not a NumPy file"):
            convert_numpy(source, tmp_path / "scan.h5")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects.npy is not a NumPy file of numbers"):
        convert_numpy(tmp_path / "objects.npy", tmp_path / "scan.h5")
    with pytest.raises(FileNotFoundError):
        convert_numpy(tmp_path / f"none{suffix}", tmp_path / "scan.h5")


@needs_data()
@pytest.mark.parametrize("name", ["invivo_brain_16ch", "phantom_16ch", "phantom_32ch", "phantom_b_16ch"])
def test_real_kspace_is_fully_sampled(tmp_path, name):
    source = DATA / "multicoil" / f"{name}.npy"
    convert_numpy(source, tmp_path / f"{name}.h5")
    kspace, mask, target, attrs, *_ = SliceDataset(tmp_path, "multicoil")[0]
    np.testing.assert_array_equal(kspace, np.load(source))
    assert mask is None and target.shape == kspace.shape[1:]
    assert attrs["max"] == pytest.approx(target.max())


@needs_data()
def test_real_poisson_disk(tmp_path):
    source = DATA / "undersampled" / "brain_8ch_poisson8x.npy"
    convert_numpy(source, tmp_path / "brain.h5")
    original = np.load(source)
    kspace, mask, target, *_ = SliceDataset(tmp_path, "multicoil")[0]
    np.testing.assert_array_equal(kspace, original)
    np.testing.assert_array_equal(mask, (original != 0).any(axis=0))
    assert mask.shape == (230, 180) and target is None
    assert read_metadata(tmp_path / "brain.h5", "multicoil")["kspace_shape"] == [1, 8, 230, 180]


@needs_data()
def test_real_noise_is_whitened(tmp_path):
    noise = DATA / "multicoil" / "noise_b_16ch.npy"
    convert_numpy(noise, tmp_path / "noise.h5", noise=noise)
    with h5py.File(tmp_path / "noise.h5") as volume:
        samples = volume["kspace"][0].reshape(16, -1)
    np.testing.assert_allclose(samples @ samples.conj().T / samples.shape[1], np.eye(16), atol=1e-3)


@needs_data()
def test_real_images(tmp_path):
    convert_numpy(DATA / "sunnybrook" / "SC-N-02.npz", tmp_path / "heart.h5", num_coils=4)
    images = np.load(DATA / "sunnybrook" / "SC-N-02.npz")["images"]
    data = SliceDataset(tmp_path, "multicoil")
    assert len(data) == len(images)
    kspace, _, target, *_ = data[3]
    assert kspace.shape == (4, 256, 256)
    assert np.corrcoef(target.ravel(), images[3].ravel())[0, 1] > 0.99


def test_readout_positions_are_whole_slices():
    kspace = random_images(5, 6, 7)
    assert [one.shape for one in transform_readout(kspace, max_memory=1)] == [(6, 7)] * 5
