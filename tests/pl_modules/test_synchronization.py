"""A training step never asks for a value of a tensor: on a GPU the host would wait for the device."""

from typing import Any

import pytest
import torch
from feature_nets import SmallFeatureNet
from helpers import column_mask, randn_complex, smooth_maps
from torch.utils._python_dispatch import TorchDispatchMode

from fastmri_ufloss.data import MoDLSample
from fastmri_ufloss.losses import make_loss
from fastmri_ufloss.mri import sens_expand
from fastmri_ufloss.pl_modules import MoDLModule

WAITING = {"_local_scalar_dense", "_linalg_check_errors", "equal", "masked_select", "nonzero"}


class Waits(TorchDispatchMode):
    """Notes the operations that wait for a device. (Adam asks for its number of steps, which is on the CPU.)"""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := func.overloadpacket.__name__) in WAITING:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def batch() -> MoDLSample:
    maps, mask, image = smooth_maps(2, 3, 24, 20), column_mask(2, 20), randn_complex(2, 24, 20)
    kspace = sens_expand(torch.view_as_real(image).unsqueeze(1), maps) * mask
    size, number = torch.tensor([24, 24]), torch.tensor([1.0, 1.0], dtype=torch.float64)
    names, numbers = ["a.h5", "b.h5"], torch.tensor([0, 1])
    return MoDLSample(
        *(kspace, mask, torch.tensor([8, 8]), torch.zeros(2), names, numbers, number, (size, size), number),
        sens_maps=maps,
        reference=image,
        kspace=None,
    )


@pytest.mark.parametrize("denoiser", ["cnn", "resnet"])  # fastMRI's U-Net looks at a number that is on the CPU
@pytest.mark.parametrize("weights", [{"l2": 1.0}, {"l2": 1.0, "ufloss": 0.1}], ids=["l2", "ufloss"])
def test_a_step_of_modl_waits_for_no_value(denoiser: Any, weights: dict[str, float]) -> None:
    loss = make_loss(weights, feature_net=SmallFeatureNet() if "ufloss" in weights else None)
    module = MoDLModule(num_unrolls=2, num_cg_iterations=2, chans=4, num_pools=2, denoiser=denoiser, loss=loss)
    sample = batch()
    with Waits() as waits:
        module.training_step(sample, 0).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1e-3)
    assert waits.seen == []


@pytest.mark.parametrize("look", [float, bool, lambda x: x.nonzero()])
def test_a_look_at_a_value_is_noted(look: Any) -> None:
    with Waits() as waits:
        look(torch.ones(()))
    assert waits.seen
