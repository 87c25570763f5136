import fastmri.models
import pytest
import torch
from fastmri.models.unet import ConvBlock
from torch import nn

from fastmri_ufloss.models import DeepUnet


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_two_convolutions_are_fastmris_unet() -> None:
    torch.manual_seed(0)
    ours = DeepUnet(1, 2, 4, 3, 0.1, convs_per_stage=2).eval()
    torch.manual_seed(0)
    theirs = fastmri.models.Unet(1, 2, 4, 3, 0.1).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight), name
    image = torch.randn(2, 1, 24, 32)
    assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize("convs_per_stage", [3, 4])
def test_every_stage_has_that_many_convolutions(convs_per_stage: int) -> None:
    unet = DeepUnet(1, 1, 4, 3, 0.25, convs_per_stage=convs_per_stage)
    blocks = [module for module in unet.modules() if isinstance(module, ConvBlock)]
    assert len(blocks) == 3 + 1 + 3
    for block in blocks:
        kinds = [type(layer) for layer in block.layers]
        assert kinds == [nn.Conv2d, nn.InstanceNorm2d, nn.LeakyReLU, nn.Dropout2d] * convs_per_stage
        for start in range(4, len(kinds), 4):  # those after the first are alike
            assert [str(layer) for layer in block.layers[start : start + 4]] == [str(x) for x in block.layers[4:8]]
    more = 9 * (2 * (4**2 + 8**2 + 16**2) + 32**2) * (convs_per_stage - 2)
    assert num_parameters(unet) == num_parameters(fastmri.models.Unet(1, 1, 4, 3)) + more


def test_network_of_the_dssim_abstract() -> None:
    with torch.device("meta"):
        unet = DeepUnet(1, 1, 64, 4, convs_per_stage=3)
    stages = [64, 128, 256, 512]
    convolutions = 9 * (64 + sum(a * b for a, b in zip(stages, [*stages[1:], 1024], strict=True)))  # first ones, down
    convolutions += 9 * 2 * (sum(c**2 for c in stages) + 1024**2)  # the other two, down and at the bottom
    convolutions += 9 * sum(2 * c * c + 2 * c**2 for c in stages)  # up, where the first one takes the skip too
    transposed = 4 * sum(2 * c * c for c in stages)
    assert num_parameters(unet) == convolutions + transposed + 64 + 1


@pytest.mark.parametrize("size", [(37, 45), (32, 47), (35, 48)])
def test_odd_sizes_and_gradients(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    unet = DeepUnet(1, 1, 4, 3, convs_per_stage=3)
    output = unet(torch.randn(2, 1, *size))
    assert output.shape == (2, 1, *size) and output.isfinite().all()
    output.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in unet.parameters())


@pytest.mark.parametrize("convs_per_stage", [1, 0])
def test_fewer_than_fastmri_has_are_refused(convs_per_stage: int) -> None:
    with pytest.raises(ValueError, match=f"convs_per_stage must be at least 2, got {convs_per_stage}"):
        DeepUnet(1, 1, convs_per_stage=convs_per_stage)
