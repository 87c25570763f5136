"""Generated knees with the classes of their pixels, from the regions that are painted."""

import numpy as np

from fastmri_ufloss.simulation.anatomy import OVERSAMPLING, _depths, _Knee, _Slice, _values

__all__ = ["BONE", "CARTILAGE", "draw_segmented_knee"]

BONE, CARTILAGE = 1, 2


def draw_segmented_knee(
    shape: tuple[int, int], *, num_slices: int = 6, contrast: str = "CORPD_FBK", seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The images of `draw_knee`, bit for bit, and the class of each pixel: what covers most of it.

    Args:
        shape, num_slices, contrast, seed: see `draw_knee`.

    Returns:
        The images, float32 (num_slices, rows, cols), and the classes, uint8 of the same shape: 1 for femur, tibia
        and fibula, 2 for cartilage, 0 elsewhere.

    Raises:
        ValueError: if an argument is out of its range.
    """
    knee = _SegmentedKnee(shape, _values(shape, num_slices, contrast), seed)
    images, classes = zip(*(knee.draw_with_classes(depth) for depth in _depths(num_slices)), strict=True)
    return np.stack(images), np.stack(classes)


class _SegmentedKnee(_Knee):
    """A knee that notes the class of each pixel as it is painted over; the image is that of a `_Knee`."""

    def draw_with_classes(self, depth: float) -> tuple[np.ndarray, np.ndarray]:
        """The slice at a depth from -1 (front) to 1 (back), and its classes."""
        self.classes = np.zeros(self.size, dtype=np.uint8)
        image = self.draw(depth)
        rows, cols = image.shape
        blocks = self.classes.reshape(rows, OVERSAMPLING, cols, OVERSAMPLING)
        classes = np.zeros(image.shape, dtype=np.uint8)
        for number in (BONE, CARTILAGE):  # a tie goes to cartilage, which is thin
            classes[(blocks == number).mean(axis=(1, 3)) >= 0.5] = number
        return image, classes

    def _paint_joint(self, part: _Slice, bones: np.ndarray) -> None:
        super()._paint_joint(part, bones)
        self.classes[self._cartilage(part, bones, self._capsule(part)) < 0] = CARTILAGE
        self.classes[self._menisci(part, bones) < 0] = 0

    def _paint_bones(self, part: _Slice, bone: np.ndarray) -> None:
        super()._paint_bones(part, bone)
        self.classes[bone < 0] = BONE

    def _paint_ligaments(self, part: _Slice, kind: str) -> None:
        super()._paint_ligaments(part, kind)
        self.classes[self._ligaments(part, kind) < 0] = 0
