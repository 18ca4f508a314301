"""What is used of PyTorch and transformers that they do not document: each line says what it relies on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

_TRACING_MODES = tuple(torch._C._TorchDispatchModeKey.__members__.values())
"""Modes of fake tensors, of proxies and of functional tensors."""


def storage_id(t: Tensor) -> int:
    """The same number for views of the same memory, on the meta device too: the address of PyTorch's own storage.

    -1 for tensors that have none, such as sparse ones.
    """
    try:
        return int(t.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return -1


def in_backward() -> bool:
    """Whether gradients are being computed in this thread: autograd numbers its runs, and outside it has none (-1)."""
    return int(torch._C._current_graph_task_id()) != -1


def pre_hooks(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    """Hooks before `forward` by their number, and the numbers of those that take keyword arguments."""
    return module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs


def post_hooks(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    """Hooks after `forward` by their number, and the numbers of those that run after errors, too."""
    return module._forward_hooks, module._forward_hooks_always_called


def state_dict_hooks(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    """Hooks after `state_dict` and before `load_state_dict` by their number; the latter are the `hook` of an object."""
    return module._state_dict_hooks, module._load_state_dict_pre_hooks


def wrapped(t: Tensor) -> bool:
    """Whether `torch.func` put a tensor into one of its own, such as a batch of `vmap`, whose memory is hidden."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(t))


def transform() -> str:
    """The transform or tracer of PyTorch inside which this thread computes now; "" outside of them.

    Each of them keeps a stack or a level in PyTorch's C++ part.
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
    """True if a tensor has a shape, but no values: on the meta device, or one of a tracer."""
    return t.is_meta or type(t).__name__ == "FakeTensor" or torch._is_functional_tensor(t)


def plain(t: Tensor) -> bool:
    """True if a tensor is dense, of one of PyTorch's two own classes, and has values. False says nothing."""
    return (
        (type(t) is Tensor or type(t) is nn.Parameter)
        and t.layout is torch.strided
        and not (t.is_meta or t.is_nested or t.is_quantized or wrapped(t))
    )


def compiling() -> bool:
    """True if `torch.compile` traces this code, or would compile the functions that are called here."""
    return torch.compiler.is_compiling() or torch._C._dynamo.eval_frame.get_eval_frame_callback() is not None


def own_dispatch(t: Tensor) -> bool:
    """Whether a tensor's class computes in a way of its own, as those of quantization libraries do."""
    return type(t).__torch_dispatch__ is not Tensor.__torch_dispatch__


def experts_implementation(module: nn.Module) -> str | None:
    """How a model of transformers computes its experts, as its configuration says; None for others."""
    found = getattr(getattr(module, "config", None), "_experts_implementation", None)
    return found if isinstance(found, str) else None


def set_experts_implementation(module: nn.Module, how: str) -> None:
    """Let a model of transformers compute its experts in another way: it looks at its configuration in every call."""
    module.config._experts_implementation = how  # type: ignore[union-attr]
