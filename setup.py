from pathlib import Path

from setuptools import find_packages, setup

CONVERT = ["ismrmrd>=1.12", "nibabel>=5.0", "pydicom>=2.4", "twixtools>=0.23"]  # readers of raw data and images
SEGMENT = ["monai>=1.3"]  # the network that scores how well structures are seen
SCORES = ["piq>=0.8"]  # HaarPSI, VSI and GMSD
HUB = ["huggingface_hub>=0.23"]  # networks by their names on the hub
CLASSICAL = ["scikit-learn>=1.3"]  # the dictionaries of DLMRI
READERS = ["krippendorff>=0.6", *CLASSICAL]  # agreement of readers
DOCS = ["furo", "myst-nb>=1.1", "sphinx>=7.2", *CONVERT, *SEGMENT, *CLASSICAL, *SCORES, *READERS]  # the site
TEST = [
    *CONVERT,
    *SEGMENT,
    *CLASSICAL,
    *SCORES,
    *READERS,
    "playwright>=1.40",  # drives a browser that is on the machine; without one the page's test is skipped
    "pytest>=8",
    "pytest-xdist>=3.5",
    "scikit-image>=0.22",
    "statsmodels>=0.14",
]

setup(
    name="fastmri-ufloss",
    version="0.2.0",
    description="MoDL and UFLoss, a feature loss learned from MR patches, as a plugin for fastMRI",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["fastmri_ufloss", "fastmri_ufloss.*"]),
    package_data={"fastmri_ufloss": ["py.typed", "data/splits/*", "models/weights/*", "report/page/templates/*"]},
    install_requires=[
        "fastmri>=0.3.0",
        "h5py>=3.8",
        "jsonargparse[signatures]>=4.49",  # flags and config files of the recipes
        "matplotlib>=3.7",  # the picture at the end of a run
        "numpy>=1.26",
        "pillow",  # thumbnails of the report
        "pytorch-lightning>=2.4",
        "pyyaml>=6.0",  # fastmri_dirs.yaml
        "requests",  # imported by fastmri, but not declared there
        "safetensors>=0.4",  # feature networks
        "scipy>=1.10",
        "sigpy>=0.1.26",
        "tensorboard>=2.14",
        "torch>=2.5",
        "torchmetrics>=1.0",
        "torchvision>=0.20",
        "tqdm",
    ],
    extras_require={
        "convert": CONVERT,
        "segment": SEGMENT,
        "classical": CLASSICAL,
        "scores": SCORES,
        "hub": HUB,
        "readers": READERS,
        "docs": DOCS,
        "test": TEST,
        "dev": [*TEST, "mypy>=1.10", "ruff>=0.6"],
    },
)
