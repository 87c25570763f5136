"""The data that the recipes' tests share. Nothing is written into them: a run keeps its caches beside itself."""

from pathlib import Path

import pytest

from fastmri_ufloss.simulation.demo import make_demo_dataset


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of both challenges two subjects for training and one for validation; for the test one, or two of singlecoil."""
    root = tmp_path_factory.mktemp("demo")
    for challenge, tests in (("multicoil", 1), ("singlecoil", 2)):
        make_demo_dataset(
            root, challenge=challenge, num_subjects=(2, 1, tests), slices_per_subject=2, shape=(48, 48), num_coils=4
        )
    return root
