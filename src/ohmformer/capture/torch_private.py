"""All uses of undocumented parts of PyTorch, and of experts of transformers; each function names what it relies on.

`models/hf_private.py` has the other ones of transformers. The tables of a module (`_parameters`, `_buffers`,
`_modules`) and `Tensor._version`, which PyTorch's documents name, are read where they are needed.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator as HigherOrderOperator
from torch.autograd import forward_ad
from torch.multiprocessing.reductions import StorageWeakRef as StorageWeakRef  # its cdata is not used again meanwhile
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._python_dispatch import _get_current_dispatch_mode, _pop_mode_temporarily
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map_only as tree_map_only

_TRACING_MODES = tuple(torch._C._TorchDispatchModeKey.__members__.values())
"""Keys of the dispatch modes of fake tensors, proxies and functional tensors."""


def storage_id(t: Tensor) -> int:
    """The address of the storage of a tensor: the same number for all views of it, on the meta device too.

    -1 for tensors without a storage, such as sparse ones.
    """
    try:
        return int(t.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return -1


def in_backward() -> bool:
    """True while this thread computes gradients: autograd numbers its runs, and the number is -1 outside of them."""
    return int(torch._C._current_graph_task_id()) != -1


def is_replica(module: nn.Module) -> bool:
    """True if `nn.DataParallel` made the module, which it then calls in a thread of its own; it marks them so."""
    return getattr(module, "_is_replica", False) is True


def pre_hooks(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    """Number -> hook before `forward`, and the numbers of the hooks that take keyword arguments."""
    return module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs


def post_hooks(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    """Number -> hook after `forward`, and the numbers of the hooks that also run after errors."""
    return module._forward_hooks, module._forward_hooks_always_called


def state_dict_hooks(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    """Number -> hook after `state_dict`, and number -> object whose `hook` runs before `load_state_dict`."""
    return module._state_dict_hooks, module._load_state_dict_pre_hooks


def wrapped(t: Tensor) -> bool:
    """True if a tensor is a wrapper of `torch.func`, such as a batch of `vmap`, whose memory cannot be read."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(t))


def transform() -> str:
    """The transform or tracer of PyTorch inside which this thread runs, for messages; "" outside of them.

    Each of them keeps a stack or a level in the C++ part of PyTorch.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "transforms of torch.func (derivatives such as grad and jvp, or vmap)"
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace or torch.onnx.export"
    if torch._C._len_torch_dispatch_stack() and any(torch._C._get_dispatch_mode(key) for key in _TRACING_MODES):
        return "torch.export, make_fx and other tracing with tensors that have no values"
    if forward_ad._current_level >= 0:
        return "forward-mode derivatives"
    return ""


def valueless(t: Tensor) -> bool:
    """True if a tensor has a shape but no values: it is on the meta device, or a tracer made it."""
    return t.is_meta or type(t).__name__ == "FakeTensor" or torch._is_functional_tensor(t)


def plain(t: Tensor) -> bool:
    """True if a tensor is dense, has values, and is a `Tensor` or `Parameter`: a quick test of the usual case."""
    return (
        (type(t) is Tensor or type(t) is nn.Parameter)
        and t.layout is torch.strided
        and not (t.is_meta or t.is_nested or t.is_quantized or torch._C._functorch.is_functorch_wrapped_tensor(t))
    )


def function_modes() -> list[Any]:
    """The `TorchFunctionMode`s that are active, the innermost last."""
    return list(_get_current_function_mode_stack())


def unintercepted() -> AbstractContextManager[None]:
    """Context in which no `TorchFunctionMode` sees an operation, nor is slowed down by one."""
    return torch._C.DisableTorchFunction()


def without_innermost(mode: TorchDispatchMode | None) -> AbstractContextManager[Any]:
    """Context in which a dispatch mode sees no operation, if it is the innermost one; else a context without effect."""
    return _pop_mode_temporarily() if mode is not None and _get_current_dispatch_mode() is mode else nullcontext()


def compiler_loaded() -> bool:
    """True if PyTorch's compiler is imported, as a whole; importing it here would take seconds."""
    compiler = sys.modules.get("torch._dynamo")
    return hasattr(compiler, "reset") and hasattr(compiler, "disable")


def compiling() -> bool:
    """True if `torch.compile` traces this code, or would compile the functions that are called here."""
    return torch.compiler.is_compiling() or torch._C._dynamo.eval_frame.get_eval_frame_callback() is not None


def own_dispatch(t: Tensor) -> bool:
    """True if the class of a tensor defines how operations run on it, as those of quantization libraries do."""
    return type(t).__torch_dispatch__ is not Tensor.__torch_dispatch__


def experts_implementation(module: nn.Module) -> str | None:
    """The name of the implementation of experts in the configuration of a model of transformers; None for others."""
    name = getattr(getattr(module, "config", None), "_experts_implementation", None)
    return name if isinstance(name, str) else None


def set_experts_implementation(module: nn.Module, name: str) -> None:
    """Set the implementation of experts of a model of transformers, which reads its configuration in every call."""
    module.config._experts_implementation = name  # type: ignore[union-attr]


def computed_buffers(module: nn.Module) -> set[str]:
    """The names of the buffers of a module that state dictionaries leave out: `persistent=False`."""
    names: set[str] = module._non_persistent_buffers_set
    return names
