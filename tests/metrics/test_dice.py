import torch

from fastmri_ufloss.metrics.dice import dice_of_classes


def test_dice_of_classes() -> None:
    labels = torch.tensor([[[0, 1, 1, 2]], [[1, 1, 1, 1]]])
    true = torch.tensor([[[0, 1, 2, 2]], [[0, 0, 2, 2]]])
    dice = dice_of_classes(labels, true, 4)
    expected = torch.tensor([[2 / 3, 2 / 3, torch.nan], [torch.nan, 0, torch.nan]])
    torch.testing.assert_close(dice, expected, equal_nan=True)
