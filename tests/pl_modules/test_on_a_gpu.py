"""Each module trains, validates and is resumed on a pretended GPU, and waits for it once a step.

The modules are run by this file as a script, in a process of its own, since the device cannot be taken away again.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import fastmri
import pytest
import pytorch_lightning as pl
import torch
from fastmri.data.transforms import UnetSample
from helpers import ROOT, column_mask, randn_complex, smooth_maps
from torch.utils.data import DataLoader

from fastmri_ufloss.data.segmentation import SegmentationSample
from fastmri_ufloss.data.transforms import MoDLSample
from fastmri_ufloss.losses import L2Loss, UFLoss, make_loss
from fastmri_ufloss.metrics import make_metrics
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.mri import sens_reduce
from fastmri_ufloss.pl_modules import (
    FeatureModule,
    JointModule,
    MoDLModule,
    RecNetModule,
    RefinementModule,
    SeededSteps,
    SegmentationModule,
    UnetModule,
    VarNetModule,
)

ROWS, COLS = 48, 44
MODL = {"num_unrolls": 1, "num_cg_iterations": 2, "chans": 4, "num_layers": 2}
VARNET = {"num_cascades": 2, "pools": 2, "chans": 4, "sens_pools": 2, "sens_chans": 2}
GAN: dict[str, Any] = {"discriminator_chans": 2, "num_strided": 2, "replay_size": 3}
CHECK = {"base_module.py checked": 1}  # of the loss
ADVERSARIAL_CHECK = {"adversarial_module.py training_step": 1}
IMAGES = {"mri_module.py on_validation_batch_end": 2}  # for fastMRI's scores: images and their data range
# torch.linalg.eigh reads its error codes, for each grid; pixels to be made exact are counted
KEPT = {"espirit.py _eigh": 4, "espirit.py _iterate": 2, "espirit.py estimate_sens_maps": 1}
MAPS = {**KEPT, "espirit.py _coil_matrices": 2}  # and for the calibration of each of two slices
METRICS = {"volume_metric.py _add": 4}  # names and numbers of the slices
WAITS: dict[str, tuple[dict[str, int], dict[str, int]]] = {  # of a step of the training, and of the validation
    "modl": (CHECK, IMAGES),
    "modl with maps on the device": ({**CHECK, **MAPS}, {**IMAGES, **MAPS, **METRICS}),
    "modl with kept coil matrices": ({**CHECK, **KEPT}, {**IMAGES, **KEPT}),
    "recnet": (CHECK, IMAGES),
    "varnet": (CHECK, IMAGES),
    "varnet with fastMRI's loss": (CHECK, IMAGES),
    "unet": (CHECK, IMAGES),
    "unet with fastMRI's loss": (CHECK, IMAGES),
    "features": (CHECK, {"feature_module.py validation_step": 2, "feature_module.py patch_with_noise": 2}),
    "refinement": (ADVERSARIAL_CHECK, IMAGES),
    "joint": (ADVERSARIAL_CHECK, IMAGES),
    "segmentation": (CHECK, {"segmentation_module.py validation_step": 2}),
}
# what two runs with one seed differ by on a GPU: hfen and edge, refinement, segmentation; and nothing else
UNORDERED = {
    **dict.fromkeys(("modl", "recnet", "unet"), "replication_pad2d_backward"),
    **dict.fromkeys(("refinement", "joint"), "reflection_pad2d_backward"),
    "segmentation": "nll_loss2d_forward",
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Of each module, what its steps did."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
        pytest.skip("a device in Python needs torch 2.10")
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    return dict(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", WAITS)
def test_waits_of_a_step(name: str, found: dict[str, Any]) -> None:
    if "skipped" in found[name]:
        pytest.skip(found[name]["skipped"])
    train, val = WAITS[name]
    unordered = found[name].pop("unordered")
    assert found[name] == {"train": train, "val": val, "resumed": train}
    assert unordered == ([UNORDERED[name]] if name in UNORDERED else [])


def feature_net() -> PatchFeatureNet:
    return PatchFeatureNet(2, patch_size=40, num_features=8, architecture="narrow", width=8).eval()


def modl_batch(*, maps: bool) -> MoDLSample:
    sens_maps, mask = smooth_maps(2, 4, ROWS, COLS), column_mask(2, COLS, center=10)
    image = 1 + 0.2 * randn_complex(2, 1, ROWS, COLS)
    kspace = fastmri.fft2c(torch.view_as_real(torch.view_as_complex(sens_maps) * image))
    target = fastmri.rss_complex(fastmri.ifft2c(kspace), dim=1)
    return MoDLSample(
        masked_kspace=kspace * mask,
        mask=mask,
        num_low_frequencies=torch.full((2,), 10),
        target=target,
        fname=["a.h5", "b.h5"],
        slice_num=torch.arange(2),
        max_value=target.amax(dim=(1, 2)).double(),
        crop_size=[torch.full((2,), ROWS), torch.full((2,), COLS)],
        scale=torch.ones(2, dtype=torch.float64),
        sens_maps=sens_maps if maps else None,
        reference=torch.view_as_complex(sens_reduce(kspace, sens_maps))[:, 0] if maps else None,
        kspace=None if maps else kspace,
    )


def unet_batch() -> UnetSample:
    image, numbers = torch.randn(2, ROWS, COLS), torch.tensor([1.0, 0.5, 3.0]).expand(2, 3).unbind(dim=1)
    return UnetSample(image, image + 0.1, *numbers[:2], ["a.h5", "b.h5"], torch.arange(2), numbers[2].double())


def segmentation_batch() -> SegmentationSample:
    classes = (torch.arange(ROWS)[:, None] * 3 // ROWS).expand(2, ROWS, COLS).contiguous()
    return SegmentationSample(torch.rand(2, 1, ROWS, COLS), classes, ["a", "b"], torch.arange(2))


def modl_with_metrics() -> MoDLModule:
    loss = make_loss({"l2": 1.0, "ufloss": 0.1}, feature_net=feature_net())
    module = MoDLModule(**MODL, loss=loss)
    module.add_metrics(make_metrics(["nrmse", "dssim"]))
    return module


def refinement() -> RefinementModule:
    losses = {"l2": L2Loss(), "ufloss": UFLoss(feature_net(), stride=8)}
    return RefinementModule(RecNetModule(num_blocks=1, chans=4), refinement_chans=4, image_losses=losses, **GAN)


CASES: dict[str, Callable[[], tuple[pl.LightningModule, Any]]] = {
    "modl": lambda: (MoDLModule(**MODL, loss=make_loss({"l2": 1.0, "hfen": "auto"})), modl_batch(maps=True)),
    "modl with maps on the device": lambda: (modl_with_metrics(), modl_batch(maps=False)),
    "modl with kept coil matrices": lambda: (
        MoDLModule(**MODL),
        modl_batch(maps=False)._replace(coil_matrix_file=["coil_matrices_a.npy", "coil_matrices_b.npy"]),
    ),
    "recnet": lambda: (
        RecNetModule(num_blocks=1, chans=4, loss=make_loss({"l1": 1.0, "dssim": 1.0, "edge": 1.0})),
        modl_batch(maps=True),
    ),
    "varnet": lambda: (VarNetModule(**VARNET, loss=make_loss({"ssim": 1.0})), modl_batch(maps=False)),
    "varnet with fastMRI's loss": lambda: (VarNetModule(**VARNET), modl_batch(maps=False)),
    "unet": lambda: (
        UnetModule(chans=4, num_pool_layers=2, loss=make_loss({"dssim": 0.1, "hfen": 1.0}), optimizer="adam"),
        unet_batch(),
    ),
    "unet with fastMRI's loss": lambda: (UnetModule(chans=4, num_pool_layers=2), unet_batch()),
    "features": lambda: (
        FeatureModule(4, patch_size=32, num_features=8, phase_augmentation=True, magnitude_augmentation=True),
        [torch.randn(4, 2, 36, 36), torch.arange(4)],
    ),
    "refinement": lambda: (refinement(), modl_batch(maps=True)),
    "joint": lambda: (
        JointModule(RecNetModule(num_blocks=1, chans=4), image_losses={"l2": L2Loss()}, **GAN),
        modl_batch(maps=True),
    ),
    "segmentation": lambda: (SegmentationModule(num_classes=3, chans=4, num_levels=3), segmentation_batch()),
}


def steps_of(name: str, folder: str) -> dict[str, Any]:
    """The waits of the last step of a training, of its validation, and of the same resumed."""
    import pretended_gpu

    seen: dict[str, Any] = {}

    class Steps(pl.Callback):
        """From the end of a batch to the end of the next: transfer, step, optimizer, log and progress bar."""

        def __init__(self, train: str) -> None:
            self.train = train

        def keep(self, kind: str) -> None:
            seen[kind] = dict(pretended_gpu.waits)
            pretended_gpu.waits.clear()

        def on_train_batch_end(self, *_: Any) -> None:
            self.keep(self.train)

        def on_validation_batch_end(self, *_: Any) -> None:
            self.keep("val")

    def fit(kind: str, **options: Any) -> pl.Trainer:
        module, batch = CASES[name]()
        batches = DataLoader([batch] * 2, batch_size=None)  # type: ignore[arg-type]
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        trainer = pl.Trainer(
            strategy=pretended_gpu.strategy(),
            default_root_dir=folder,
            callbacks=[SeededSteps(0), Steps(kind)],
            num_sanity_val_steps=0,
            inference_mode=False,  # below which operations come to the device in another form
            enable_checkpointing=False,
            **quiet,
            **options,
        )
        trainer.fit(module, batches, batches, ckpt_path=None if kind == "train" else f"{folder}/x.ckpt")
        return trainer

    pretended_gpu.unordered.clear()
    fit("train", max_epochs=1).save_checkpoint(f"{folder}/x.ckpt")
    fit("resumed", max_epochs=2)
    return {**seen, "unordered": sorted(pretended_gpu.unordered)}


def main() -> None:
    import pretended_gpu

    found: dict[str, Any] = {}
    with pretended_gpu.PretendedGpu():
        for name in CASES:
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                try:
                    found[name] = steps_of(name, folder)
                except ImportError as error:
                    found[name] = {"skipped": str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
