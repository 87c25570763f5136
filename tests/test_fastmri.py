"""What this package takes from fastMRI: a release that changes it fails here, by the name of what has changed."""

import ast
import inspect
import pkgutil
import re

import pytest
from helpers import ROOT

PARAMETERS = {  # of every function and class of fastMRI that is named in the package or its recipes
    "SSIMLoss": "win_size k1 k2",
    "complex_abs": "data",
    "data.SliceDataset": (
        "root challenge transform use_dataset_cache sample_rate volume_sample_rate dataset_cache_file "
        "num_cols raw_sample_filter"
    ),
    "data.VolumeSampler": "dataset num_replicas rank shuffle seed",
    "data.mri_data.FastMRIRawDataSample": "fname slice_ind metadata",
    "data.mri_data.et_query": "root qlist namespace",
    "data.subsample.MaskFunc": "center_fractions accelerations allow_any_combination seed",
    "data.subsample.create_mask_for_mask_type": "mask_type_str center_fractions accelerations",
    "data.transforms.UnetDataTransform": "which_challenge mask_func use_seed",
    "data.transforms.UnetSample": "image target mean std fname slice_num max_value",
    "data.transforms.apply_mask": "data mask_func offset seed padding",
    "data.transforms.center_crop": "data shape",
    "data.transforms.center_crop_to_smallest": "x y",
    "data.transforms.tensor_to_complex_np": "data",
    "data.transforms.to_tensor": "data",
    "evaluate.nmse": "gt pred",
    "evaluate.psnr": "gt pred maxval",
    "fft2c": "data norm",
    "ifft2c": "data norm",
    "models.NormUnet": "chans num_pools in_chans out_chans drop_prob",
    "models.Unet": "in_chans out_chans chans num_pool_layers drop_prob",
    "models.VarNet": "num_cascades sens_chans sens_pools chans pools mask_center",
    "models.unet.ConvBlock": "in_chans out_chans drop_prob",
    "models.varnet.VarNetBlock": "model",
    "pl_modules.FastMriDataModule": (
        "data_path challenge train_transform val_transform test_transform combine_train_val test_split "
        "test_path sample_rate val_sample_rate test_sample_rate volume_sample_rate val_volume_sample_rate "
        "test_volume_sample_rate train_filter val_filter test_filter use_dataset_cache_file batch_size "
        "num_workers distributed_sampler"
    ),
    "pl_modules.MriModule": "num_log_images",
    "pl_modules.UnetModule": (
        "in_chans out_chans chans num_pool_layers drop_prob lr lr_step_size lr_gamma weight_decay kwargs"
    ),
    "pl_modules.VarNetModule": (
        "num_cascades pools chans sens_pools sens_chans lr lr_step_size lr_gamma weight_decay kwargs"
    ),
    "rss": "data dim",
}


def test_the_table_has_all_that_is_used() -> None:
    used = set()
    for folder in ("fastmri_ufloss", "fastmri_examples"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("fastmri."):
                    used |= {f"{node.module}.{alias.name}" for alias in node.names}
                elif isinstance(node, ast.Attribute) and re.fullmatch(r"fastmri(\.\w+)+", ast.unparse(node)):
                    used.add(ast.unparse(node))
    used = {name for name in used if not any(other.startswith(f"{name}.") for other in used)}
    assert {name.removeprefix("fastmri.") for name in used} == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_fastmri_has_what_is_used(name: str) -> None:
    found = inspect.signature(pkgutil.resolve_name(f"fastmri.{name}")).parameters
    wanted = PARAMETERS[name].split()
    assert [each for each in found if each in wanted] == wanted, f"fastmri.{name} has other parameters: {[*found]}"
    new = [each for each in found.values() if each.name not in wanted and each.kind is not each.VAR_KEYWORD]
    assert all(each.default is not each.empty for each in new), f"fastmri.{name} needs more parameters: {new}"
