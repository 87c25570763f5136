import shutil
import subprocess

import h5py
import numpy as np
import pytest
from fastmri.data import SliceDataset

from fastmri_ufloss.convert.arrays import convert_bart, open_cfl
from fastmri_ufloss.convert.volumes import scan_sampling, transform_readout
from fastmri_ufloss.data.index import read_metadata
from fastmri_ufloss.data.sampling import find_sampling, padding_of
from fastmri_ufloss.simulation.volume_file import fft2c, ifft2c


def random_images(*shape, seed=0):
    """Complex noise: it has no symmetry."""
    real = np.random.default_rng(seed).standard_normal((*shape, 2), dtype=np.float32)
    return real.view(np.complex64)[..., 0]


def write_cfl(path, array, *, comment="# Command\nwritten by a test\n"):
    """The documented layout: the first dimension runs fastest."""
    array = array.reshape(array.shape + (1,) * (16 - array.ndim))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, array.shape))} \n{comment}")
    array.astype("<c8").ravel(order="F").tofile(path)
    return path


def in_dimensions(array, names):
    """An array with its axes, named by BART's numbers, in their places."""
    sizes = [1] * 16
    for axis, size in zip(names, array.shape, strict=True):
        sizes[axis] = size
    return array.transpose(np.argsort(names)).reshape(sizes)


def bart(folder, *words):
    subprocess.run(["bart", *map(str, words)], cwd=folder, check=True, capture_output=True)


needs_bart = pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")


@pytest.mark.parametrize("shape", [(3, 2, 12, 10), (1, 1, 9, 14), (2, 3, 11, 7)])
def test_slices_in_the_documented_layout(tmp_path, shape):
    images = random_images(*shape)
    source = write_cfl(tmp_path / "scan.cfl", in_dimensions(fft2c(images), (13, 3, 0, 1)))
    convert_bart(source, tmp_path / "out" / "scan.h5", acquisition="AXT2", attributes={"more": "yes"})
    with h5py.File(tmp_path / "out" / "scan.h5") as volume:
        assert volume["kspace"].shape == shape and "mask" not in volume
        np.testing.assert_allclose(ifft2c(volume["kspace"][()]), images, atol=1e-5)
        expected = np.sqrt((np.abs(images) ** 2).sum(axis=1))
        np.testing.assert_allclose(volume["reconstruction_rss"][()], expected, rtol=1e-4)
        attributes = {name: volume.attrs[name] for name in ("acquisition", "more", "source_format")}
    assert attributes == {"acquisition": "AXT2", "more": "yes", "source_format": "BART"}
    assert len(SliceDataset(tmp_path / "out", "multicoil")) == shape[0]


@pytest.mark.parametrize("max_memory", [1, 3 * 8 * 2 * 9 * 8, 2**30])
@pytest.mark.parametrize("readout", [10, 11])
def test_a_3d_scan_becomes_slices_along_the_readout(tmp_path, readout, max_memory):
    images = random_images(readout, 2, 9, 8)
    axes = (0, 2, 3)
    kspace = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(images, axes), axes=axes, norm="ortho"), axes)
    source = write_cfl(tmp_path / "scan.cfl", in_dimensions(kspace, (0, 3, 1, 2)))
    convert_bart(source, tmp_path / "scan.h5", max_memory=max_memory)
    with h5py.File(tmp_path / "scan.h5") as volume:
        np.testing.assert_allclose(ifft2c(volume["kspace"][()]), images, atol=1e-5)


def test_blocks_do_not_change_a_bit():
    kspace = random_images(20, 3, 6, 50)
    whole, blocks = (np.stack(list(transform_readout(kspace, max_memory=size))) for size in (2**30, 4 * 8 * 3 * 300))
    np.testing.assert_array_equal(whole, blocks)
    np.testing.assert_allclose(np.linalg.norm(whole), np.linalg.norm(kspace), rtol=1e-5)


@needs_bart
@pytest.mark.parametrize("size", [(24, 20), (23, 17)])
def test_slices_of_bart_itself(tmp_path, size):
    rows, cols = size
    for number in range(2):
        bart(tmp_path, "phantom", "-x", 32, "-s", 3, "phantom")
        bart(tmp_path, "circshift", number, 4, "phantom", "shifted")  # no two slices are alike, none is symmetric
        bart(tmp_path, "resize", "-c", 0, rows, 1, cols, "shifted", f"slice{number}")
    bart(tmp_path, "join", 13, "slice0", "slice1", "images")
    bart(tmp_path, "fft", "-u", 3, "images", "scan")
    images = open_cfl(tmp_path / "images.cfl")[:, :, 0, :, 0, 0, 0, 0, 0, 0, 0, 0, 0, :, 0, 0]
    assert images.shape == (rows, cols, 3, 2)
    convert_bart(tmp_path / "scan.cfl", tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5") as volume:
        found = ifft2c(volume["kspace"][()])
    np.testing.assert_allclose(found, images.transpose(3, 2, 0, 1), atol=1e-5 * np.abs(images).max())


@needs_bart
def test_a_3d_scan_of_bart_itself(tmp_path):
    bart(tmp_path, "phantom", "-3", "-x", 20, "-s", 2, "phantom")
    bart(tmp_path, "resize", "-c", 0, 18, 1, 15, 2, 13, "phantom", "images")
    bart(tmp_path, "fft", "-u", 7, "images", "scan")
    images = open_cfl(tmp_path / "images.cfl").reshape(18, 15, 13, 2)
    convert_bart(tmp_path / "scan.cfl", tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5") as volume:
        found = ifft2c(volume["kspace"][()])
    np.testing.assert_allclose(found, images.transpose(0, 3, 1, 2), atol=1e-5 * np.abs(images).max())


@needs_bart
def test_poisson_disk_of_bart_itself(tmp_path):
    bart(tmp_path, "poisson", "-Y", 24, "-Z", 20, "-y", 2, "-z", 2, "-C", 6, "-e", "pattern")
    pattern = open_cfl(tmp_path / "pattern.cfl").reshape(24, 20) != 0
    kspace = random_images(8, 2, 24, 20) * pattern
    convert_bart(write_cfl(tmp_path / "scan.cfl", in_dimensions(kspace, (0, 3, 1, 2))), tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5") as volume:
        np.testing.assert_array_equal(volume["mask"], pattern)


def test_undersampled_kspace_gets_its_mask(tmp_path):
    columns = np.zeros(20, dtype=bool)
    columns[2:17:3] = columns[8:12] = True
    kspace = fft2c(random_images(2, 3, 16, 20)) * columns
    convert_bart(write_cfl(tmp_path / "scan.cfl", in_dimensions(kspace, (13, 3, 0, 1))), tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5") as volume:
        np.testing.assert_array_equal(volume["mask"], columns)
        np.testing.assert_array_equal(volume["kspace"], kspace)
        assert "reconstruction_rss" not in volume and "max" not in volume.attrs
    metadata = read_metadata(tmp_path / "scan.h5", "multicoil")
    assert (metadata["padding_left"], metadata["padding_right"]) == (2, 15)


def test_zero_filled_kspace_is_full(tmp_path):
    kspace = fft2c(random_images(1, 2, 16, 20))
    kspace[..., :5] = kspace[..., :3, :] = 0  # partial Fourier, asymmetric echo
    convert_bart(write_cfl(tmp_path / "scan.cfl", in_dimensions(kspace, (13, 3, 0, 1))), tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5") as volume:
        assert "mask" not in volume and "reconstruction_rss" in volume
    metadata = read_metadata(tmp_path / "scan.h5", "multicoil")
    assert (metadata["padding_left"], metadata["padding_right"]) == (5, 20)


def test_sampling_that_counts_as_full():
    y, x = np.mgrid[-15:16, -20:21]
    ellipse = (y / 15) ** 2 + (x / 20) ** 2 <= 1
    for sampled in (np.ones((5, 6)), ellipse, ellipse * (x > -7), np.eye(1, 9, 4)):
        assert find_sampling(sampled) is None
    large = np.ones((200, 200), dtype=bool)
    large[50, 60] = large[120, 30] = False  # two of 40000 points are zero by chance
    assert find_sampling(large) is None
    large[:, 40] = False  # a line never is
    assert find_sampling(large).shape == (200,)


def test_masks_of_undersampling():
    columns = np.arange(12) % 3 == 0
    points = np.zeros((10, 12), dtype=bool)
    points[2:9] = columns
    np.testing.assert_array_equal(find_sampling(points), columns)  # rows above and below are zero-filled
    points[3] = False
    np.testing.assert_array_equal(find_sampling(points), points)
    np.testing.assert_array_equal(find_sampling(points.T), points.T)
    assert padding_of(columns) == padding_of(points) == (0, 10)


def test_sampling_that_is_refused():
    with pytest.raises(ValueError, match="zeros only"):
        find_sampling(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="zeros only"):
        scan_sampling(np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="leave out the center"):
        padding_of(np.arange(10) > 6)
    kspace = random_images(3, 2, 8, 8)
    kspace[0] = 0  # an empty slice does not count
    assert scan_sampling(kspace).all()
    kspace[2, :, :, 3] = 0
    with pytest.raises(ValueError, match="slice 2 has 56 of the 64 points"):
        scan_sampling(kspace)


@pytest.mark.parametrize(
    ("dimension", "name"), [(4, "maps"), (5, "echo time"), (10, "time"), (14, "averages"), (15, "batches")]
)
def test_other_dimensions_are_refused_by_name(tmp_path, dimension, name):
    source = write_cfl(tmp_path / "scan.cfl", in_dimensions(random_images(8, 8, 2), (0, 1, dimension)))
    with pytest.raises(ValueError, match=rf"scan.cfl: dimension {dimension} \({name}\) must be 1, got 2"):
        convert_bart(source, tmp_path / "scan.h5")


def test_slabs_are_refused(tmp_path):
    source = write_cfl(tmp_path / "scan.cfl", in_dimensions(random_images(4, 4, 4, 2), (0, 1, 2, 13)))
    with pytest.raises(ValueError, match="only one of"):
        convert_bart(source, tmp_path / "scan.h5")


def test_broken_files_are_named(tmp_path):
    output = tmp_path / "out" / "scan.h5"
    source = write_cfl(tmp_path / "scan.cfl", random_images(8, 8, 1, 2))
    header = source.with_suffix(".hdr")
    data, text = source.read_bytes(), header.read_text()
    source.write_bytes(data[:-8])
    with pytest.raises(ValueError, match=r"scan.cfl must have 1024 bytes .* got 1016"):
        convert_bart(source, output)
    source.write_bytes(data)
    for broken in ("8 8 1 2\n", "# Dimensions\n8 x\n", "# Dimensions\n", "# Dimensions\n8 0 1\n"):
        header.write_text(broken)
        with pytest.raises(ValueError, match=r"scan.hdr"):
            convert_bart(source, output)
    header.unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*scan.hdr"):
        convert_bart(source, output)
    header.write_text(text)
    source.unlink()
    with pytest.raises(FileNotFoundError, match=r"No such file .*scan.cfl"):
        convert_bart(source, output)
    bad = random_images(8, 8, 1, 2)
    bad[3, 3] = np.nan
    with pytest.raises(ValueError, match=r"scan.cfl: kspace must be finite"):
        convert_bart(write_cfl(source, bad), output)
    assert not output.exists() and not list(output.parent.glob(".*"))


def test_header_with_fewer_dimensions(tmp_path):
    source = write_cfl(tmp_path / "scan.cfl", fft2c(random_images(8, 6)))
    source.with_suffix(".hdr").write_text("# Creator\nmatlab\n# Dimensions\n8 6\n")
    convert_bart(source, tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5") as volume:
        assert volume["kspace"].shape == (1, 1, 8, 6)
