import numpy as np
import pytest

from fastmri_ufloss.metrics import VolumeScores, score_volume


def test_scores_of_slices_are_those_of_the_volume() -> None:
    rng = np.random.default_rng(0)
    shape = (5, 16, 20)
    volumes = {name: rng.random(shape, dtype=np.float32) * scale for name, scale in (("a", 1e-4), ("b", 3.0))}
    scores = VolumeScores()
    outputs, others = {}, {}
    for fname, target in volumes.items():
        others[fname] = target * (1 + np.arange(5, dtype=np.float32)[:, None, None])
        outputs[fname] = {"one": target * 1.1, "two": target + 0.3 * target.mean()}
        for i in range(5):
            scores.add(
                fname,
                i,
                outputs={name: image[i] for name, image in outputs[fname].items()},
                targets={"RSS": target[i], "coil-combined": others[fname][i]},
                max_value=float(2 * target.max()),
                ufloss={"one": 0.1 * i, "two": 0.2 * i},
            )
    scores.add("a", 0, outputs={}, targets={}, max_value=0, ufloss={})  # again, at the end: dropped
    scores.close()
    assert [(row["volume"], row["method"]) for row in scores.rows] == [(v, m) for v in "ab" for m in ("one", "two")]
    for row in scores.rows:
        target, output = volumes[row["volume"]], outputs[row["volume"]][row["method"]]
        for name, value in score_volume(target, output, max_value=float(2 * target.max())).items():
            assert row[f"{name} (RSS)"] == pytest.approx(value, rel=1e-5)
        for name, value in score_volume(others[row["volume"]], output).items():
            assert row[f"{name} (coil-combined)"] == pytest.approx(value, rel=1e-5)
        assert row["UFLoss"] == pytest.approx(0.2 if row["method"] == "one" else 0.4)
    np.testing.assert_array_equal(scores.example["RSS"], volumes["a"][2])
    np.testing.assert_array_equal(scores.example["two"], outputs["a"]["two"][2])


def test_slices_that_come_again_do_not_count() -> None:
    target = np.random.default_rng(0).random((3, 16, 16), dtype=np.float32)
    rows = []
    for order in ([0, 1, 2], [0, 1, 2, 0, 1]):
        scores = VolumeScores()
        for i in order:
            image = {"RSS": target[i]}
            scores.add("a", i, outputs={"m": target[i] * (1 + i)}, targets=image, max_value=1.0, ufloss={"m": i})
        scores.close()
        rows.append(scores.rows)
    assert rows[0] == rows[1]


def test_volume_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        score_volume(np.ones((2, 8, 8)), np.ones((2, 8, 9)))
