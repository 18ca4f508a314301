"""`Recorder`: records what every product of a forward pass multiplies, from the calls of PyTorch's functions.

A tensor is an activation if its values depend on the input of the model, and input-independent otherwise: parameters,
buffers, constants, and tensors computed from these alone. `capture.kernels` finds what happens below the functions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from ohmformer.capture.attention_roles import AttentionRoles
from ohmformer.capture.contraction.convolution import CONVOLUTIONS
from ohmformer.capture.contraction.grouped_matmul import GROUPED, group_contraction
from ohmformer.capture.contraction.matmul import Contraction, as_contraction
from ohmformer.capture.inputs import tensors_in
from ohmformer.capture.mask_following import Follower
from ohmformer.capture.masks import allowed, is_causal
from ohmformer.capture.opaque_tensors import opaque, shape_of
from ohmformer.capture.product import DigitalStep, Kind, PassRecord, Product
from ohmformer.capture.signature import signature
from ohmformer.capture.torch_private import (
    TorchDispatchMode,
    function_modes,
    storage_id,
    tree_leaves,
    without_innermost,
)

FUSED = F.scaled_dot_product_attention
_WEIGHT_FUNCTIONS = {
    F.linear, F.conv3d, F.bilinear, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, torch.conv3d,
    *CONVOLUTIONS, *GROUPED,
}  # fmt: skip
_MATRIX_FUNCTIONS = {
    torch.matmul, torch.bmm, torch.mm, torch.mv, torch.dot, torch.baddbmm, torch.addmm, torch.addbmm, torch.einsum,
    torch.tensordot, torch.inner, torch.chain_matmul, torch.linalg.multi_dot, torch.linalg.matmul, torch.linalg.vecdot,
    torch.addmv, torch.vdot, torch.kron, torch.outer, torch.ger, torch.addr,
    Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.bmm, Tensor.mm, Tensor.mv, Tensor.dot, Tensor.inner,
    Tensor.baddbmm, Tensor.addmm, Tensor.addbmm, Tensor.addmv, Tensor.vdot, Tensor.outer, Tensor.ger, Tensor.addr,
}  # fmt: skip
PRODUCTS = {FUSED, F.multi_head_attention_forward, *_WEIGHT_FUNCTIONS, *_MATRIX_FUNCTIONS}
"""The functions that multiply matrices."""


def multiplies(func: Any, args: tuple[Any, ...]) -> bool:
    """True if a call multiplies matrices; `einsum` of one operand only moves or sums values."""
    if func is torch.einsum:
        operands = args[1:] if len(args) != 2 or isinstance(args[1], Tensor) else tuple(args[1])
        return len(operands) > 1
    return func in PRODUCTS


def recording() -> bool:
    """True inside a forward pass that a `Recorder` records."""
    return any(isinstance(mode, Recorder) for mode in function_modes())


_FILLED = {"new_ones", "new_zeros", "new_full", "ones_like", "zeros_like", "full_like"}
"""Functions that make a constant in the size of their argument."""
_IN_PLACE = re.compile(r"[a-z]\w*[a-z0-9]_").fullmatch
_ADDEND_FIRST = {"baddbmm", "addmm", "addbmm", "addmv", "addr"}
"""Functions whose first argument is added to the product."""
_EXPORTS = {Tensor.numpy, Tensor.__array__, Tensor.__dlpack__}
"""Functions that hand values to other libraries."""
_BOOKKEEPING = vars(nn.Module()).keys() - {"_parameters", "_buffers"}
"""Attributes of every module that hold no tensors of its own, such as hooks and the modules inside it."""
_EXPORTED = "it hands values to another library, whose products are not recorded"


class Recorder(TorchFunctionMode):
    """Records the products and digital steps of a forward pass.

    Attributes:
        record: what has been recorded so far.
        roles: follows the results of products through attention.
        follower: follows scores to their softmax, to see their mask.
        contraction: the factors of the last product; None if they are not known.
        recorded_depth: number of running calls whose products are recorded, so that kernels below them are not.
        independent_depth: number of running calls without an activation among their inputs.
        independent: the input-independent tensors.
        constants: those of them that no parameter enters.
        overwritten: storage id -> storage into which a call wrote values that depend on the input.
        positions: (module, number of its call) -> number of products so far.
        parameters: storage id -> (name, parameter) of each parameter in that storage.
        kernels: the dispatch mode that records kernels, if one does; it is off while a recorded product is computed.
    """

    def __init__(self, model: nn.Module, record: PassRecord) -> None:
        super().__init__()
        self.record = record
        self.roles = AttentionRoles(record.stack)
        self.follower = Follower()
        self.contraction: Contraction | None = None
        self.recorded_depth = 0
        self.independent_depth = 0
        self.independent = WeakIdKeyDictionary()
        self.constants = WeakIdKeyDictionary()
        self.overwritten: dict[int, object] = {}
        self.positions: Counter[tuple[str, int]] = Counter()
        self.parameters: dict[int, list[tuple[str, Tensor]]] = {}
        self.kernels: TorchDispatchMode | None = None
        for name, parameter in model.named_parameters():
            self.parameters.setdefault(storage_id(parameter), []).append((name, parameter))
        for module in model.modules():
            own = [value for name, value in vars(module).items() if name not in _BOOKKEEPING]
            self.independent.update((t, True) for t in tensors_in(own))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record one call of a function, and run it."""
        kwargs = kwargs or {}
        inputs = tensors_in((args, kwargs))
        multiplying = multiplies(func, args)
        opacity = next((why for t in inputs if (why := opaque(t))), "")
        independent = all(self.is_independent(t) for t in inputs)
        self.recorded_depth += multiplying
        self.independent_depth += independent
        try:
            with without_innermost(self.kernels if multiplying else None):
                products = list(self._products_of_call(func, args, kwargs, inputs, opacity)) if multiplying else []
                output = self._run_call(func, args, kwargs, products, inputs, opacity)
        except Exception:
            self.record.failed = self.module if self.record.failed is None else self.record.failed
            raise
        finally:
            self.recorded_depth -= multiplying
            self.independent_depth -= independent
        self.record.products += products
        outputs = tensors_in(output)
        outputs += self._changed_in_place(func, args)
        if independent or func.__name__ in _FILLED:
            self.independent.update((leaf, True) for leaf in outputs)
        if all(t in self.constants for t in inputs) or func.__name__ in _FILLED:
            self.constants.update((leaf, True) for leaf in outputs)
        if not opacity:
            self.roles.follow(func, inputs, outputs, products)
            self._record_digital_step(func, outputs)
        return output

    def _run_call(
        self, func: Any, args: Any, kwargs: Any, products: list[Product], inputs: list[Tensor], opacity: str
    ) -> Any:
        """Run a call and return its output; scores are followed to their softmax, to see what their mask hides."""
        if func in _EXPORTS and args[0].is_floating_point() and args[0].dim() > 1 and not self.independent_depth:
            self.record_unknown(func.__name__, [args[0]], why=_EXPORTED)
        if products:
            output = func(*args, **kwargs)
            product, factors = products[0], self.contraction
            if product.kind in ("two activations", "computed weights") and factors is not None and not output.is_meta:
                self.follower.begin(factors, output, partial(_set_causal, product, factors))
            return output
        if self.recorded_depth or opacity or not self.follower.concerns(inputs):
            return func(*args, **kwargs)
        self.recorded_depth += 1  # the follower repeats calls on other values; these are not calls of the model
        try:
            return self.follower.call(func, args, kwargs)
        finally:
            self.recorded_depth -= 1

    def is_independent(self, t: Tensor) -> bool:
        """True if a tensor does not depend on the input of the model."""
        return t in self.independent and storage_id(t) not in self.overwritten

    def _changed_in_place(self, func: Any, args: Any) -> list[Tensor]:
        """The tensor that a call changes in place, or []; it counts as an activation if an activation enters it.

        Example: a buffer into which the model writes the keys of new tokens.
        """
        name = getattr(func, "__name__", "")
        if not args or not isinstance(args[0], Tensor) or not (name == "__setitem__" or _IN_PLACE(name)):
            return []
        tensors = (leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor))
        independent = opaque(args[0]) or all(map(self.is_independent, tensors))
        if not independent:
            self.overwritten[storage_id(args[0])] = args[0].untyped_storage()
        return [args[0]]

    def _products_of_call(
        self, func: Any, args: Any, kwargs: Any, inputs: list[Tensor], opacity: str
    ) -> Iterator[Product]:
        """The products of a call: one per expert for a bank of experts, none for a product of parameters alone.

        `opacity` names the reason why the values of the tensors cannot be read; "" if they can.
        """
        why = opacity or ("complex values, and cells hold real ones" if any(t.is_complex() for t in inputs) else "")
        if why:
            self.contraction = None
            activations = [t for t in inputs[:3] if not self.is_independent(t)]
            product = self._new_product("two activations" if len(activations) > 1 else "unknown", func, inputs[:2])
            product.why = f"{product.operation} has {why}"
            yield product
            return
        if func is FUSED or func is F.multi_head_attention_forward:
            kind: Kind = "attention" if func is FUSED else "multihead attention"
            product = self._new_product(kind, func, inputs[:3])
            if func is FUSED:
                self._complete_fused(product, *args, **kwargs)
            else:
                self._complete_multihead(product, args, kwargs)
            yield product
            return
        contractions = (
            group_contraction(func, args, kwargs) if func in GROUPED else [as_contraction(func, args, kwargs)]
        )
        for factors in contractions:
            yield from self._products_of_factors(func, factors, inputs, args, kwargs)

    def _products_of_factors(
        self, func: Any, factors: Contraction | None, inputs: list[Tensor], args: Any, kwargs: Any
    ) -> Iterator[Product]:
        """The product of two factors, if it is one to record; `factors` is None if the call is not understood."""
        self.contraction = factors
        tensors = inputs[1:] if func.__name__ in _ADDEND_FIRST else inputs
        tensors = tensors[:2] if func in _WEIGHT_FUNCTIONS else tensors
        activations = [t for t in tensors if not self.is_independent(t)]
        recorded = bool(activations) or func in _WEIGHT_FUNCTIONS
        recorded = recorded or (factors is not None and self._is_parameter_by_constant(tensors))
        if not recorded:
            self._next_position(func)
            return
        if factors is None:
            two = len(activations) > 1 or len(tensors) < 2
            yield self._new_product("two activations" if two else "unknown", func, tensors)
            return
        for form in (factors, factors.transposed()):
            name = self._parameter_of(form.origin)
            if name:
                yield self._weight_product(func, tensors, name, form.without_copies())
                return
        product = self._new_product("two activations" if len(activations) > 1 else "computed weights", func, tensors)
        if any(t in self.constants and self.is_independent(t) for t in tensors[:2]):
            product.kind = "constant"
        else:
            self.roles.assign(product, *tensors[:2])
        left, right = (tensors[1], tensors[0]) if product.swapped else (tensors[0], tensors[1])
        factors = factors.transposed() if product.swapped else factors
        product.left = signature(factors.left, self.is_independent(left), matrix=True)
        product.right = signature(factors.right, self.is_independent(right), matrix=True)
        product.groups = count_distinct_heads(factors.right)
        visible = self.follower.seen_by(func, args, kwargs)
        if visible is not None:
            product.causal = is_causal((visible.transposed() if product.swapped else visible).left)
        yield product

    def _is_parameter_by_constant(self, tensors: list[Tensor]) -> bool:
        """True if one tensor is a parameter and the others are constants, such as position codes, which are inputs."""
        are_parameters = [bool(self._parameter_of(t)) for t in tensors]
        return are_parameters.count(True) == 1 and all(
            is_parameter or t in self.constants for is_parameter, t in zip(are_parameters, tensors, strict=True)
        )

    def _weight_product(self, func: Any, tensors: list[Tensor], name: str, factors: Contraction) -> Product:
        product = self._new_product("weights", func, tensors, counted=False)
        product.weights, product.matrix, product.origin = name, factors.right, factors.origin
        constant = all(self.is_independent(t) or storage_id(t) in self.parameters for t in tensors)
        product.left = signature(factors.left, constant)
        return product

    def _new_product(self, kind: Kind, func: Any, tensors: list[Tensor], *, counted: bool = True) -> Product:
        shapes = tuple(shape_of(t) for t in tensors)
        module = self.module
        position = self._next_position(func) if counted else -1
        return Product(module, kind, func.__name__, shapes, position)

    @property
    def module(self) -> str:
        """Name of the innermost module whose `forward` runs."""
        return self.record.stack[-1] if self.record.stack else ""

    def _next_position(self, func: Any) -> int:
        """Count a product of the current call of the module, and return its index."""
        key = (self.module, self.record.calls[self.module])
        position = self.positions[key]
        self.positions[key] += 1
        self.record.operations.setdefault(self.module, {}).setdefault(position, set()).add(func.__name__)
        return position

    def _complete_fused(
        self, product: Product, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *rest: Any, **kw: Any
    ) -> None:
        """Complete the record of fused attention on query[..., M, d] and key[..., N, d]."""
        causal = (rest[1] if len(rest) > 1 else kw.get("is_causal", False)) or hides_later_keys(attn_mask, query, key)
        product.causal, product.unsigned = bool(causal), True
        product.left = signature(query, self.is_independent(query), matrix=True)
        product.right = signature(key, self.is_independent(key), matrix=True)
        product.groups = count_distinct_heads(key)

    def _complete_multihead(self, product: Product, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Complete the record of `F.multi_head_attention_forward` on query[M, B, E] and key[N, B, E]."""
        query, key = args[:2]
        product.left, product.unsigned = signature(query, self.is_independent(query)), True
        product.right = signature(key, self.is_independent(key))
        mask = kwargs.get("attn_mask")
        if isinstance(mask, Tensor):
            mask = ~mask if mask.dtype == torch.bool else mask
            batch_first = (query.transpose(0, -2), key.transpose(0, -2))
            product.causal = hides_later_keys(mask, *batch_first)

    def _parameter_of(self, factor: Tensor) -> str:
        """Name of the parameter that holds the values of a factor; "" if none does."""
        for name, parameter in self.parameters.get(storage_id(factor), ()):
            if is_part_of(factor, parameter):
                return name
        return ""

    def record_unknown(self, operation: str, inputs: list[Tensor], kind: Kind = "unknown", why: str = "") -> None:
        """Record a product that is not computed by one of the functions `PRODUCTS`."""
        shapes = tuple(shape_of(t) for t in inputs)
        self.record.products.append(Product(self.module, kind, operation, shapes, why=why))

    def floating_tensors(self, arguments: Any) -> tuple[list[Tensor], list[Tensor]]:
        """The activations of floating type among arguments, and the input-independent floating matrices."""
        tensors = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        activations = [t for t in tensors if not self.is_independent(t)]
        return activations, [t for t in tensors if self.is_independent(t) and t.dim() > 1]

    def _record_digital_step(self, func: Any, outputs: list[Tensor]) -> None:
        kind = _DIGITAL_KINDS.get(getattr(func, "__name__", ""))
        if kind is not None and outputs:
            self.record.digital.append(DigitalStep(self.module, kind, tuple(outputs[0].shape)))


_DIGITAL_KINDS: dict[str, Literal["softmax", "normalization", "activation"]] = {
    **dict.fromkeys(("softmax", "scaled_dot_product_attention"), "softmax"),
    **dict.fromkeys(("layer_norm", "rms_norm", "group_norm", "batch_norm", "instance_norm"), "normalization"),
    **dict.fromkeys(("gelu", "relu", "silu", "tanh", "sigmoid", "hardswish", "relu_", "elu", "mish"), "activation"),
}


def is_part_of(view: Tensor, whole: Tensor) -> bool:
    """True if the first and the last value of a view are values of another view of the same memory."""
    first = int(view.storage_offset()) - int(whole.storage_offset())
    last = first + sum((size - 1) * stride for size, stride in zip(view.shape, view.stride(), strict=True))
    return view.numel() > 0 and all(_holds_offset(offset, whole) for offset in (first, last))


def _holds_offset(offset: int, whole: Tensor) -> bool:
    """True if a view holds the value that lies `offset` values behind its first one in memory."""
    for stride, size in sorted(zip(whole.stride(), whole.shape, strict=True), reverse=True):
        if stride and offset >= 0:
            offset -= min(offset // stride, size - 1) * stride
    return offset == 0


def count_distinct_heads(factor: Tensor) -> int | None:
    """Number of heads of a factor [B, H, ..., ...], where adjacent copies count once; None without an axis of heads."""
    if factor.dim() < 4:
        return None
    H = factor.shape[-3]
    for copies in range(H, 1, -1):
        if H % copies == 0 and not factor.is_meta:
            groups = factor.unflatten(-3, (H // copies, copies))
            if bool((groups == groups.narrow(-3, 0, 1)).all()):
                return H // copies
    return H


def hides_later_keys(mask: Any, query: Tensor, key: Tensor) -> bool:
    """True if a mask of fused attention hides all later keys from every query, but not the query's own key."""
    if not isinstance(mask, Tensor) or mask.is_meta or mask.dim() < 2:
        return False
    return tuple(mask.shape[-2:]) == (query.shape[-2], key.shape[-2]) and is_causal(allowed(mask))


def _set_causal(product: Product, factors: Contraction, visible: Tensor | None) -> None:
    """Note whether a product Q K^T is causal, from the keys that are visible [..., M, N]; None if all are."""
    M, N = factors.left.shape[-2], factors.right.shape[-2]
    if M > 1:
        product.causal = visible is not None and is_causal(visible.expand(*visible.shape[:-2], M, N))
