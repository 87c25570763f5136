import dataclasses
import errno
import functools
import inspect
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
import warnings

import h5py
import numpy as np
import pytest
from fastmri.data import SliceDataset

from fastmri_ufloss.convert import volumes
from fastmri_ufloss.convert.__main__ import EXAMPLES, RUNNER, main
from fastmri_ufloss.convert.arrays import convert_numpy
from fastmri_ufloss.convert.jobs import (
    FORMATS,
    find_inputs,
    missing_jobs,
    name_volumes,
    plan_jobs,
    run_jobs,
    stamp_of,
)
from fastmri_ufloss.simulation.volume_file import write_volume

SHAPE = (2, 3, 10, 8)  # of the k-space of each file


def save(path, seed=0, shape=SHAPE):
    path.parent.mkdir(parents=True, exist_ok=True)
    real = np.random.default_rng(seed).standard_normal((*shape, 2), dtype=np.float32)
    np.save(path, real.view(np.complex64)[..., 0])
    return path


@pytest.fixture
def raw(tmp_path):
    """A folder of four files, one of them in another folder's sense hidden."""
    for number in range(4):
        save(tmp_path / "raw" / f"scan{number}.npy", number)
    (tmp_path / "raw" / "notes.txt").write_text("no array")
    (tmp_path / "raw" / "._scan0.npy").write_text("of a file system")
    return tmp_path / "raw"


def command(raw, out, *words, name="numpy"):
    return main([name, str(raw), "--output_path", str(out), *map(str, words)])


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def replace_converter(monkeypatch, function):
    monkeypatch.setitem(FORMATS, "numpy", dataclasses.replace(FORMATS["numpy"], convert=function))


def acting_after_each_slice(act):
    """`write_volume`, which calls a function with the path when a slice has been written."""

    def write(path, kspace, **options):
        def slices():
            for values in kspace:
                yield values
                act(path)

        write_volume(path, slices(), **options)

    return write


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.h5")}


def test_a_folder_becomes_volumes(raw, tmp_path, capsys):
    assert command(raw, tmp_path / "out", "--acquisition", "AXT2") == 0
    assert sorted(contents(tmp_path / "out")) == [f"scan{number}.h5" for number in range(4)]
    size = sum(path.stat().st_size for path in raw.glob("s*.npy")) / 1e6
    assert re.fullmatch(rf"4 volumes of {size:.1f} MB in [\d.]+ s, [\d.]+ MB/s\n", capsys.readouterr().out)
    data = SliceDataset(tmp_path / "out", "multicoil")
    assert len(data) == 4 * SHAPE[0]
    kspace, _, target, attrs, fname, _ = data[2]
    np.testing.assert_array_equal(kspace, np.load(raw / "scan1.npy")[0])
    assert (fname, attrs["acquisition"], target.shape) == ("scan1.h5", "AXT2", SHAPE[2:])
    conversion = json.loads(attrs["conversion"])
    status = (raw / "scan1.npy").stat()
    assert conversion["source"] == {"name": "scan1.npy", "size": status.st_size, "mtime": status.st_mtime_ns}
    assert (conversion["format"], conversion["settings"]["acquisition"]) == ("numpy", "AXT2")


def test_what_is_done_is_kept(raw, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(raw, out) == 0
    before, stamps = contents(out), times(out)
    (out / "scan2.h5").unlink()
    capsys.readouterr()
    assert command(raw, out, "--max_memory", 1, "--num_coils", 8) == 0  # neither changes a volume
    assert capsys.readouterr().out.startswith("3 of 4 are done\n1 volumes of ")
    assert contents(out) == before
    assert {name for name, stamp in times(out).items() if stamp != stamps[name]} == {"scan2.h5"}
    assert command(raw, out, "--overwrite") == 0
    assert capsys.readouterr().out == "4 of 4 are done\n0 volumes of 0.0 MB in 0.0 s\n"


def test_volumes_that_were_made_otherwise_are_refused(raw, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(raw, out) == 0
    (out / "scan0.h5").unlink()
    before = contents(out)
    assert command(raw, out, "--acquisition", "AXT1") == 1
    message = capsys.readouterr().err
    assert "error: 3 volumes are there but were made otherwise" in message and "(another acquisition)" in message
    save(raw / "scan1.npy", seed=9)
    assert command(raw, out) == 1
    assert "scan1.h5 (another source)" in capsys.readouterr().err
    assert contents(out) == before  # nothing was converted before the refusal, scan0 neither
    assert command(raw, out, "--overwrite") == 0
    after = contents(out)
    assert {name for name in before if after[name] != before[name]} == {"scan1.h5"} and len(after) == 4


@pytest.mark.parametrize("content", ["nothing", "a volume", "another conversion"])
def test_strange_volumes_are_refused(raw, tmp_path, capsys, content):
    out = tmp_path / "out"
    out.mkdir()
    if content == "nothing":
        (out / "scan1.h5").write_bytes(b"")
    else:
        with h5py.File(out / "scan1.h5", "w") as volume:
            if content == "another conversion":
                volume.attrs["conversion"] = json.dumps({"format": "bart"})
    assert command(raw, out) == 1
    assert re.search(r"scan1.h5 \((by something else|another format.*)\)", capsys.readouterr().err)
    assert len(contents(out)) == 1
    assert command(raw, out, "--overwrite") == 0
    assert len(SliceDataset(out, "multicoil")) == 8


def test_a_file_that_a_setting_names_counts(raw, tmp_path, capsys):
    mask = np.ones(SHAPE[-1], dtype=bool)
    mask[1] = False
    np.save(tmp_path / "mask.npy", mask)
    assert command(raw, tmp_path / "out", "--mask", tmp_path / "mask.npy") == 0
    assert command(raw, tmp_path / "out", "--mask", tmp_path / "mask.npy") == 0
    mask[2] = False
    np.save(tmp_path / "mask.npy", mask)
    assert command(raw, tmp_path / "out", "--mask", tmp_path / "mask.npy") == 1
    assert "(another mask)" in capsys.readouterr().err
    assert command(raw, tmp_path / "new", "--mask", tmp_path / "none.npy") == 1
    assert "error: mask must be a file, got" in capsys.readouterr().err


def test_a_bad_file_does_not_stop_the_others(raw, tmp_path, capsys):
    (raw / "scan1.npy").write_bytes(b"nonsense")
    np.save(raw / "scan3.npy", np.full((8, 8), np.nan, dtype=np.complex64))
    out = tmp_path / "out"
    for done in (0, 2):
        assert command(raw, out) == 1
        captured = capsys.readouterr()
        assert sorted(contents(out)) == ["scan0.h5", "scan2.h5"]
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert f"{raw / 'scan1.npy'} is not a NumPy file" in errors[0]
        assert errors[1].startswith(f"error: {raw / 'scan3.npy'}: kspace must be finite")
        assert errors[2:] == [f"error: 2 of {4 - done} failed"]
        assert "Traceback" not in captured.err


def test_any_exception_of_a_reader_is_an_error_of_its_file(raw, tmp_path, capsys, monkeypatch):
    @functools.wraps(convert_numpy)
    def fail(source, output, **options):
        raise KeyError("tag")

    replace_converter(monkeypatch, fail)
    assert command(raw, tmp_path / "out") == 1
    assert f"error: {raw / 'scan0.npy'}: KeyError: 'tag'" in capsys.readouterr().err


def test_processes_give_the_same_volumes(raw, tmp_path, capsys, monkeypatch):
    # workers as spawned ones, but from one new process that has imported the package for all of them
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["fastmri_ufloss.convert.jobs"])
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: server)
    (raw / "scan1.npy").write_bytes(b"nonsense")
    np.save(raw / "image.npy", np.ones((2, 16, 16)))
    assert command(raw, tmp_path / "serial") == command(raw, tmp_path / "parallel", "--num_workers", 2) == 1
    assert contents(tmp_path / "serial") == contents(tmp_path / "parallel") and len(times(tmp_path / "serial")) == 4
    assert capsys.readouterr().err.count("scan1.npy is not a NumPy file") == 2
    assert "OMP_NUM_THREADS" not in os.environ or os.environ["OMP_NUM_THREADS"]


SLOW = """
import sys, time
from fastmri_ufloss.convert import volumes
from fastmri_ufloss.convert.__main__ import main
write_volume = volumes.write_volume
def slow(path, kspace, **options):
    def slices():
        for values in kspace:
            yield values
            if "scan1" in path.name:
                print("writing", flush=True)
                time.sleep(60)
    write_volume(path, slices(), **options)
volumes.write_volume = slow
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_command_goes_on(raw, tmp_path, capsys):
    out = tmp_path / "out"
    words = [sys.executable, "-c", SLOW, "numpy", str(raw), "--output_path", str(out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.kill()
    leftovers = list(out.glob(".scan1.h5.*.tmp"))
    assert sorted(times(out)) == ["scan0.h5"] and len(leftovers) == 1
    elsewhere = out / ".scan1.h5.01234567-1.x.tmp"  # a young one, maybe of a process that runs on another machine
    elsewhere.touch()
    assert command(raw, out) == 0
    assert f"warning: {elsewhere} is of a process that runs or was killed" in capsys.readouterr().err
    assert not leftovers[0].exists() and elsewhere.exists()
    os.utime(elsewhere, (time.time() - 90,) * 2)
    assert command(raw, out) == command(raw, tmp_path / "whole") == 0
    assert contents(out) == contents(tmp_path / "whole")


def test_an_interrupted_command_goes_on(raw, tmp_path, capsys, monkeypatch):
    def interrupt(path):
        if "scan2" in path.name:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(volumes, "write_volume", acting_after_each_slice(interrupt))
        assert command(raw, tmp_path / "out") == 130
    assert "interrupted: the same command goes on" in capsys.readouterr().err
    assert sorted(contents(tmp_path / "out")) == ["scan0.h5", "scan1.h5"]
    assert command(raw, tmp_path / "out") == command(raw, tmp_path / "whole") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("late", [False, True])
def test_a_full_disk_ends_it(raw, tmp_path, capsys, monkeypatch, late):
    def fail(path):
        if "scan2" in path.name:
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError as error:
                if late:  # HDF5 says it in other words when the file is closed
                    raise RuntimeError("Can't decrement id ref count") from error
                raise

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(volumes, "write_volume", acting_after_each_slice(fail))
        assert command(raw, out) == 1
    message = f"error: no space is left in {out}: make room, then the same command goes on with the 2 volumes"
    assert message in capsys.readouterr().err
    assert sorted(contents(out)) == ["scan0.h5", "scan1.h5"]
    assert command(raw, out) == 0 and len(times(out)) == 4


def test_inputs_that_are_refused(raw, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    save(tmp_path / "more" / "scan1.npy")
    np.savez(tmp_path / "more" / "scan7.npz", np.ones((4, 4)))
    save(tmp_path / "more" / "scan7.npy")
    for words, message in (
        ([raw, tmp_path / "none"], r"none must be NumPy .*, or a folder of such, got no file or folder"),
        ([raw, tmp_path / "empty"], r"empty must be NumPy \(\*.npy, \*.npz\), or a folder of such, got none"),
        ([raw / "notes.txt"], r"notes.txt must be NumPy \(\*.npy, \*.npz\), or a folder of such, got none"),
        ([raw, tmp_path / "more" / "scan1.npy"], r"raw.scan1.npy and .*more.scan1.npy are both for scan1.h5"),
        ([tmp_path / "more"], r"scan7.npy and .*scan7.npz are both for scan7.h5"),
        ([raw, "--split", 2, 1, 2], r"split must be three numbers, from 0, whose sum is that of the inputs, 4, got"),
        ([raw, "--num_workers", 0], r"num_workers must be at least 1, got 0"),
        ([raw, "--output_path", raw / "notes.txt"], r"output_path must be a folder, got the file .*notes.txt"),
    ):
        assert main(["numpy", "--output_path", str(out), *map(str, words)]) == 1, message
        assert re.search(f"error: .*{message}", capsys.readouterr().err), message
        assert not out.exists()
    assert len(find_inputs("numpy", [raw, raw / "scan1.npy", raw])) == 4


def test_an_input_is_never_written_over(tmp_path):
    (tmp_path / "scan.h5").write_bytes(b"raw data")
    with pytest.raises(ValueError, match=r"scan.h5 is an input: choose another output_path"):
        plan_jobs("ismrmrd", [tmp_path], tmp_path)


@pytest.mark.parametrize(("options", "challenge"), [((), "multicoil"), (("--num_coils", 0), "singlecoil")])
def test_splits(tmp_path, capsys, options, challenge):
    raw, out = tmp_path / "raw", tmp_path / "data"
    raw.mkdir()
    for number in range(4):
        np.save(raw / f"image{number}.npy", np.random.default_rng(number).random((2, 16, 16)))
    assert command(raw, out, "--split", 2, 1, 1, *options) == 0
    assert sorted(contents(out)) == [
        f"{challenge}_test/image3.h5",
        *(f"{challenge}_train/image{number}.h5" for number in (0, 1)),
        f"{challenge}_val/image2.h5",
    ]
    assert len(SliceDataset(out / f"{challenge}_train", challenge)) == 4
    assert capsys.readouterr().err.count("no substitute for raw data") == 1
    assert command(raw, out, "--split", 2, 1, 1, *options) == 0
    assert "no substitute" not in capsys.readouterr().err
    # a volume that moves would be trained with and tested with
    assert command(raw, out, "--split", 1, 2, 1, *options) == 1
    assert "image1.h5 is of another split, now it would go into" in capsys.readouterr().err


def test_kspace_without_coils_is_single_coil(tmp_path):
    save(tmp_path / "raw" / "scan.npy", shape=(8, 8))
    assert command(tmp_path / "raw", tmp_path / "out", "--split", 1, 0, 0) == 0
    assert list(contents(tmp_path / "out")) == ["singlecoil_train/scan.h5"]


def test_inputs_of_formats(tmp_path):
    for name in (
        "a.nii.gz",
        "b.c.NII",
        "d.cfl",
        "d.hdr",
        "e.mrd",
        "p/s1/1.dcm",
        "p/s1/2.dcm",
        "p/s2/IM0",
        "p/DICOMDIR",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")
    for name, given, expected in (
        ("nifti", [""], {"a.nii.gz": "a.h5", "b.c.NII": "b.c.h5"}),
        ("bart", [""], {"d.cfl": "d.h5"}),
        ("bart", ["d.hdr", "d.cfl", "d"], {"d.cfl": "d.h5"}),
        ("ismrmrd", ["e.mrd"], {"e.mrd": "e.h5"}),
        ("dicom", ["p"], {"p/s1": "s1.h5", "p/s2": "s2.h5"}),
        ("dicom", ["p/s1"], {"p/s1": "s1.h5"}),
        ("dicom", ["p/s2/IM0"], {"p/s2/IM0": "IM0.h5"}),
    ):
        found = find_inputs(name, [tmp_path / one for one in given])
        volumes = name_volumes(found, FORMATS[name].suffixes)
        assert {path.relative_to(tmp_path).as_posix(): volume for volume, path in volumes.items()} == expected
    for path, files in (("p/s1", ("p/s1/1.dcm", "p/s1/2.dcm")), ("d.cfl", ("d.cfl", "d.hdr"))):
        stamp = stamp_of(tmp_path / path)
        assert stamp["size"] == 132 * len(files)
        for file in files:
            (tmp_path / file).touch()
            os.utime(tmp_path / file, ns=(1, time.time_ns() + 10**9))
            assert stamp_of(tmp_path / path) != stamp
            stamp = stamp_of(tmp_path / path)


def test_a_missing_package_says_what_to_install(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.nii").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    assert main(["nifti", str(tmp_path), "--output_path", str(tmp_path / "out")]) == 1
    assert "pip install 'fastmri-ufloss[convert]'" in capsys.readouterr().err


def test_warnings_are_said_once(raw, tmp_path, monkeypatch):
    @functools.wraps(convert_numpy)
    def warn(source, output, **options):
        warnings.warn("look at this", stacklevel=2)
        convert_numpy(source, output, **options)

    replace_converter(monkeypatch, warn)
    jobs = plan_jobs("numpy", [raw], tmp_path / "out")
    summary = run_jobs(missing_jobs(jobs))
    assert summary.warnings == ["look at this"] and len(summary.converted) == 4 and not summary.failed


@pytest.mark.parametrize("name", FORMATS)
def test_flags_are_the_options_of_the_converter(name, capsys):
    parameters = inspect.signature(FORMATS[name].convert).parameters
    with pytest.raises(SystemExit):
        main([name, "--help"])
    text = capsys.readouterr().out
    keywords = {one: value.default for one, value in parameters.items() if value.kind is value.KEYWORD_ONLY}
    # one patient_id would be that of all inputs
    options = {one.rstrip("_"): value for one, value in keywords.items() if one not in ("attributes", "patient_id")}
    flags = set(re.findall(r"--(\w+)", text.split("options:")[1].split("example:")[0])) - {"help", *RUNNER}
    assert flags - {"no"} == set(options)
    flat = " ".join(text.split("options:")[1].split())
    for one, default in options.items():
        if default is not None and one != "max_memory":
            pattern = rf"--{one}\b((?!\(default).)*\(default: {re.escape(str(default))}\)"
            assert re.search(pattern, flat), one
    assert EXAMPLES[name] in text
