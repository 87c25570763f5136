"""A GPU that is pretended on the CPU: numbers are real, mixed devices fail, and waits for the GPU are counted.

The device "gpu" is torch's PrivateUse1 with a Python device guard, of torch 2.10 and later. Its tensors wrap those of
the CPU; below autograd all operations on them come to `_run`. As the device cannot be taken away again, this is for
a process of its own.
"""

import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

import torch
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

NAME = "gpu"
CPU = torch.device("cpu")
waits: Counter[str] = Counter()
"""Waits by file and function of the package."""
unordered: set[str] = set()
"""Operations whose results differ from call to call on CUDA, which ``torch.use_deterministic_algorithms`` refuses."""

READ = {"_local_scalar_dense", "equal", "is_nonzero"}
SIZED_BY_DATA = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
WITH_ERROR_CODE = {"_linalg_eigh", "_linalg_svd", "linalg_inv_ex", "linalg_cholesky_ex", "_linalg_solve_ex"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
UNORDERED = {
    *(f"{kind}_pad{n}d_backward" for kind in ("reflection", "replication") for n in (1, 2, 3)),
    *("nll_loss2d_forward", "upsample_bilinear2d_backward", "grid_sampler_2d_backward", "median", "histc"),
    *("_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward"),
}
# beside those that torch marks as pointwise: a number on the CPU may meet tensors of the GPU here
POINTWISE = {"where", "masked_fill", "masked_fill_", "fill_", "lerp_", "addcmul_", "addcdiv_", "clamp", "full_like"}


class GpuTensor(Tensor):
    """A tensor that says that it is on the GPU, and has its numbers in ``inner``."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "GpuTensor":
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        tensor = Tensor._make_wrapper_subclass(cls, inner.size(), **layout, device=torch.device(NAME, 0))
        tensor.inner = inner
        return tensor

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.__reduce_ex__(protocol)

    def tolist(self) -> Any:
        _wait()
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("a tensor on the GPU is no array")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class PretendedGpu(TorchDispatchMode):
    """Lets ``device="gpu"`` make tensors."""

    def __enter__(self) -> Any:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

        def nothing(*_: Any) -> None: ...

        backend = SimpleNamespace(
            **dict.fromkeys(
                ("manual_seed", "manual_seed_all", "set_device", "synchronize", "set_rng_state"), nothing
            ),
            **dict.fromkeys(("is_available", "is_initialized"), lambda: True),
            _is_in_bad_fork=lambda: False,
            _lazy_init=nothing,
            current_device=lambda: 0,
            device_count=lambda: 1,
            get_rng_state=lambda *_: torch.zeros(1, dtype=torch.uint8),
            get_amp_supported_dtype=lambda: [torch.bfloat16],
            current_stream=lambda *_: SimpleNamespace(
                record_stream=nothing, wait_stream=nothing, synchronize=nothing
            ),
        )
        _setup_privateuseone_for_python_backend(NAME, backend_module=backend)
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _wait() -> None:
    """Note a wait at the innermost function of the package that is running, or else of any other."""
    frame: Any = sys._getframe(1)
    place = "elsewhere"
    while frame is not None:
        if "/fastmri_ufloss/" in frame.f_code.co_filename and not frame.f_code.co_name.startswith("<"):
            place = f"{frame.f_code.co_filename.rpartition('/')[2]} {frame.f_code.co_name}"
            break
        frame = frame.f_back
    waits[place] += 1


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    flat, spec = tree_flatten((args, kwargs))
    on_gpu = [x for x in flat if isinstance(x, GpuTensor)]
    if not on_gpu and not any(isinstance(x, torch.device) and x.type == NAME for x in flat):
        return func(*args, **kwargs)
    name = func._schema.name.split("::")[1]
    goes_to_cpu = False
    if name == "_to_copy":
        goes_to_cpu = bool(on_gpu) and kwargs.get("device", torch.device(NAME)).type == "cpu"
        if goes_to_cpu or not (on_gpu or kwargs.get("non_blocking")):
            _wait()
    elif name == "copy_":
        blocks = len(args) < 3 or not args[2]
        if not isinstance(args[0], GpuTensor) or (not isinstance(args[1], GpuTensor) and blocks):
            _wait()
    elif name in READ | SIZED_BY_DATA | WITH_ERROR_CODE:
        _wait()
    elif name in INDEXING:
        _check_indices(name, args)
    else:
        others = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, GpuTensor)]
        pointwise = torch.Tag.pointwise in func.tags or name in POINTWISE or name.startswith("_foreach_")
        if on_gpu and any(x.ndim > 0 or not pointwise for x in others):
            raise RuntimeError(f"{name}: tensors on two devices, {[tuple(x.shape) for x in others]} on the CPU")
        if any(isinstance(x, torch.Generator) for x in flat):
            raise RuntimeError(f"{name}: the generator is on the CPU")
    if name in UNORDERED:
        unordered.add(name)
    known = {id(x.inner): x for x in on_gpu}
    plain = [x.inner if isinstance(x, GpuTensor) else CPU if isinstance(x, torch.device) else x for x in flat]
    new_args, new_kwargs = tree_unflatten(plain, spec)
    made = func(*new_args, **new_kwargs)

    def wrap(x: Any) -> Any:
        if goes_to_cpu or not isinstance(x, Tensor):
            return x
        return known[id(x)] if id(x) in known else GpuTensor(x)

    return tree_map(wrap, made)


def _check_indices(name: str, args: Any) -> None:
    target, indices = args[:2]
    for index in indices:
        if isinstance(index, GpuTensor) and not isinstance(target, GpuTensor):
            raise RuntimeError(f"{name}: an index on the GPU for a tensor on the CPU")
        is_copied = isinstance(index, Tensor) and not isinstance(index, GpuTensor)
        is_counted = isinstance(index, Tensor) and index.dtype == torch.bool
        if is_copied or (is_counted and not ("put" in name and args[2].numel() == 1)):
            _wait()
    if "put" in name and args[2].ndim > 0 and not isinstance(args[2], GpuTensor):
        raise RuntimeError(f"{name}: values on the CPU for a tensor on the GPU")


class _GpuAccelerator(Accelerator):
    def setup_device(self, device: Any) -> None: ...
    def teardown(self) -> None: ...
    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> Any:
        return [torch.device(NAME, 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return NAME


def strategy() -> SingleDeviceStrategy:
    """Of Lightning, for the pretended GPU."""
    return SingleDeviceStrategy(device=torch.device(NAME, 0), accelerator=_GpuAccelerator())
