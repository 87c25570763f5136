"""A small report in the form of the package's own, with its images: for tests of what is made of it."""

from typing import Any

import numpy as np

from fastmri_ufloss.report.document import SliceImages
from fastmri_ufloss.report.subject_tables import comparison_rows, mean_rows, scores_by_subject

METHODS = ("zero-filled", '<b>&"MoDL"', "$PICS_$")
REFERENCES = ("RSS", "coil-combined")
SHAPE = (40, 48)
NUM_SLICES = 3


def make_metrics() -> list[dict[str, Any]]:
    kinds = {"SSIM": (True, ""), "NRMSE": (False, ""), "PSNR": (True, "dB"), "UFLoss": (False, "")}
    metrics = [
        {
            "name": f"{label} ({reference})",
            "label": label,
            "reference": reference,
            "larger_is_better": larger,
            "unit": unit,
            "explanation": f"what {label} means",
            "tested": reference == REFERENCES[0],
        }
        for reference in REFERENCES
        for label, (larger, unit) in kinds.items()
    ]
    words = {"reference": None, "larger_is_better": None, "unit": "", "explanation": "of edges", "tested": False}
    return [*metrics, {"name": "sharpness", "label": "sharpness", **words}]


def make_document(
    *, num_volumes: int = 8, methods: tuple[str, ...] = METHODS, missing: bool = True
) -> dict[str, Any]:
    """Every subject has two volumes, one of each contrast; a value of the last method is missing."""
    metrics, rng = make_metrics(), np.random.default_rng(0)
    slices, volumes = [], []
    for number in range(num_volumes):
        place = {"volume": f"file{number}.h5", "subject": f"subject {number // 2}"}
        place["contrast"] = ("PD", "PDFS")[number % 2]
        for index, method in enumerate(methods):
            scores = _scores(rng, metrics, index)
            for row, offset in zip(scores, range(NUM_SLICES), strict=True):
                slices.append({**place, "slice": offset, "method": method, **row})
            means = {name: float(np.mean([row[name] for row in scores])) for name in scores[0]}
            volumes.append({**place, "slices": NUM_SLICES, "method": method, **means})
    if missing:
        slices[-1]["SSIM (RSS)"] = volumes[-1]["SSIM (RSS)"] = None
    means, comparisons = [], []
    for contrast in ("all", "PD", "PDFS"):
        of_contrast = [row for row in volumes if contrast in ("all", row["contrast"])]
        found = scores_by_subject(of_contrast, [metric["name"] for metric in metrics])
        means += [{"contrast": contrast, **row} for row in mean_rows(found)]
        tested = {metric["name"]: metric["larger_is_better"] for metric in metrics if metric["tested"]}
        rows = comparison_rows(found, tested, baseline=methods[0])
        comparisons += [{"contrast": contrast, **row} for row in rows]
    return {
        "title": 'Knees </script><script>document.title = "broken"</script> {{ data }}',
        "methods": list(methods),
        "baseline": methods[0],
        "references": list(REFERENCES),
        "metrics": metrics,
        "contrasts": ["all", "PD", "PDFS"],
        "slices": slices,
        "volumes": volumes,
        "means": means,
        "comparisons": comparisons,
        "excluded": [{"volume": "file9.h5", "slice": None, "source": "RSS", "why": "it cannot be read <!--"}],
        "notes": ["methods were reconstructed from different samples"],
        "settings": {"stride": 5},
    }


def _scores(rng: np.random.Generator, metrics: list[dict[str, Any]], index: int) -> list[dict[str, float]]:
    """Of the slices of a volume: the later a method, the better."""
    signs = {True: 1.0, False: -1.0, None: 0.0}
    starts = {"SSIM": 0.7, "NRMSE": 0.3, "PSNR": 25.0, "UFLoss": 0.5, "sharpness": 0.1}
    return [
        {m["name"]: float(starts[m["label"]] * (1 + 0.1 * signs[m["larger_is_better"]] * index + 0.02 * noise))
         for m, noise in zip(metrics, rng.normal(size=len(metrics)), strict=True)}
        for _ in range(NUM_SLICES)
    ]  # fmt: skip


def read_slice(volume: str, slice_num: int) -> SliceImages:
    """Images of fastMRI's small intensities; the second method is 5% too bright, the third has larger noise."""
    seed = int(volume.removeprefix("file").removesuffix(".h5")) * NUM_SLICES + slice_num
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    disk = ((rows - 18) ** 2 + (cols - 26) ** 2 < 120).astype(int)
    image = 1e-4 * (0.2 + rows / 80 + 0.5 * disk + 0.05 * rng.random(SHAPE))
    noise = 1e-5 * rng.random(SHAPE)
    images = (image + 0.3 * noise, 1.05 * image, image + noise)
    outputs = {method: one.astype(np.float32) for method, one in zip(METHODS, images, strict=True)}
    reference = {"RSS": image.astype(np.float32), "coil-combined": (0.9 * image).astype(np.float32)}
    return SliceImages(reference, outputs, disk, {METHODS[1]: np.roll(disk, 4, axis=1)})
