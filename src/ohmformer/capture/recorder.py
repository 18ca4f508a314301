"""What every product of a forward pass multiplies: found by watching functions, and the kernels below them."""

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
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from ohmformer.capture.attention_roles import AttentionRoles
from ohmformer.capture.contraction.convolution import CONVOLUTIONS
from ohmformer.capture.contraction.grouped_matmul import GROUPED, group_contraction
from ohmformer.capture.contraction.matmul import Contraction, contraction
from ohmformer.capture.mask_following import Follower
from ohmformer.capture.masks import allowed, is_causal
from ohmformer.capture.opaque_tensors import opaque, shape_of
from ohmformer.capture.product import Digital, Kind, Product, Seen
from ohmformer.capture.signature import signature
from ohmformer.capture.torch_private import storage_id

FUSED = F.scaled_dot_product_attention
_WITH_WEIGHTS = {
    F.linear, F.conv3d, F.bilinear, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, torch.conv3d,
    *CONVOLUTIONS, *GROUPED,
}  # fmt: skip
_MATRICES = {
    torch.matmul, torch.bmm, torch.mm, torch.mv, torch.dot, torch.baddbmm, torch.addmm, torch.addbmm, torch.einsum,
    torch.tensordot, torch.inner, torch.chain_matmul, torch.linalg.multi_dot, torch.linalg.matmul, torch.linalg.vecdot,
    torch.addmv, torch.vdot, torch.kron, torch.outer, torch.ger, torch.addr,
    Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.bmm, Tensor.mm, Tensor.mv, Tensor.dot, Tensor.inner,
    Tensor.baddbmm, Tensor.addmm, Tensor.addbmm, Tensor.addmv, Tensor.vdot, Tensor.outer, Tensor.ger, Tensor.addr,
}  # fmt: skip
PRODUCTS = {FUSED, F.multi_head_attention_forward, *_WITH_WEIGHTS, *_MATRICES}
"""The functions that multiply matrices."""


def multiplies(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether a call multiplies matrices; `einsum` of one operand only moves or sums what it is given."""
    if func is torch.einsum:
        operands = args[1:] if len(args) != 2 or isinstance(args[1], Tensor) else tuple(args[1])
        return len(operands) > 1
    return func in PRODUCTS


_FILLED = {"new_ones", "new_zeros", "new_full", "ones_like", "zeros_like", "full_like"}
"""What makes constants of the size of what it is given."""
_IN_PLACE = re.compile(r"[a-z]\w*[a-z0-9]_").fullmatch
_ADDED_FIRST = {"baddbmm", "addmm", "addbmm", "addmv", "addr"}
_OUT_OF_PYTORCH = {Tensor.numpy, Tensor.__array__, Tensor.__dlpack__}
"""What hands values to other libraries."""
_HIDDEN = "it hands values to a library whose products are not seen"


class Recorder(TorchFunctionMode):
    """Records products, and tells activations from what follows from parameters and constants alone."""

    def __init__(self, model: nn.Module, seen: Seen) -> None:
        super().__init__()
        self.seen = seen
        self.roles = AttentionRoles(seen.stack)
        self.follower = Follower()
        self.factors: Contraction | None = None
        self.known = 0
        self.constant = 0
        self.fixed = WeakIdKeyDictionary()
        self.plain = WeakIdKeyDictionary()
        self.written: dict[int, object] = {}
        self.positions: Counter[tuple[str, int]] = Counter()
        self.owners: dict[int, list[tuple[str, Tensor]]] = {}
        for name, parameter in model.named_parameters():
            self.owners.setdefault(storage_id(parameter), []).append((name, parameter))
        for module in model.modules():
            for value in tree_leaves([dict(module._parameters), dict(module._buffers), list(vars(module).values())]):
                if isinstance(value, Tensor):
                    self.fixed[value] = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at one call, then let it happen."""
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        multiplying = multiplies(func, args)
        strange = next((why for t in inputs if (why := opaque(t))), "")
        fixed = all(self.fixed_value(t) for t in inputs)
        self.known += multiplying
        self.constant += fixed
        try:
            products = list(self._products(func, args, kwargs, inputs, strange)) if multiplying else []
            output = self._done(func, args, kwargs, products, strange)
        except Exception:
            self.seen.failed = self.module if self.seen.failed is None else self.seen.failed
            raise
        finally:
            self.known -= multiplying
            self.constant -= fixed
        self.seen.products += products
        outputs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        outputs += self._written_into(func, args)
        if fixed or func.__name__ in _FILLED:
            self.fixed.update((leaf, True) for leaf in outputs)
        if all(t in self.plain for t in inputs) or func.__name__ in _FILLED:
            self.plain.update((leaf, True) for leaf in outputs)
        if not strange:
            self.roles.follow(func, inputs, outputs, products)
            self._digital(func, outputs)
        return output

    def _done(self, func: Any, args: Any, kwargs: Any, products: list[Product], strange: str) -> Any:
        """What a call returns; scores are followed to their softmax, to see what their mask hides."""
        if func in _OUT_OF_PYTORCH and args[0].is_floating_point() and args[0].dim() > 1 and not self.constant:
            self.record_unknown(
                func.__name__, [args[0]], why="it hands values to a library whose products are not seen"
            )
        if products:
            output = func(*args, **kwargs)
            product, found = products[0], self.factors
            if product.kind in ("two activations", "computed weights") and found is not None and not output.is_meta:
                self.follower.begin(found, output, partial(_tell, product, found))
            return output
        if self.known or strange or not self.follower.concerns((args, kwargs)):
            return func(*args, **kwargs)
        self.known += 1  # calls are repeated on other values, to see what depends on what
        try:
            return self.follower.call(func, args, kwargs)
        finally:
            self.known -= 1

    def fixed_value(self, t: Tensor) -> bool:
        """Whether a tensor follows from parameters and constants alone."""
        return t in self.fixed and storage_id(t) not in self.written

    def _written_into(self, func: Any, args: Any) -> list[Tensor]:
        """The tensor that a call changes in place by what depends on the input, such as a buffer that caches keys."""
        name = getattr(func, "__name__", "")
        if not args or not isinstance(args[0], Tensor) or not (name == "__setitem__" or _IN_PLACE(name)):
            return []
        known = opaque(args[0]) or all(self.fixed_value(leaf) for leaf in tree_leaves(args) if isinstance(leaf, Tensor))
        if not known:
            self.written[storage_id(args[0])] = args[0].untyped_storage()
        return [args[0]]

    def _products(self, func: Any, args: Any, kwargs: Any, inputs: list[Tensor], strange: str) -> Iterator[Product]:
        """The products of a call: one for each expert of a bank, none where parameters meet parameters.

        `strange` says what keeps the tensors from being looked at.
        """
        why = strange or ("complex values, and cells hold real ones" if any(t.is_complex() for t in inputs) else "")
        if why:
            self.factors = None
            live = [t for t in inputs[:3] if not self.fixed_value(t)]
            product = self._product("two activations" if len(live) > 1 else "unknown", func, inputs[:2])
            product.why = f"{product.operation} has {why}"
            yield product
            return
        if func is FUSED or func is F.multi_head_attention_forward:
            kind: Kind = "attention" if func is FUSED else "multihead attention"
            product = self._product(kind, func, inputs[:3])
            if func is FUSED:
                self._fused(product, *args, **kwargs)
            else:
                self._multihead(product, args, kwargs)
            yield product
            return
        factors = group_contraction(func, args, kwargs) if func in GROUPED else [contraction(func, args, kwargs)]
        for found in factors:
            yield from self._factors(func, found, inputs, args, kwargs)

    def _factors(
        self, func: Any, found: Contraction | None, inputs: list[Tensor], args: Any, kwargs: Any
    ) -> Iterator[Product]:
        self.factors = found
        operands = inputs[1:] if func.__name__ in _ADDED_FIRST else inputs
        operands = operands[:2] if func in _WITH_WEIGHTS else operands
        live = [t for t in operands if not self.fixed_value(t)]
        weights = bool(live) or func in _WITH_WEIGHTS or (found is not None and self._of_constant(operands))
        if not weights:
            self._next_position(func)
            return
        if found is None:
            yield self._product("two activations" if len(live) > 1 or len(operands) < 2 else "unknown", func, operands)
            return
        for form in (found, found.swapped()):
            name = self._owner(form.origin)
            if name:
                yield self._weights(func, operands, name, form)
                return
        product = self._product("two activations" if len(live) > 1 else "computed weights", func, operands)
        if any(t in self.plain and self.fixed_value(t) for t in operands[:2]):
            product.kind = "constant"
        else:
            self.roles.role(product, *operands[:2])
        left, right = (operands[1], operands[0]) if product.swapped else (operands[0], operands[1])
        found = found.swapped() if product.swapped else found
        product.left = signature(found.left, self.fixed_value(left), matrix=True)
        product.right = signature(found.right, self.fixed_value(right), matrix=True)
        product.groups = distinct_heads(found.right)
        seen = self.follower.seen_by(func, args, kwargs)
        if seen is not None:
            product.causal = is_causal((seen.swapped() if product.swapped else seen).left)
        yield product

    def _of_constant(self, operands: list[Tensor]) -> bool:
        """Whether a parameter meets a constant, such as codes of positions: these are inputs like others."""
        owned = [bool(self._owner(t)) for t in operands]
        return owned.count(True) == 1 and all(own or t in self.plain for own, t in zip(owned, operands, strict=True))

    def _weights(self, func: Any, operands: list[Tensor], name: str, found: Contraction) -> Product:
        product = self._product("weights", func, operands, counted=False)
        product.weights, product.matrix, product.origin = name, found.right, found.origin
        constant = all(self.fixed_value(t) or storage_id(t) in self.owners for t in operands)
        product.left = signature(found.left, constant)
        return product

    def _product(self, kind: Kind, func: Any, operands: list[Tensor], *, counted: bool = True) -> Product:
        shapes = tuple(shape_of(t) for t in operands)
        module = self.module
        position = self._next_position(func) if counted else -1
        return Product(module, kind, func.__name__, shapes, position)

    @property
    def module(self) -> str:
        """Name of the innermost module at work."""
        return self.seen.stack[-1] if self.seen.stack else ""

    def _next_position(self, func: Any) -> int:
        key = (self.module, self.seen.calls[self.module])
        position = self.positions[key]
        self.positions[key] += 1
        self.seen.operations.setdefault(self.module, {}).setdefault(position, set()).add(func.__name__)
        return position

    def _fused(
        self, product: Product, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *rest: Any, **kw: Any
    ) -> None:
        """Complete the record of fused attention."""
        causal = (rest[1] if len(rest) > 1 else kw.get("is_causal", False)) or masks_later(attn_mask, query, key)
        product.causal, product.unsigned = bool(causal), True
        product.left = signature(query, self.fixed_value(query), matrix=True)
        product.right = signature(key, self.fixed_value(key), matrix=True)
        product.groups = distinct_heads(key)

    def _multihead(self, product: Product, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Complete the record of PyTorch's own multi-head attention on query[M, B, E] and key[N, B, E]."""
        query, key = args[:2]
        product.left, product.unsigned = signature(query, self.fixed_value(query)), True
        product.right = signature(key, self.fixed_value(key))
        mask = kwargs.get("attn_mask")
        if isinstance(mask, Tensor):
            mask = ~mask if mask.dtype == torch.bool else mask
            like = (query.transpose(0, -2), key.transpose(0, -2))
            product.causal = masks_later(mask, *like)

    def _owner(self, factor: Tensor) -> str:
        """Name of the parameter whose values these are, or empty."""
        for name, parameter in self.owners.get(storage_id(factor), ()):
            if part_of(factor, parameter):
                return name
        return ""

    def record_unknown(self, operation: str, inputs: list[Tensor], kind: Kind = "unknown", why: str = "") -> None:
        """Write down a product that no known function asked for."""
        shapes = tuple(shape_of(t) for t in inputs)
        self.seen.products.append(Product(self.module, kind, operation, shapes, why=why))

    def floating(self, given: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Floating tensors among arguments: those that depend on the input of the model, and matrices that do not."""
        found = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        live = [t for t in found if not self.fixed_value(t)]
        return live, [t for t in found if self.fixed_value(t) and t.dim() > 1]

    def _digital(self, func: Any, outputs: list[Tensor]) -> None:
        kind = _DIGITAL.get(getattr(func, "__name__", ""))
        if kind is not None and outputs:
            self.seen.digital.append(Digital(self.module, kind, tuple(outputs[0].shape)))


_DIGITAL: dict[str, Literal["softmax", "normalization", "activation"]] = {
    **dict.fromkeys(("softmax", "scaled_dot_product_attention"), "softmax"),
    **dict.fromkeys(("layer_norm", "rms_norm", "group_norm", "batch_norm", "instance_norm"), "normalization"),
    **dict.fromkeys(("gelu", "relu", "silu", "tanh", "sigmoid", "hardswish", "relu_", "elu", "mish"), "activation"),
}


def part_of(view: Tensor, whole: Tensor) -> bool:
    """Whether the first and the last value of a view are values of another view of the same memory."""
    first = int(view.storage_offset()) - int(whole.storage_offset())
    last = first + sum((size - 1) * stride for size, stride in zip(view.shape, view.stride(), strict=True))
    return view.numel() > 0 and all(_reached(place, whole) for place in (first, last))


def _reached(place: int, whole: Tensor) -> bool:
    """Whether a view holds the value so many places behind its first one."""
    for stride, size in sorted(zip(whole.stride(), whole.shape, strict=True), reverse=True):
        if stride and place >= 0:
            place -= min(place // stride, size - 1) * stride
    return place == 0


def distinct_heads(factor: Tensor) -> int | None:
    """How many heads [B, H, ..., ...] has if consecutive copies count once; None without an axis of heads."""
    if factor.dim() < 4:
        return None
    H = factor.shape[-3]
    for each in range(H, 1, -1):
        if H % each == 0 and not factor.is_meta:
            groups = factor.unflatten(-3, (H // each, each))
            if bool((groups == groups.narrow(-3, 0, 1)).all()):
                return H // each
    return H


def masks_later(mask: Any, query: Tensor, key: Tensor) -> bool:
    """Whether a mask of fused attention hides from every query all later keys, and not the query's own."""
    if not isinstance(mask, Tensor) or mask.is_meta or mask.dim() < 2:
        return False
    return tuple(mask.shape[-2:]) == (query.shape[-2], key.shape[-2]) and is_causal(allowed(mask))


def _tell(product: Product, found: Contraction, seen: Tensor | None) -> None:
    """What is seen [..., M, N] of a product is known: all, or some of it."""
    M, N = found.left.shape[-2], found.right.shape[-2]
    if M > 1:
        product.causal = seen is not None and is_causal(seen.expand(*seen.shape[:-2], M, N))
