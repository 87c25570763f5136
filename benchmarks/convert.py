"""Every format into fastMRI volumes: size, error of the image, and throughput, by the command a user types.

    python benchmarks/convert.py --work FOLDER [--json FILE]

For each format a file is made of known complex images with that format's own library, and converted with
`python -m fastmri_ufloss.convert`. The image of the converted k-space is compared with the original at every
pixel. Simulated formats (NIfTI, DICOM, magnitude arrays) are compared without coils and noise, and timed with
8 coils. For ISMRMRD the time of reading the same file with `ismrmrd.Dataset`, acquisition by acquisition, is beside.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import nibabel
import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from fastmri_ufloss.report import format_table
from fastmri_ufloss.simulation.mrd_file import write_mrd
from fastmri_ufloss.simulation.simulate import fft3c
from fastmri_ufloss.simulation.volume_file import fft2c, ifft2c

COILS, SLICES, ROWS, COLS = 8, 20, 320, 256  # 105 MB of k-space in 2D
READOUT, KY, KZ = 160, 128, 96  # 126 MB in 3D
NOISELESS = ["--num_coils", "0", "--snr", "inf"]


def smooth_images(*shape: int) -> np.ndarray:
    """Complex images without any symmetry, so that a flip, shift, transpose or conjugation shows."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape[1:]), indexing="ij")
    images = np.empty(shape, dtype=np.complex64)
    for image in images:
        waves = sum(np.cos(rng.normal(0, 4, len(axes)) @ np.stack([a.ravel() for a in axes]) + 1) for _ in range(5))
        image[...] = (waves * np.exp(1j * rng.normal(0, 1) + 1j * axes[0].ravel())).reshape(shape[1:])
    return images


def magnitudes(*shape: int) -> np.ndarray:
    return np.round(200 * np.abs(smooth_images(*shape))).astype(np.int16)


def write_cfl(path: Path, array: np.ndarray, dims: tuple[int, ...]) -> None:
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, dims)) + "\n")
    array.astype(np.complex64).ravel(order="F").tofile(path)


def make_ismrmrd_2d(folder: Path) -> tuple[Path, np.ndarray]:
    images = smooth_images(SLICES, COILS, ROWS, COLS)
    kspace = fft2c(images).transpose(1, 2, 3, 0)  # (coils, readout, ky, slices)
    write_mrd(folder / "scan.h5", kspace, oversampling=2, multislice=True, order_seed=1)
    return folder / "scan.h5", images


def make_ismrmrd_3d(folder: Path) -> tuple[Path, np.ndarray]:
    images = smooth_images(COILS, READOUT, KY, KZ)
    write_mrd(folder / "scan.h5", fft3c(images), oversampling=2, order_seed=1)
    return folder / "scan.h5", images.swapaxes(0, 1)


def make_bart(folder: Path) -> tuple[Path, np.ndarray]:
    images = smooth_images(SLICES, COILS, ROWS, COLS)
    array = fft2c(images).transpose(2, 3, 1, 0)  # readout, phase, coils, slices
    write_cfl(folder / "scan.cfl", array, (ROWS, COLS, 1, COILS, *(1,) * 9, SLICES, 1, 1))
    return folder / "scan.cfl", images


def make_numpy(folder: Path) -> tuple[Path, np.ndarray]:
    images = smooth_images(SLICES, COILS, ROWS, COLS)
    np.save(folder / "scan.npy", fft2c(images))
    return folder / "scan.npy", images


def make_numpy_images(folder: Path) -> tuple[Path, np.ndarray]:
    images = magnitudes(SLICES, ROWS, COLS)
    np.save(folder / "scan.npy", images)
    return folder / "scan.npy", images


def make_nifti(folder: Path) -> tuple[Path, np.ndarray]:
    images = magnitudes(SLICES, ROWS, COLS)
    # voxels (i, j, k) towards left, posterior and head: images as they are
    nibabel.Nifti1Image(images.transpose(2, 1, 0), np.diag([-1.0, -1.0, 3.0, 1.0])).to_filename(
        folder / "scan.nii.gz"
    )
    return folder / "scan.nii.gz", images


def make_dicom(folder: Path) -> tuple[Path, np.ndarray]:
    images = magnitudes(SLICES, ROWS, COLS)
    series = generate_uid()
    (folder / "scan").mkdir(exist_ok=True)
    for number, image in enumerate(images):
        file = pydicom.Dataset()
        file.file_meta = pydicom.dataset.FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = MRImageStorage
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
        file.SeriesInstanceUID, file.Modality, file.InstanceNumber = series, "MR", number + 1
        file.Rows, file.Columns, file.PixelSpacing = ROWS, COLS, [1.0, 1.0]
        file.ImageOrientationPatient, file.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 3.0 * number]
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
        file.PixelData = image.astype(np.uint16).tobytes()
        file.save_as(folder / "scan" / f"{number}.dcm", enforce_file_format=True)
    return folder / "scan", images


FORMATS: dict[str, tuple[str, Callable[[Path], tuple[Path, np.ndarray]], list[str]]] = {
    "ISMRMRD 2D": ("ismrmrd", make_ismrmrd_2d, []),
    "ISMRMRD 3D": ("ismrmrd", make_ismrmrd_3d, []),
    "BART": ("bart", make_bart, []),
    "NumPy k-space": ("numpy", make_numpy, []),
    "NumPy images": ("numpy", make_numpy_images, NOISELESS),
    "NIfTI": ("nifti", make_nifti, NOISELESS),
    "DICOM": ("dicom", make_dicom, NOISELESS),
}


def convert(name: str, source: Path, folder: Path, options: list[str]) -> tuple[Path, float]:
    """The volume, and the seconds of the conversion as the command prints them."""
    command = [sys.executable, "-m", "fastmri_ufloss.convert", name, source, "--output_path", folder, *options]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"error: {result.stderr}")
    words = result.stdout.split()
    return next(folder.glob("*.h5")), float(words[words.index("in") + 1])


def largest_error(volume: Path, images: np.ndarray) -> float:
    """Largest difference of a pixel, relative to the brightest."""
    with h5py.File(volume) as file:
        converted = ifft2c(file["kspace"][()])
    converted = converted if np.iscomplexobj(images) else np.abs(converted)
    return float(np.abs(converted - images).max() / np.abs(images).max())


def read_with_ismrmrd(source: Path, seconds: float = 10.0) -> float:
    """MB/s of ``ismrmrd.Dataset.read_acquisition``, for as many acquisitions as fit in some seconds."""
    with ismrmrd.Dataset(str(source), create_if_needed=False) as scan:
        start, size = time.perf_counter(), 0
        for number in range(scan.number_of_acquisitions()):
            size += scan.read_acquisition(number).data.nbytes
            if time.perf_counter() - start > seconds:
                break
        return size / 1e6 / (time.perf_counter() - start)


def measure(title: str, work: Path) -> dict[str, Any]:
    name, make, options = FORMATS[title]
    folder = work / title.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    source, images = make(folder)
    files = source.parent.glob("scan*") if source.is_file() else source.iterdir()
    size = sum(file.stat().st_size for file in files) / 1e6
    volume, seconds = convert(name, source, folder / "out", options)
    row: dict[str, Any] = {
        "format": title,
        "in, MB": size,
        "volume": "x".join(map(str, h5py.File(volume)["kspace"].shape)),
        "largest error": largest_error(volume, images),
    }
    if options:  # with the default coils and noise
        volume, seconds = convert(name, source, folder / "out_8_coils", [])
    out = volume.stat().st_size / 1e6
    row |= {"out, MB": out, "seconds": seconds, "in, MB/s": size / seconds, "out, MB/s": out / seconds}
    row["ismrmrd.Dataset, MB/s"] = read_with_ismrmrd(source) if name == "ismrmrd" else ""
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the files, about 2 GB")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [measure(title, args.work) for title in FORMATS]
    print(format_table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
