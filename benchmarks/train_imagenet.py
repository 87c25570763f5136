"""The recipe of MoDL with EfficientNet's features of photographs in the place of VGG's, for `ufloss.py`.

Takes the flags of fastmri_examples/modl_ufloss/train.py. VGG's weights must be downloaded; those of
EfficientNet-lite0 are in a Python package (`judges.ImageNetDistance`).
"""

import sys
from pathlib import Path
from typing import Any

from judges import ImageNetDistance
from runs import RECIPES
from torch import Tensor, nn

sys.path.insert(0, str(RECIPES))
sys.path.insert(0, str(Path(RECIPES).parent))
import recipe
import train


class Maps(nn.Module):
    """One of EfficientNet's feature maps, at an eighth of the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.distance = ImageNetDistance()

    def forward(self, images: Tensor) -> Tensor:
        return self.distance.maps(images)[2]


def load_vgg(args: Any, *, hint: str = "") -> nn.Module:
    return Maps()


if __name__ == "__main__":
    recipe.load_vgg = load_vgg
    recipe.run(train.main)
