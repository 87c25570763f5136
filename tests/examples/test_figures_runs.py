"""Figures made of runs, as a user types them: loss curves, and the sweep over the weight."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
import torch
from helpers import EXAMPLES, run_recipe
from torch.utils.tensorboard import SummaryWriter

from fastmri_ufloss.models import PatchFeatureNet

MODL = [
    "--accelerator", "cpu", "--num_workers", "0", "--limit_train_batches", "1", "--chans", "2", "--num_layers", "2",
    "--num_unrolls", "1", "--center_fractions", "0.2", "--accelerations", "3",
]  # fmt: skip


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Feature networks: two of complex images and one of magnitudes."""
    folder = tmp_path_factory.mktemp("nets")
    files = {}
    for seed, (name, in_chans) in enumerate((("loss", 2), ("score", 2), ("rss", 1))):
        torch.manual_seed(seed)
        files[name] = folder / f"{name}.safetensors"
        PatchFeatureNet(in_chans, patch_size=32, num_features=8).save(files[name])
    return files


def log_run(
    folder: Path, *, terms: tuple[str, ...] = ("l2", "ufloss"), epochs: int = 4, images: bool = True, every: int = 2
) -> Path:
    """TensorBoard logs of 10 steps an epoch, as a training recipe writes them; l2 is flat from epoch 2."""
    curves = {"l2": lambda e: 1.0 + (e == 0), "ufloss": lambda e: 1.0 - 0.2 * e}
    target = np.random.default_rng(1).random((1, 40, 40)).astype(np.float32)
    target /= target.max()
    writer = SummaryWriter(str(folder / "tensorboard" / "version_0"))
    for epoch in range(epochs):
        for step in range(10 * epoch + every - 1, 10 * epoch + 10, every):
            for term in terms:
                writer.add_scalar(f"train_terms/{term}", curves[term](epoch), step)
            writer.add_scalar("epoch", epoch, step)
        if images:
            for name, image in (("target", target), ("reconstruction", target ** (1 / (epoch + 1)))):
                writer.add_image(f"val_images_idx_3/{name}", image, 10 * epoch + 10)
            writer.add_image("val_images_idx_5/target", np.ones_like(target), 10 * epoch + 10)
            writer.add_image("val_images_idx_5/reconstruction", np.ones_like(target), 10 * epoch + 10)
        for term in terms:
            writer.add_scalar(f"val_terms/{term}", curves[term](epoch) + 0.1, 10 * epoch + 9)
        writer.add_scalar("epoch", epoch, 10 * epoch + 9)
    writer.close()
    return folder


CURVES = "figures/loss_curves.py"


def test_loss_curves_of_a_run(tmp_path: Path) -> None:
    log_run(tmp_path / "run")
    output = run_recipe(CURVES, "--run", "run", "--epochs", 1, 4, "--output", "figure.png", cwd=tmp_path).stdout
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads((tmp_path / "figure.json").read_text())
    assert document["settings"]["image"] == 3  # the other has no texture
    run = document["runs"]["run"]
    np.testing.assert_allclose(list(run["training"]["ufloss"]["by epoch"].values()), [1.0, 0.8, 0.6, 0.4], rtol=1e-6)
    np.testing.assert_allclose(list(run["validation"]["l2"]["by epoch"].values()), [2.1, 1.1, 1.1, 1.1], rtol=1e-6)
    for kind in ("training", "validation"):
        assert run[kind]["comparison"]["pixel loss flat from epoch"] == 2
        assert run[kind]["comparison"]["feature loss flat from epoch"] == 4
        assert run[kind]["comparison"]["fall of the feature loss still to come"] == pytest.approx(2 / 3)
        assert run[kind]["comparison"]["pixel loss flattens first"] is True
    assert run["images"]["1"]["NRMSE"] < 1e-6 < 0.05 < run["images"]["4"]["NRMSE"]
    assert run["images"]["4"]["UFLoss (val.)"] == pytest.approx(0.5)
    assert run["logged steps per epoch"] == {"l2": 5, "ufloss": 5}
    assert "flat from epoch 2, when 67% of the fall of UFLoss are still to come" in output


def test_a_training_with_few_logged_steps_is_not_judged(tmp_path: Path) -> None:
    log_run(tmp_path / "run", every=5)
    output = run_recipe(CURVES, "--run", "run", "--output", "figure.png", cwd=tmp_path).stdout
    assert "run has logged 2.0 steps of an epoch, which say little of its training: --log_every_n_steps 1" in output
    run = json.loads((tmp_path / "figure.json").read_text())["runs"]["run"]
    assert "comparison" not in run["training"] and "comparison" in run["validation"]


def test_loss_curves_of_two_runs_and_a_score_of_the_images(tmp_path: Path, nets: dict[str, Path]) -> None:
    log_run(tmp_path / "l2", terms=("l2",))
    log_run(tmp_path / "both", epochs=3)
    options = ["--run", "l2 alone=l2", "both", "--image", 5, "--feature_net", nets["rss"], "--stride", 4]
    output = run_recipe(CURVES, *options, "--output", "figure.pdf", cwd=tmp_path).stdout
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF-")
    runs = json.loads((tmp_path / "figure.json").read_text())["runs"]
    assert set(runs["l2 alone"]["training"]) == {"l2"} and "comparison" in runs["both"]["training"]
    assert list(runs["both"]["images"]) == list(runs["l2 alone"]["images"]) == ["1", "2", "3"]
    for run in runs.values():
        assert run["images"]["3"] == pytest.approx({"NRMSE": 0.0, "UFLoss": 0.0}, abs=1e-6)  # constant, as its target
    assert "l2 alone has not logged the term 'ufloss'" in output and "with ufloss=0 also" in output


BAD_CURVES = {
    "term": ({"terms": ("l2",)}, [], "no run has logged the term 'ufloss', only l2: a recipe logs each term"),
    "no images": ({"images": False}, [], "recipes log num_log_images of them"),
    "epoch": ({}, ["--epochs", "9"], "got [9]; there are [1, 2, 3, 4] of image 3; [1, 2, 3, 4] of image 5"),
    "image": ({}, ["--image", "4"], "image must be one of those logged, 3, 5, got 4"),
    "stride": ({}, ["--stride", "4"], "--stride is for UFLoss of the images"),
    "folder": ({}, ["--run", "nowhere"], "no TensorBoard logs (events.out.tfevents*) in nowhere"),
    "twice": ({}, ["--run", "run", "./run"], "--run must have different names, got 'run' twice"),
}


@pytest.mark.parametrize("case", BAD_CURVES)
def test_logs_that_lack_something_are_named(tmp_path: Path, case: str) -> None:
    settings, options, message = BAD_CURVES[case]
    log_run(tmp_path / "run", **settings)
    given = [] if "--run" in options else ["--run", "run"]
    assert message in run_recipe(CURVES, *given, *options, "--output", "x.png", cwd=tmp_path, fails=True).stderr
    assert not list(tmp_path.glob("x.*"))


def test_curves_without_images(tmp_path: Path) -> None:
    log_run(tmp_path / "run", images=False)
    run_recipe(CURVES, "--run", "run", "--no-images", "--output", "x.png", cwd=tmp_path)
    assert json.loads((tmp_path / "x.json").read_text())["runs"]["run"]["images"] == {}


SWEEP = "figures/weight_sweep.py"
STUB = """
import argparse, json, sys
from pathlib import Path

parser = argparse.ArgumentParser()
for flag in ("mode", "seed", "default_root_dir", "checkpoint", "max_epochs", "data_path"):
    parser.add_argument(f"--{flag}", default="")
parser.add_argument("--loss", nargs="+")
args, _ = parser.parse_known_args()
run = Path(args.default_root_dir)
with open("calls.txt", "a") as file:
    print(args.mode or "train", *run.parts[-2:], *(args.loss or ()), sep=" ", file=file)
if args.max_epochs == "13":
    sys.exit("error: unlucky")
if not args.mode:
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "checkpoints" / "last.ckpt").write_text(" ".join([*args.loss, args.seed, args.max_epochs]))
else:
    import h5py

    weight = run.parts[-2].partition("_")[2]
    value = {"alone": 2.0}.get(weight) or float(weight)
    seed = int(run.parts[-1].partition("_")[2])
    scores = {"NRMSE (RSS)": 9.0, "SSIM (RSS)": 9.0, "NRMSE (coil-combined)": 0.1 + value + 0.01 * seed,
              "SSIM (coil-combined)": 0.9 - value / 10, "UFLoss": 1 / (1 + value)}
    rows = [{"method": name, "volumes": 1, **scores} for name in ("CG-SENSE", "MoDL")]
    (run / "reconstructions").mkdir(parents=True, exist_ok=True)
    (run / "scores.json").write_text(json.dumps({"means": rows}))
    (reference,) = Path(args.data_path, "multicoil_test").iterdir()
    with h5py.File(reference) as source, h5py.File(run / "reconstructions" / reference.name, "w") as file:
        file["reconstruction"] = source["reconstruction_rss"][()] * (1 + value)
"""


@pytest.fixture
def stub(demo: Path, tmp_path: Path, nets: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The sweep with a recipe that only writes down how it was called: returns the calls, or the error."""
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.syspath_prepend(str(EXAMPLES / "figures"))
    own = ["--data_path", demo, "--output_path", "out", "--feature_net", nets["loss"]]

    def call(*options: object, further: tuple[str, ...] = ("--max_epochs", "3"), score: str = "score") -> str:
        import weight_sweep

        monkeypatch.setattr(weight_sweep, "RECIPE", tmp_path / "stub.py")
        (tmp_path / "calls.txt").write_text("")
        line = [*own, "--score_feature_net", nets[score], *options, "--", *further]
        monkeypatch.setattr(sys, "argv", ["weight_sweep.py", *map(str, line)])
        try:
            weight_sweep.main()
        except (ValueError, OSError) as error:
            return f"{(tmp_path / 'calls.txt').read_text()}error: {error}"
        return (tmp_path / "calls.txt").read_text()

    yield call
    for name in ("weight_sweep", "recipe"):
        module: ModuleType | None = sys.modules.get(name)
        if module is not None and str(EXAMPLES) in str(module.__file__):
            del sys.modules[name]


def test_a_sweep_trains_tests_and_draws_each_run_once(tmp_path: Path, stub: Callable[..., str]) -> None:
    options = ["--weights", "0", "0.020", "alone", "--seeds", 1, 3, "--jobs", 3]
    calls = stub(*options).splitlines()
    losses = {"0": "l2=1", "0.020": "l2=1 ufloss=0.020", "alone": "ufloss=1"}
    runs = [(f"weight_{weight} seed_{seed}", loss) for seed in (1, 3) for weight, loss in losses.items()]
    assert sorted(calls[:6]) == sorted(f"train {run} {loss}" for run, loss in runs)
    assert sorted(calls[6:]) == sorted(f"test {run}" for run, _ in runs)
    out = tmp_path / "out"
    assert {"sweep.png", "sweep.pdf", "panels.png", "panels.pdf"} <= {path.name for path in out.iterdir()}
    document = json.loads((out / "sweep.json").read_text())
    rows = {(row["weight"], row["metric"]): row for row in document["scores"]}
    assert rows["0.020", "NRMSE (coil-combined)"]["mean"] == pytest.approx(0.1 + 0.02 + 0.02)
    assert rows["alone", "UFLoss"]["seeds"] == {"1": 1 / 3, "3": 1 / 3}
    assert document["panels"]["scores"]["UFLoss alone"]["NRMSE"] == pytest.approx(2.0, rel=1e-5)
    assert document["panels"]["scores"]["weight 0"]["SSIM"] == pytest.approx(1.0)
    (difference,) = (r for r in document["differences"] if (r["weight"], r["metric"]) == ("alone", "UFLoss"))
    assert difference["difference"] == pytest.approx(1 / 3 - 1)

    assert stub(*options, "--reference", "RSS") == ""  # all is done
    assert json.loads((out / "sweep.json").read_text())["scores"][0]["mean"] == 9.0
    (out / "tests" / "weight_0" / "seed_3" / "sweep.json").unlink()  # a test that was killed
    assert stub(*options) == "test weight_0 seed_3\n"
    longer = stub(*options, further=("--max_epochs", "4")).splitlines()  # all go on, and are tested again
    assert len(longer) == 12


def test_runs_that_are_there_are_tested_as_they_are(tmp_path: Path, stub: Callable[..., str]) -> None:
    checkpoints = tmp_path / "out" / "runs" / "weight_0.02" / "seed_1" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "last.ckpt").write_text("1")
    options = ["--mode", "test", "--weights", "0.02", "alone", "--seeds", 1]
    assert stub(*options) == "test weight_0.02 seed_1\n"
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())["left out"] == ["weight_alone_seed_1"]
    assert stub(*options) == ""
    (checkpoints / "best.ckpt").write_text("2")  # another checkpoint
    assert stub(*options) == "test weight_0.02 seed_1\n"
    assert "needs runs with a checkpoint" in stub("--mode", "test", "--weights", "0.5")


def test_a_sweep_that_fails_names_the_log_and_goes_on_where_it_was(tmp_path: Path, stub: Callable[..., str]) -> None:
    options = ["--weights", "0", "0.02", "--seeds", 1]
    error = stub(*options, further=("--max_epochs", "13"))
    assert "weight_0_seed_1, weight_0.02_seed_1 failed, see " in error
    assert error.endswith("which ends with: error: unlucky")
    assert "failed, see " in stub(*options, further=("--max_epochs", "13", "--lr", "1"))  # nothing is trained yet
    assert len(stub(*options).splitlines()) == 4
    other = stub(*options, further=("--max_epochs", "3", "--accelerations", "9"))
    assert "was trained with --accelerations None, not 9: type the same flags again" in other
    assert "--data_path is the sweep's own" in stub(*options, further=("--data_path", "x"))


BAD_SWEEPS = {
    "weight": (["--weights", "much"], "--weights must be numbers >= 0 or 'alone', got 'much'"),
    "negative": (["--weights=-1"], "--weights must be numbers >= 0 or 'alone', got '-1'"),
    "twice": (["--weights", "0.5", "0.50"], "--weights must differ, got 0.5 0.50"),
    "seeds": (["--seeds", "1", "1"], "--seeds must differ, got 1 1"),
    "jobs": (["--jobs", "0"], "--jobs must be at least 1, got 0"),
    "no such file": (["--feature_net", "nowhere"], "no file nowhere: check --feature_net"),
}


@pytest.mark.parametrize("case", BAD_SWEEPS)
def test_bad_sweeps_are_named(stub: Callable[..., str], case: str) -> None:
    options, message = BAD_SWEEPS[case]
    assert stub(*options) == f"error: {message}"


SLEEPERS = """
import sys
from pathlib import Path

sys.path.insert(0, FOLDER)
from weight_sweep import run_side_by_side

Path("nap.py").write_text(
    "import pathlib, sys, time\\n"
    "file = pathlib.Path(sys.argv[1])\\n"
    "try:\\n file.touch()\\n time.sleep(60)\\n"
    "except KeyboardInterrupt:\\n file.write_text('interrupted')\\n sys.exit(1)\\n"
)
list(run_side_by_side({name: ["nap.py", name] for name in "abc"}, Path("logs"), jobs=2, desc="Sleep"))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_runs_end_with_the_sweep(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "sleep.py").write_text(SLEEPERS.replace("FOLDER", repr(str(EXAMPLES / "figures"))))
    process = subprocess.Popen(
        [sys.executable, "sleep.py"], cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True
    )
    started = time.monotonic()
    while not ((tmp_path / "a").exists() and (tmp_path / "b").exists()):
        assert time.monotonic() < started + 60 and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(30) != 0
    # the sweep has waited for what they write, and has started no other
    assert [(tmp_path / name).read_text() for name in "ab"] == ["interrupted"] * 2
    assert not (tmp_path / "c").exists()


def test_a_loss_does_not_grade_itself(stub: Callable[..., str]) -> None:
    assert "--score_feature_net must be another network than --feature_net" in stub(score="loss")


def test_a_sweep_of_real_trainings(demo: Path, tmp_path: Path, nets: dict[str, Path]) -> None:
    options = [
        "--data_path", demo, "--feature_net", nets["loss"], "--score_feature_net", nets["score"],
        "--output_path", "out", "--weights", "0.02", "--seeds", 1, "--stride", 8, "--score_stride", 8,
    ]  # fmt: skip
    further = ["--max_epochs", 1, "--limit_val_batches", 0]
    run_recipe(SWEEP, *options, "--", *MODL, *further, cwd=tmp_path, environment={"CUDA_VISIBLE_DEVICES": ""})
    test = tmp_path / "out" / "tests" / "weight_0.02" / "seed_1"
    means = json.loads((test / "scores.json").read_text())["means"]
    document = json.loads((tmp_path / "out" / "sweep.json").read_text())
    expected = {m: means[2][m] for m in ("NRMSE (coil-combined)", "SSIM (coil-combined)", "UFLoss")}
    assert {row["metric"]: row["mean"] for row in document["scores"]} == expected
    with h5py.File(test / "reconstructions" / "file1002001.h5") as file:
        assert file["reconstruction"].shape == (2, 48, 48)
