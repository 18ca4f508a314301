"""Intercept the products in the forward of a module, without a change of its code."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, partial, wraps
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from ohmformer.capture.contraction.grouped_matmul import GROUPED, group_contraction
from ohmformer.capture.contraction.matmul import Contraction, as_contraction
from ohmformer.capture.inputs import tensors_in
from ohmformer.capture.mask_following import Follower
from ohmformer.capture.opaque_tensors import opaque
from ohmformer.capture.recorder import FUSED, PRODUCTS, multiplies
from ohmformer.errors import BadInput
from ohmformer.nn.modules.activation_matmul import ActivationMatmulSite
from ohmformer.nn.modules.attention import AttentionSite
from ohmformer.nn.modules.class_swap import CROSSBAR_CLASS
from ohmformer.nn.modules.compile_guard import eager
from ohmformer.nn.modules.describing import joined, on_arrays
from ohmformer.nn.operands.plain_calls import refuse_scripting, refuse_transforms
from ohmformer.nn.operands.weight import WeightOperand
from ohmformer.nn.shared.state import Grown, State

T = TypeVar("T")

CHANGES = (
    "set_attn_implementation, get_peft_model, torch.jit.trace, .to(memory_format=...), or another forward or submodule"
)
"""Changes after which a model computes other products than on the sample."""


@dataclass(eq=False)
class Weights:
    """A matrix of weights, which is a parameter or a part of one, and its operand.

    The matrix is a view of the parameter, or a copy of such a view.

    Attributes:
        operand: the operand that holds the matrix; None if it stays digital.
        owner: the module that has the parameter.
        parameter: name of the parameter in that module.
        offset: number of values between the first value of the parameter and that of the view.
        shape: shape of the view.
        stride: stride of the view.
        matrix: shape of the matrix, [O, I] or [G, O, I].
    """

    operand: WeightOperand | None
    owner: nn.Module
    parameter: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    matrix: tuple[int, ...]

    def identities(self) -> list[tuple[Any, ...]]:
        """Return the keys by which a factor of a product is recognized as this matrix: address, shapes and strides.

        A matrix that is a whole parameter is also recognized without its strides: the parameter may have changed them,
        or may be computed from others (pruning, weight norm, `functional_call`).
        """
        parameter = getattr(self.owner, self.parameter)
        address = _address(parameter) + self.offset * parameter.element_size()
        exact = (address, self.shape, self.stride, self.matrix)
        return [exact, (address, self.matrix)] if prod(self.matrix) == parameter.numel() else [exact]


def _address(t: Tensor) -> int:
    """Return the memory address of the first value."""
    return t.untyped_storage().data_ptr() + int(t.storage_offset()) * t.element_size()


@dataclass(eq=False)
class Frame:
    """The record of what is intercepted in the forward of one module.

    A position is the index of a product among those of one call, products with weights not counted.

    Attributes:
        name: name of the module.
        state: the state of the model.
        sites: position -> site of attention.
        weights: the matrices of weights, on crossbars or digital.
        operations: position -> names of the functions in the dry run.
        scores: positions of Q K^T, whose results are followed to their mask.
        users: position of Q K^T -> position of the first P V that used its result, if both are in this module.
    """

    name: str
    state: State
    sites: dict[int, AttentionSite | ActivationMatmulSite] = field(default_factory=dict)
    weights: list[Weights] = field(default_factory=list)
    operations: Mapping[int, set[str]] = field(default_factory=dict)
    scores: set[int] = field(default_factory=set)
    users: dict[int, int] = field(default_factory=dict)

    def is_parametrized(self) -> bool:
        """True if some weights are parametrized, so that each access computes them."""
        return any(parametrize.is_parametrized(weights.owner) for weights in self.weights)

    def description(self) -> str:
        """Return the operands with the size of their arrays, for `print`."""
        parts = dict.fromkeys(on_arrays(w.parameter, w.operand) for w in self.weights if w.operand is not None)
        for site in self.sites.values():
            operands = (site.key, site.value) if isinstance(site, AttentionSite) else (site.operand,)
            parts |= dict.fromkeys(on_arrays(operand.axis, operand) for operand in operands if operand is not None)
        return "; ".join(parts)

    def operands(self) -> dict[tuple[Any, ...], WeightOperand | None]:
        """Return key of a matrix -> its operand, None if it stays digital; keys of two operands are left out."""
        by_key: dict[tuple[Any, ...], WeightOperand | None] = {}
        ambiguous: set[tuple[Any, ...]] = set()
        for weights in self.weights:
            for key in weights.identities():
                if by_key.setdefault(key, weights.operand) is not weights.operand:
                    ambiguous.add(key)  # two matrices of one shape, which differ in their strides alone
        return {key: operand for key, operand in by_key.items() if key not in ambiguous}


class Intercept(TorchFunctionMode):
    """Function mode that sends the products of one call of a module to their operands."""

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.frame = frame
        self.position = 0
        self.weights = frame.operands() if frame.weights else {}

    def __enter__(self) -> Any:
        frames = self.frames = self.frame.state.threads.here.frames  # a call stays in its thread
        outer = frames[-1] if frames else None
        # One module may compute scores, and the module around it may apply their mask.
        self.nested = isinstance(outer, Intercept)
        self.follower: Follower = outer.follower if isinstance(outer, Intercept) else Follower()
        frames.append(self)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        self.frames.pop()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def finish(self, module: nn.Module, output: Any) -> Any:
        """Return the output of the module; scores that did not reach a softmax get their values now.

        Raises:
            BadInput: the call had fewer products than on the sample, so some had the place of another.
        """
        self._check_complete()
        if self.nested or not self.follower.busy:
            return output
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                vars(module)[name] = self.follower.computed(value)
        return self.follower.computed(output)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace a product, and pass on all other calls."""
        kwargs = kwargs or {}
        if func not in PRODUCTS and func is not torch.einsum and not any(self.follower.followed):
            y = func(*args, **kwargs)  # most calls
            if func is torch.cat:
                note_grown(self.frame.state.threads.call.grown, y, *args, **kwargs)
            return y
        inner = self.frames[-1]
        innermost = inner is self
        if not innermost and isinstance(inner, Intercept) and inner.follower is self.follower:
            return func(*args, **kwargs)  # it is done with the call; what follows scores reads their shape, too
        if any(self.follower.followed) and (innermost or not self.nested):
            args, kwargs = self.follower.known((args, kwargs))
            if innermost and not multiplies(func, args):
                if self.follower.concerns(tensors_in((args, kwargs))):
                    return self.follower.call(func, args, kwargs)
            elif self.follower.waiting:
                args, kwargs = self.follower.computed((args, kwargs))
        if not innermost or not multiplies(func, args):
            return func(*args, **kwargs)
        if self.weights:
            y = self._product_with_weights(func, args, kwargs)
            if y is not None:
                return y
        position, self.position = self.position, self.position + 1
        self._check_operation(position, func)
        site = self.frame.sites.get(position)
        if isinstance(site, AttentionSite):
            return site.attend(*args, **kwargs)[0]
        return self._product_of_activations(position, site, func, args, kwargs)

    def _product_of_activations(
        self, position: int, site: ActivationMatmulSite | None, func: Any, args: Any, kwargs: Any
    ) -> Any:
        """Compute a product of two activations, on crossbars if it has a site."""
        # In the mode "bypass" products are exact, so masks do not matter.
        followed = self.frame.state.mode != "bypass"
        factors = as_contraction(func, args, kwargs) if site is not None or position in self.frame.scores else None
        if site is None:
            output = func(*args, **kwargs)
            if factors is not None and followed:
                self.follower.begin(factors, output)
            return output
        assert factors is not None
        if followed and position in self.frame.scores and site.operand.write == "right":
            return self.follower.wait(factors, partial(site.apply, factors))
        seen = self.follower.seen_by(func, args, kwargs) if followed else None
        if seen is None:
            return site.apply(factors)
        return site.apply(factors, (seen.transposed() if site.swapped else seen).left)

    def _check_operation(self, position: int, func: Any) -> None:
        """Refuse a product that the dry run did not record at this position.

        Raises:
            BadInput: there was another product, or none.
        """
        expected, operation = self.frame.operations.get(position, set()), func.__name__
        if operation not in expected:
            before = f"{' or '.join(sorted(expected))} stood there" if expected else "there were no more products"
            raise self._other_path(f"product number {position + 1} of a call is {operation}, but {before}")

    def _check_complete(self) -> None:
        """Refuse a call that ended between a product Q K^T and its P V, so that it took another path than the sample.

        Products are told apart by their positions alone, so a P V may then have stood at the position of a Q K^T.

        Raises:
            BadInput: the call ended there.
        """
        end = self.position
        if any(position < end <= user for position, user in self.frame.users.items()):
            count = f"{end} product{'s' if end > 1 else ''} of activations"
            raise self._other_path(f"a call ended after {count}, but there were {len(self.frame.operations)}")

    def _other_path(self, difference: str) -> BadInput:
        """Return the error for a call that does not take the path of the sample."""
        return BadInput(
            f"{self.frame.name or 'the model itself'}: {difference} on the sample; convert with a sample that takes "
            f"the same path, or, if {CHANGES} changed the model after its conversion, change the original and convert "
            "that; or keep it digital with all "
            f"inside by rules={{{self.frame.name!r}: None, {f'{self.frame.name}.*'.lstrip('.')!r}: None}}"
        )

    def _product_with_weights(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """Compute a product with weights of the frame, on crossbars or digital; None if no factor is such a matrix."""
        if func is FUSED:
            return None
        if func in GROUPED:
            parts = [self._multiply(part) for part in group_contraction(func, args, kwargs)]
            ys = [y for y in parts if y is not None]
            return torch.cat(ys) if parts and len(ys) == len(parts) else None
        return self._multiply(as_contraction(func, args, kwargs))

    def _multiply(self, factors: Contraction | None) -> Tensor | None:
        """Compute one matrix product with weights of the frame; None if no factor is such a matrix."""
        if factors is None:
            return None
        for form in _forms(factors):
            matrix, origin = form.right, form.origin
            address, shape = _address(origin), tuple(matrix.shape)
            key: tuple[Any, ...] = (address, tuple(origin.shape), origin.stride(), shape)
            key = key if key in self.weights else (address, shape)
            if key in self.weights:
                operand, x = self.weights[key], form.left
                y = x @ matrix.transpose(-2, -1) if operand is None else operand.product(x, matrix, origin)
                return form.finish(y)
        return None


def _forms(factors: Contraction) -> Iterator[Contraction]:
    """Yield the forms of a product whose right factor may be a matrix of weights: as it is, or one of its copies."""
    for form in (factors, factors.transposed()):
        if not opaque(form.origin):
            yield form
            shared = form.without_copies(single=True)
            if shared is not form:
                yield shared


def note_grown(grown: dict[int, Grown], whole: Tensor, tensors: Any, dim: Any = 0, **_: Any) -> None:
    """Note a tensor that `torch.cat` has made of a KV cache [B, R, n, d] and new tokens; other ones are left out.

    So are those of inference mode, which do not show whether they have changed.
    """
    if len(tensors) == 2 and dim in (-2, 2) and whole.dim() == 4 and not whole.is_inference():
        first = tensors[0]
        if not first.is_inference():
            grown[id(whole)] = Grown(weakref.ref(whole), weakref.ref(first), (whole._version, first._version))


def with_values(frames: list[object | None], tensors: T) -> T:
    """Return arguments of a module on crossbars, with placeholders of deferred scores replaced by their values.

    Such a module leaves the interception around it, which would replace them in its first operation.
    """
    frame = next((frame for frame in reversed(frames) if isinstance(frame, Intercept)), None)
    if frame is None or not frame.follower.busy:
        return tensors
    return frame.follower.computed(tensors)  # type: ignore[no-any-return]


@cache
def crossbar_class(cls: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass of a module's class whose forward runs under `Intercept`."""

    @eager
    @wraps(cls.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_transforms(*args, *kwargs.values())
        frame: Frame = self.ohmformer_frame
        # Parametrized weights are computed once per call, so that their memory identifies them.
        with parametrize.cached() if frame.is_parametrized() else nullcontext(), Intercept(frame) as intercept:
            return intercept.finish(self, cls.forward(self, *args, **kwargs))

    def reduce(self: Any) -> tuple[Any, ...]:
        return _empty_module, (cls,), self.__dict__

    def extra_repr(self: Any) -> str:
        return joined(cls.extra_repr(self), self.ohmformer_frame.description())

    methods = {
        "forward": forward,
        "__reduce__": reduce,
        "extra_repr": extra_repr,
        "__module__": cls.__module__,
        "__prepare_scriptable__": refuse_scripting,
        CROSSBAR_CLASS: True,
    }
    subclass: type[nn.Module] = type(f"Crossbar{cls.__name__}", (cls,), methods)
    return subclass


def _empty_module(cls: type[nn.Module]) -> nn.Module:
    """Return an empty module of a crossbar class, which pickle fills."""
    crossbar = crossbar_class(cls)  # type: ignore[arg-type]
    return crossbar.__new__(crossbar)
