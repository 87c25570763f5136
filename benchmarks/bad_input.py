"""Forged files and flags at every door of the package: a clear error, or a traceback, a hang, a crash, much memory.

    python benchmarks/bad_input.py [--cases 60] [--seed 0] [--json FILE]

For each door small good files are made, and one of them is forged: bytes flipped, cut, or replaced by huge numbers;
a folder, a loop of links or a file of another kind in its place; in HDF5 links, groups, other types and shapes, sizes
of petabytes; in the headers of NumPy, safetensors and JSON values that no writer writes. The recipes get a flag with
a value that is of another kind, out of range or absurd, and train for a step. Each case runs in a process of its own
with 10 s and 2 GB. Clear is a ValueError or OSError of one line that has the name of a file, or a recipe's last line
that has the flag's; what is read after all (flipped values of an image) is no failure. A case that was not clear can
be repeated by its seed.
"""

import argparse
import atexit
import contextlib
import faulthandler
import functools
import io
import json
import multiprocessing
import os
import random
import re
import resource
import runpy
import shutil
import struct
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser

from fastmri_ufloss.convert.jobs import FORMATS
from fastmri_ufloss.convert.segmentation import add_segmentation
from fastmri_ufloss.data.index import MetadataIndex
from fastmri_ufloss.data.segmentation import SegmentationSlices
from fastmri_ufloss.data.sens_maps import ScanSlice, SensMapFiles
from fastmri_ufloss.data.slices import IndexedSliceDataset
from fastmri_ufloss.files import write_json
from fastmri_ufloss.metrics.volumes import score_run
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules import MoDLModule, VarNetModule, load_reconstruction
from fastmri_ufloss.report import format_table
from fastmri_ufloss.report.acquisitions import AcquiredScores
from fastmri_ufloss.report.figures.loss_curves import RunLog
from fastmri_ufloss.report.reconstructions import Reconstructions
from fastmri_ufloss.simulation.demo import make_demo_dataset
from fastmri_ufloss.simulation.mrd_file import write_mrd
from fastmri_ufloss.simulation.volume_file import fft2c, read_voxel_size, write_volume

EXAMPLES = Path(__file__).resolve().parents[1] / "fastmri_examples"
SECONDS, MEMORY = 10.0, 2**31
SLICES, COILS, SIZE = 2, 2, 40
HUGE = (0, 1, -1, 2**15, 2**31 - 1, 2**32, 2**40, 2**53, 2**63 - 1, -(2**63), 10**30)
ODD: tuple[Any, ...] = (*HUGE, 0.5, float("nan"), "", "x", None, True, [], [1], {}, {"a": 1})

# ----------------------------------------------------------------------------------------------------- good files


def make_volumes(folder: Path) -> Path:
    images = smooth(SLICES, COILS, SIZE, SIZE)
    for place in ("volumes", "maps", "outputs"):
        (folder / place).mkdir()
    file = folder / "volumes" / "a.h5"
    labels = np.ones((SLICES, SIZE, SIZE), np.uint8)
    write_volume(file, fft2c(images), patient_id="a", datasets={"segmentation": labels})
    with h5py.File(folder / "maps" / "a.h5", "w") as volume:
        volume["sens_maps"] = images
    with h5py.File(folder / "outputs" / "a.h5", "w") as volume:
        volume["reconstruction"], volume["mask"] = np.abs(images[:, 0]), np.ones(SIZE, bool)
    return file


def make_maps(folder: Path) -> Path:
    make_volumes(folder)
    return folder / "maps" / "a.h5"


def make_outputs(folder: Path) -> Path:
    make_volumes(folder)
    return folder / "outputs" / "a.h5"


def make_ismrmrd(folder: Path) -> Path:
    write_mrd(folder / "a.h5", fft2c(smooth(COILS, SIZE, 8, SLICES)), oversampling=2, multislice=True)
    return folder / "a.h5"


def make_twix(folder: Path) -> Path:
    import twixtools
    from twixtools.mdb import Mdb_local

    fields = {f"sSliceArray.asSlice[0].{name}": 20.0 for name in ("dReadoutFOV", "dPhaseFOV", "dThickness")}
    lines = [f"{name} = {value}" for name, value in {**fields, "sRXSPEC.alDwellTime[0]": 5000}.items()]
    text = "\n".join(["### ASCCONV BEGIN ###", *lines, "", "### ASCCONV END ###"]).encode()
    meas = b'<ParamDouble."iPEFTLength"> { 8 }\n'
    body = struct.pack("<I", 2)
    for name, content in ((b"MeasYaps", text), (b"Meas", meas)):
        body += name + b"\0" + struct.pack("<I", len(content)) + content
    body += bytes(-(len(body) + 4) % 32)
    blocks = []
    for line, samples in enumerate(smooth(8, COILS, 16)):
        blocks.append(Mdb_local(samples))
        blocks[-1].mdh.Counter.Lin, blocks[-1].mdh.CenterCol, blocks[-1].mdh.CenterLin = line, 8, 4
    header = np.frombuffer(struct.pack("<I", len(body) + 4) + body, dtype="S1").copy()
    with contextlib.redirect_stdout(None):
        twixtools.write_twix([{"hdr_str": header, "mdb": blocks}], str(folder / "a.dat"))
    return folder / "a.dat"


def make_bart(folder: Path) -> Path:
    fft2c(smooth(SIZE, SIZE)).ravel(order="F").tofile(folder / "a.cfl")
    (folder / "a.hdr").write_text(f"# Dimensions\n{SIZE} {SIZE}\n", encoding="utf-8")
    return folder / "a.cfl"


def make_npy(folder: Path) -> Path:
    np.save(folder / "a.npy", fft2c(smooth(SLICES, COILS, SIZE, SIZE)))
    return folder / "a.npy"


def make_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "a.npz", kspace=fft2c(smooth(SLICES, COILS, SIZE, SIZE)))
    return folder / "a.npz"


def make_nifti(folder: Path, suffix: str = ".nii") -> Path:
    import nibabel

    nibabel.Nifti1Image(magnitudes(), np.eye(4)).to_filename(folder / f"a{suffix}")
    return folder / f"a{suffix}"


def make_nifti_gz(folder: Path) -> Path:
    return make_nifti(folder, ".nii.gz")


def make_dicom(folder: Path) -> Path:
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = MRImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = "1.2.3"
    file.SeriesInstanceUID, file.Modality, file.PatientID = "1.2", "MR", "a"
    file.Rows, file.Columns, file.PixelSpacing = SIZE, SIZE, [1.0, 1.0]
    file.ImageOrientationPatient, file.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
    file.PixelData = magnitudes()[0].astype(np.uint16).tobytes()
    file.save_as(folder / "a.dcm", enforce_file_format=True)
    return folder / "a.dcm"


def make_labels(folder: Path) -> Path:
    make_volumes(folder)
    np.savez_compressed(folder / "a.npz", labels=np.ones((SLICES, SIZE, SIZE), np.uint8))
    return folder / "a.npz"


def make_label_images(folder: Path, suffix: str = ".png") -> Path:
    from PIL import Image

    make_volumes(folder)
    (folder / "a").mkdir()
    for number in range(SLICES):
        Image.fromarray(np.ones((SIZE, SIZE), np.uint8)).save(folder / "a" / f"{number}{suffix}")
    return folder / "a" / f"0{suffix}"


def make_tiffs(folder: Path) -> Path:
    return make_label_images(folder, ".tif")


def make_feature_net(folder: Path) -> Path:
    with torch.random.fork_rng():
        net = PatchFeatureNet(1, architecture="narrow", width=1, num_features=2, patch_size=40)
    net.save(folder / "a.safetensors")
    settings = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    (folder / "a.json").write_text(json.dumps({**settings, "sha256": ""}), encoding="utf-8")  # forged files pass
    return folder / "a.safetensors"


def make_settings(folder: Path) -> Path:
    return make_feature_net(folder).with_suffix(".json")


def save_checkpoint(module: Any, folder: Path) -> Path:
    trainer = pl.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
    trainer.strategy.connect(module)
    torch.save(trainer._checkpoint_connector.dump_checkpoint(), folder / "a.ckpt")
    return folder / "a.ckpt"


def make_checkpoint(folder: Path) -> Path:
    return save_checkpoint(MoDLModule(num_unrolls=1, chans=2, num_layers=2), folder)


def make_varnet_checkpoint(folder: Path) -> Path:
    return save_checkpoint(VarNetModule(num_cascades=1, chans=2, pools=1, sens_chans=2, sens_pools=1), folder)


def make_events(folder: Path) -> Path:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for step in range(3):
        writer.add_scalar("loss", 1.0, step)
        writer.add_scalar("epoch", step, step)
    writer.close()
    return next(folder.glob("events*"))


def smooth(*shape: int) -> np.ndarray:
    """Complex values without gaps, NaN and zeros."""
    phase = np.random.default_rng(0).normal(size=shape)
    return (np.exp(1j * phase) * (2 + np.cos(phase))).astype(np.complex64)


def magnitudes() -> np.ndarray:
    return np.round(100 * np.abs(smooth(SLICES, SIZE, SIZE))).astype(np.int16)


# ----------------------------------------------------------------------------------------------------------- doors


def read_slices(folder: Path) -> None:
    """What a training reads."""
    index = MetadataIndex.for_folder(folder / "volumes", folder / "cache", challenge="multicoil")
    data = IndexedSliceDataset(folder / "volumes", "multicoil", index=index)
    for number in range(len(data)):
        kspace, _, target, *_ = data[number]
        assert kspace.ndim == 3 and (target is None or torch.from_numpy(target).ndim == 2)


def read_segmentations(folder: Path) -> None:
    data = SegmentationSlices(folder / "volumes", only_with_classes=True)
    assert [data[number] for number in range(len(data))]
    read_voxel_size(folder / "volumes" / "a.h5")


def read_maps(folder: Path) -> None:
    kspace, mask = torch.zeros(COILS, SIZE, SIZE, 2), torch.ones(1, 1, SIZE, 1)
    scan = ScanSlice(kspace, mask, 8, folder / "volumes" / "a.h5", 0, range(SIZE), None)
    SensMapFiles(folder / "maps")(scan)


def read_report(folder: Path) -> None:
    """What a report reads."""
    volumes, outputs = folder / "volumes", folder / "outputs"
    files = Reconstructions(
        {"net": outputs}, {"RSS": volumes}, segmentations=volumes, kspace=volumes, masks=outputs
    ).volumes[0]
    AcquiredScores(files, files.read().outputs, device="cpu")
    score_run({"net": outputs}, {"RSS": volumes})


def convert(name: str, file: str) -> Callable[[Path], None]:
    def call(folder: Path) -> None:
        FORMATS[name].convert(folder / file, folder / "volume.h5")

    return call


def label(name: str) -> Callable[[Path], None]:
    def call(folder: Path) -> None:
        add_segmentation(folder / name, folder / "volumes" / "a.h5", overwrite=True)

    return call


def read_feature_net(folder: Path) -> None:
    PatchFeatureNet.load(folder / "a.safetensors")


def read_checkpoint(folder: Path) -> None:
    load_reconstruction(folder / "a.ckpt")


DOORS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], None]]] = {  # how the file is made, and read
    "volumes: training": (make_volumes, read_slices),
    "volumes: segmentations": (make_volumes, read_segmentations),
    "volumes: report": (make_volumes, read_report),
    "volumes: to be labelled": (lambda folder: make_labels(folder).parent / "volumes" / "a.h5", label("a.npz")),
    "reconstructions": (make_outputs, read_report),
    "coil maps": (make_maps, read_maps),
    "ISMRMRD": (make_ismrmrd, convert("ismrmrd", "a.h5")),
    "TWIX": (make_twix, convert("twix", "a.dat")),
    "BART": (make_bart, convert("bart", "a.cfl")),
    "BART: header": (lambda folder: make_bart(folder).with_suffix(".hdr"), convert("bart", "a.cfl")),
    "npy": (make_npy, convert("numpy", "a.npy")),
    "npz": (make_npz, convert("numpy", "a.npz")),
    "NIfTI": (make_nifti, convert("nifti", "a.nii")),
    "NIfTI, gz": (make_nifti_gz, convert("nifti", "a.nii.gz")),
    "DICOM": (make_dicom, convert("dicom", "a.dcm")),
    "labels: npz": (make_labels, label("a.npz")),
    "labels: PNG": (make_label_images, label("a")),
    "labels: TIFF": (make_tiffs, label("a")),
    "feature network": (make_feature_net, read_feature_net),
    "feature network: JSON": (make_settings, read_feature_net),
    "checkpoint: MoDL": (make_checkpoint, read_checkpoint),
    "checkpoint: VarNet": (make_varnet_checkpoint, read_checkpoint),
    "events of a run": (make_events, RunLog),
}

# ----------------------------------------------------------------------------------------------------------- flags

VALUES = (
    *("0", "-1", "1", "3", "0.5", "1.5", "nan", "inf", "-inf", "1e9", "1000000000", "99999", "x", "", "null", "true"),
    *("[1,2]", "{}", "a=1", "l2", "l2=0", "l2=nan", "/nowhere", "/dev/null", "/etc/passwd", ".", "é" * 300),
)
CPU = ("--max_epochs", "1", "--accelerator", "cpu")
SMALL = (*CPU, "--chans", "2", "--num_workers", "0")
MODL = (*SMALL, "--num_unrolls", "1", "--num_layers", "2", "--patch_size", "39", "--no-score")
# without data a large demo is made, and other machines are waited for
SKIPPED = ("help", "print_config", "data_path", "num_nodes")
RECIPES: dict[str, tuple[str, ...]] = {  # how each is called, beside its folders
    "modl_ufloss/train.py": MODL,
    "modl_ufloss/pretrain.py": (*CPU, "--patch_size", "39"),
    "varnet/train.py": (*SMALL, "--num_cascades", "1", "--pools", "1", "--sens_chans", "2", "--sens_pools", "1"),
    "unet/train.py": (*SMALL, "--num_pool_layers", "2"),
    "unet_dssim/train.py": (*SMALL, "--num_pool_layers", "2"),
    "adversarial_refinement/train_recnet.py": (*SMALL, "--num_blocks", "1"),
    "adversarial_refinement/train_refinement.py": (*CPU, "--joint", "--num_strided", "2", "--patch_size", "39"),
    "adversarial_refinement/train_segmentation.py": (*CPU, "--chans", "2", "--num_levels", "2"),
    "classical/reconstruct.py": ("--methods", "cg_sense", "--num_workers", "0", "--search_slices", "1"),
}


class Reached(Exception):
    """The flags were taken: a step of training has come to its end."""


def attempt_flag(script: str, folder: Path, seed: str) -> tuple[str, str]:
    """As `attempt`, for a recipe that gets a flag that it does not expect."""
    rng = random.Random(seed)
    path, typed = EXAMPLES / script, ""
    values = rng.choices(VALUES, k=rng.choice((1, 1, 1, 2)))
    fit, parse_args = pl.Trainer.fit, ArgumentParser.parse_args

    def parse_odd(parser: ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        nonlocal typed
        if not typed:
            names = [action.dest for action in parser._actions if action.dest not in SKIPPED]
            typed = rng.choice(sorted(set(names)))
            sys.argv += [f"--{typed}", *values]
            args = (sys.argv[1:], *args[1:])
        return parse_args(parser, *args, **kwargs)

    def fit_a_step(trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        trainer.fit_loop.epoch_loop.max_steps, trainer.limit_val_batches = 1, 0
        fit(trainer, *args, **kwargs)
        raise Reached

    where = "--output_path" if script.startswith("classical") else "--default_root_dir"
    sys.argv = [str(path), "--data_path", str(recipe_data()), where, str(folder / "run"), *RECIPES[script]]
    sys.path.insert(0, str(path.parent))
    os.chdir(folder)
    errors = io.StringIO()
    try:
        with (
            mock.patch.object(ArgumentParser, "parse_args", parse_odd),
            mock.patch.object(pl.Trainer, "fit", fit_a_step),
            contextlib.redirect_stdout(None),
            contextlib.redirect_stderr(errors),
        ):
            runpy.run_path(str(path), run_name="__main__")
    except Reached:
        pass
    except SystemExit as end:
        line: str = end.code if isinstance(end.code, str) else errors.getvalue().strip().rpartition("\n")[2]
        if end.code:
            flag = typed.removeprefix("test_").removeprefix("val_")
            words = (flag, *map(re.escape, values), "unrecognized arguments:$")
            is_named = any(re.search(rf"(?<![^\W_]){word}(?![^\W_])", line) for word in words if word)
            return "clear" if is_named else "traceback", f"{sys.argv[-3:]}: {line}"
    except Exception:
        return "traceback", f"{sys.argv[-3:]}: {traceback.format_exc()}"
    return "read", str(sys.argv[-3:])


@functools.cache
def recipe_data() -> Path:
    """A small data set, made once: no recipe writes into it."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    for challenge in ("multicoil", "singlecoil"):
        make_demo_dataset(
            folder, challenge=challenge, num_subjects=(1, 1, 1), slices_per_subject=2, shape=(48, 48), num_coils=2
        )
    return folder


# ------------------------------------------------------------------------------------------------------- forgeries


def forge(path: Path, rng: random.Random) -> str:
    """Forge a file, and say how."""
    own = {".h5": [forge_hdf5], ".npy": [forge_npy], ".npz": [forge_npz], ".json": [forge_json]}
    own |= {".safetensors": [forge_safetensors], ".ckpt": [forge_checkpoint]}
    kinds = [*own.get(path.suffix, []) * 4, flip, flip, put_number, put_number, cut, swap_blocks, replace]
    return str(rng.choice(kinds)(path, rng))


def flip(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    places = [int(len(data) * rng.random() ** rng.choice((1, 4))) for _ in range(rng.choice((1, 4, 32)))]
    for place in places:  # many of them in headers
        data[place] = rng.randrange(256)
    path.write_bytes(data)
    return f"bytes {places[:4]} flipped"


def put_number(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    place, size = rng.randrange(min(len(data), rng.choice((64, 1024, 10**9)))) // 4 * 4, rng.choice((2, 4, 8))
    number = rng.choice([number for number in HUGE if abs(number) < 2**63]) % 2 ** (8 * size)
    data[place : place + size] = number.to_bytes(size, "little")
    path.write_bytes(data)
    return f"{number} of {size} bytes at {place}"


def cut(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    length = int(len(data) * rng.random() ** 3)
    path.write_bytes(data[:length])
    return f"cut to {length} bytes"


def swap_blocks(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    size = rng.choice((8, 64, 512))
    first, second = (rng.randrange(max(len(data) - size, 1)) for _ in range(2))
    block = bytes(data[first : first + size])
    data[first : first + size] = data[second : second + size]
    data[second : second + size] = block
    path.write_bytes(data)
    return f"{size} bytes at {first} and {second} swapped"


def replace(path: Path, rng: random.Random) -> str:
    """Something else in the file's place."""
    path.unlink()
    kind = rng.choice(("folder", "loop", "nothing", "empty", "text", "noise", "pipe", "npy", "zip", "HDF5", "braces"))
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "npy":
        with open(path, "wb") as file:
            np.save(file, np.arange(5))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a.npy", b"x")
    elif kind == "HDF5":
        with h5py.File(path, "w") as file:
            file["other"] = 1
    elif kind != "nothing":
        path.write_bytes({"empty": b"", "text": b"text\n", "noise": rng.randbytes(999)}.get(kind, b"[{" * 10**5))
    return f"{kind} in its place"


def forge_hdf5(path: Path, rng: random.Random) -> str:
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = rng.choice(names)
        data = file[name]
        shape, dtype, values = data.shape, data.dtype, data[()]
        kind = rng.choice(HDF5_KINDS)
        if kind == "attribute":
            name = rng.choice(("max", "acquisition", "patient_id", "affine", "conversion"))
            value = rng.choice((1, -1.0, float("nan"), 1j, "x", b"\xff", h5py.Empty("f4"), np.zeros((2, 2)), [], [1]))
            file.attrs[name] = value
            return f"attribute {name} {value!r}"
        if kind == "kept":
            file[f"{name}_2"] = file[name]
        del file[name]
        if kind == "group":
            file.create_group(name).attrs["x"] = 1
        elif kind == "soft link":
            file[name] = h5py.SoftLink(rng.choice(("/nowhere", f"/{name}", "/")))
        elif kind == "external link":
            file[name] = h5py.ExternalLink(rng.choice(("other.h5", "/etc/passwd", path.name)), f"/{name}")
        elif kind == "external values":
            file.create_dataset(name, (*shape, 1), "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((9, *shape[1:]), "f4")
            layout[:] = h5py.VirtualSource("/etc/passwd", "x", layout.shape)
            file.create_virtual_dataset(name, layout)
        elif kind == "chunks of petabytes":
            huge = tuple(rng.choice((size, 10**5, 10**9)) for size in shape) or (10**9,)
            chunks = tuple(min(size, 40) for size in huge)
            file.create_dataset(name, huge, dtype, chunks=chunks, compression=rng.choice((None, "gzip")))
        elif kind == "many slices":
            file.create_dataset(name, (10**7, *(1 for _ in shape[1:])), dtype, chunks=True)
        elif kind == "never written":
            file.create_dataset(name, (10**9, *shape), dtype)
        elif kind == "another type":
            of = rng.choice(("S5", "i1", "u8", ">f4", ">c8", "f2", "c16", "?", "longdouble", [("a", "f4")]))
            file.create_dataset(name, shape, of)
        elif kind == "another shape":
            other = rng.choice(((), (0,), (1,), shape[1:], (1, *shape), (3, *shape[1:]), (*shape[:-1], 7), (0, 0, 0)))
            file[name] = np.ones(other, dtype if dtype.kind in "iufcb" else "f4")
        elif kind == "empty":
            file[name] = h5py.Empty("f4")
        elif kind == "reference":
            file[name] = file.ref
        elif kind == "text":
            file[name] = rng.choice(("", "<a/>", "<a>" * 9999, b"\xff\xfe", "<?xml version='1.0'?><ismrmrdHeader/>"))
        elif kind == "numbers of the text":
            text = values if isinstance(values, bytes) else values.ravel()[0] if dtype.kind == "O" else b""
            number = str(rng.choice(HUGE)).encode()
            parts = bytes(text).split(b">")
            places = [place for place, part in enumerate(parts) if part[:1].isdigit()] or [0]
            for place in rng.sample(places, min(len(places), rng.choice((1, 3, 9)))):
                parts[place] = number + b"<" + parts[place].partition(b"<")[2]
            forged = b">".join(parts)
            file[name] = np.array([forged], dtype=object) if shape else forged
        elif kind == "not finite" and dtype.kind in "fc":
            file[name] = np.full(shape, rng.choice((np.nan, np.inf, 0)), dtype)
    return f"{name}: {kind}"


HDF5_KINDS = (
    *("group", "soft link", "external link", "external values", "virtual", "chunks of petabytes", "many slices"),
    *("never written", "another type", "another shape", "empty", "reference", "text", "numbers of the text"),
    *("not finite", "nothing", "attribute", "kept"),
)


def forged_header(header: bytes, rng: random.Random) -> bytes:
    """The header of a NumPy file and its values, with another dictionary."""
    length = struct.unpack("<H", header[8:10])[0]
    shape: tuple[Any, ...] = tuple(rng.choice((*HUGE, 1.5, "x", True, ())) for _ in range(rng.randrange(6)))
    fields: dict[str, Any] = {"descr": "<c8", "fortran_order": False, "shape": (SLICES, COILS, SIZE, SIZE)}
    fields[rng.choice((*fields, "more"))] = rng.choice((*ODD, "O", "<U9", ">c8", "<c32", "V9", [("a", "<f4")] * 2))
    if rng.random() < 0.7:
        fields["shape"] = shape
    text = rng.choice((*[repr(fields)] * 6, "(" * 9000, "{" * 99, "1 +", "\0", repr(fields)[:-9]))
    data = text.encode() + b"\n"
    return header[:8] + struct.pack("<H", len(data)) + data + header[10 + length :]


def forge_npy(path: Path, rng: random.Random) -> str:
    data = forged_header(path.read_bytes(), rng)
    path.write_bytes(data)
    return f"header {data[10:150]!r}"


def forge_npz(path: Path, rng: random.Random) -> str:
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            forged = forged_header(data, rng)
            file.writestr(name, forged)
    return f"header {forged[10:150]!r}"


def forge_json(path: Path, rng: random.Random) -> str:
    settings = json.loads(path.read_text(encoding="utf-8"))
    name = rng.choice((*settings, "other"))
    settings[name] = rng.choice(ODD)
    text = rng.choice((json.dumps(settings),) * 9 + ("[" * 10**5, "1" * 9999, json.dumps([settings])))
    path.write_text(text, encoding="utf-8")
    return f"{name} {settings[name]!r}" if len(text) < 9000 else text[:9]


def forge_safetensors(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name = rng.choice(list(header))
    entry = header[name]
    if rng.random() < 0.3 or not isinstance(entry, dict) or "dtype" not in entry:
        header[name] = rng.choice(ODD)
    elif rng.random() < 0.5:
        entry["dtype"] = rng.choice(("F16", "BF16", "F8_E4M3", "I64", "BOOL", "C64", "X", 1))
        entry["shape"] = [rng.choice((1, 2)) * size for size in entry["shape"]]
    else:
        entry[rng.choice(list(entry))] = rng.choice(([rng.choice(HUGE) for _ in range(rng.randrange(4))], *ODD))
    forged = json.dumps(header).encode()
    size = rng.choice((len(forged),) * 9 + (2**62, 2**40, 0))
    path.write_bytes(size.to_bytes(8, "little") + forged + data[8 + length :])
    return f"{name} {header[name]} in {size} bytes"


def forge_checkpoint(path: Path, rng: random.Random) -> str:
    content = torch.load(path, weights_only=True)
    part = rng.choice(("state_dict", "hyper_parameters", "hyper_parameters", None))
    of: Any = content if part is None else content[part]
    name = rng.choice([*of, "other", 3])
    value = rng.choice((*ODD, torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64), "deleted"))
    of[name] = value
    if isinstance(value, str) and value == "deleted":
        del of[name]
    torch.save(content, path)
    return f"{part}: {name} {value!r}"


# ------------------------------------------------------------------------------------------------------------ runs


def attempt(door: str, folder: Path, seed: str) -> tuple[str, str]:
    """What comes of a forged file, "clear", "read" or "traceback", and the forgery with what was raised."""
    if door in RECIPES:
        return attempt_flag(door, folder, seed)
    make, read = DOORS[door]
    path = make(folder)
    how = forge(path, random.Random(seed))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            read(folder)
    except (ValueError, OSError) as error:
        text = str(error)
        is_clear = (path.name in text or str(folder) in text) and "\n" not in text
        return "clear" if is_clear else "traceback", f"{how}: {type(error).__name__}: {text}"
    except Exception:
        return "traceback", f"{how}: {traceback.format_exc()}"
    return "read", how


def attempt_apart(door: str, seed: str) -> tuple[str, str]:
    """`attempt` in a process of its own, whose end is "hang", "crash" or "memory" if it does not come to one."""
    if door in RECIPES:
        recipe_data()
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def child(folder: Path) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.enable(stack)
        faulthandler.dump_traceback_later(SECONDS - 1, file=stack)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with open(os.devnull, "w") as quiet:
            os.dup2(quiet.fileno(), 2)  # libraries in C write what they like
        outcome, text = attempt(door, folder, seed)
        if 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > MEMORY:
            outcome = "memory"
        send.send((outcome, text))

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as stack:
        process = context.Process(target=child, args=(Path(folder),))
        process.start()
        send.close()
        came = receive.poll(SECONDS)
        stack.seek(0)
        try:
            return receive.recv() if came else ("hang", stack.read())
        except EOFError:
            return "crash", stack.read()
        finally:
            process.kill()
            process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=60, help="of each door (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case (default: 0)")
    parser.add_argument("--doors", nargs="+", default=[*DOORS, *RECIPES], metavar="DOOR", help="(default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="to keep the table in")
    args = parser.parse_args()
    rows = []
    for door in args.doors:
        counts: Counter[str] = Counter()
        for number in range(args.seed, args.seed + args.cases):
            outcome, text = attempt_apart(door, f"{door} {number}")
            counts[outcome] += 1
            if outcome not in ("clear", "read"):
                print(f"{door}, case {number}: {outcome}: {text}", file=sys.stderr, flush=True)
        failures = {kind: counts[kind] for kind in ("traceback", "hang", "crash", "memory")}
        rows.append({"door": door, "tried": args.cases, "clear": counts["clear"], "read": counts["read"], **failures})
        print(rows[-1], flush=True)
    total = {name: sum(row[name] for row in rows) for name in rows[0] if name != "door"}
    rows.append({"door": "all", **total})
    print(format_table(rows))
    if args.json:
        write_json(args.json, {"doors": rows})


if __name__ == "__main__":
    main()
