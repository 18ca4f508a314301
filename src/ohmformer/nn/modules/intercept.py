"""Taking products out of the forward of a module, without touching its code."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, partial, wraps
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from ohmformer.capture.contraction.grouped_matmul import GROUPED, group_contraction
from ohmformer.capture.contraction.matmul import Contraction, contraction
from ohmformer.capture.mask_following import Follower
from ohmformer.capture.opaque_tensors import opaque
from ohmformer.capture.recorder import FUSED, multiplies
from ohmformer.errors import BadInput
from ohmformer.nn.describing import joined, on_arrays
from ohmformer.nn.modules.activation_matmul import ActivationMatmulSite
from ohmformer.nn.modules.attention import AttentionSite
from ohmformer.nn.modules.class_swap import CROSSBAR_CLASS
from ohmformer.nn.modules.compile_guard import eager
from ohmformer.nn.operands.plain_calls import refuse_scripting, refuse_transforms
from ohmformer.nn.operands.state import State
from ohmformer.nn.operands.weight import WeightOperand

CHANGES = (
    "set_attn_implementation, get_peft_model, torch.jit.trace, .to(memory_format=...), or another forward or submodule"
)
"""What makes a model multiply otherwise than it did on the sample."""


@dataclass(eq=False)
class Weights:
    """A matrix that is a parameter, or a part of one, and the operand that holds it.

    Attributes:
        operand: it, or None where the matrix stays digital.
        owner: the module that has the parameter.
        parameter: what it is called there.
        offset: from the parameter's first value to the matrix's.
        shape: of the view of the parameter that the matrix is, or is copied from.
        stride: of that view.
        matrix: shape [O, I] or [G, O, I] of the matrix.
    """

    operand: WeightOperand | None
    owner: nn.Module
    parameter: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    matrix: tuple[int, ...]

    def known_by(self) -> list[tuple[Any, ...]]:
        """What identifies the matrix among tensors now.

        A matrix that takes up the whole parameter is also known by its shape alone: the parameter may have other
        strides by now, or be one that is computed from others (pruning, weight norm, `functional_call`).
        """
        parameter = getattr(self.owner, self.parameter)
        address = _address(parameter) + self.offset * parameter.element_size()
        exact = (address, self.shape, self.stride, self.matrix)
        return [exact, (address, self.matrix)] if prod(self.matrix) == parameter.numel() else [exact]


def _address(t: Tensor) -> int:
    return t.untyped_storage().data_ptr() + int(t.storage_offset()) * t.element_size()


@dataclass(eq=False)
class Frame:
    """What is intercepted in the forward of one module.

    Attributes:
        name: of the module.
        state: what the whole model shares.
        sites: by position among the products of a call, those with weights not counted.
        weights: matrices that are held in cells.
        operations: by position, the functions that the dry run saw there.
        scores: positions of Q K^T, whose results are followed to see what their mask hides.
    """

    name: str
    state: State
    sites: dict[int, AttentionSite | ActivationMatmulSite] = field(default_factory=dict)
    weights: list[Weights] = field(default_factory=list)
    operations: Mapping[int, set[str]] = field(default_factory=dict)
    scores: set[int] = field(default_factory=set)

    def parametrized(self) -> bool:
        """Whether some of the weights are computed whenever they are asked for."""
        return any(parametrize.is_parametrized(weights.owner) for weights in self.weights)

    def described(self) -> str:
        """What is on which arrays."""
        parts = dict.fromkeys(on_arrays(w.parameter, w.operand) for w in self.weights if w.operand is not None)
        for site in self.sites.values():
            held = (site.key, site.value) if isinstance(site, AttentionSite) else (site.operand,)
            parts |= dict.fromkeys(on_arrays(operand.axis, operand) for operand in held if operand is not None)
        return "; ".join(parts)

    def operands(self) -> dict[tuple[Any, ...], WeightOperand | None]:
        """Operand by what identifies its matrix now."""
        found: dict[tuple[Any, ...], WeightOperand | None] = {}
        unclear: set[tuple[Any, ...]] = set()
        for weights in self.weights:
            for key in weights.known_by():
                if found.setdefault(key, weights.operand) is not weights.operand:
                    unclear.add(key)  # read as two matrices of one shape: told apart by strides only
        return {key: operand for key, operand in found.items() if key not in unclear}


class Intercept(TorchFunctionMode):
    """Sends the products of one call of a module to their operands."""

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.frame = frame
        self.position = 0
        self.weights = frame.operands() if frame.weights else {}

    def __enter__(self) -> Any:
        frames = self.frames = self.frame.state.threads.here.frames  # of this thread, in which the whole call goes on
        around = frames[-1] if frames else None
        # Scores may be computed in one module, and meet their mask in the one around it.
        self.nested = isinstance(around, Intercept)
        self.follower: Follower = around.follower if isinstance(around, Intercept) else Follower()
        frames.append(self)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        self.frames.pop()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def done(self, module: nn.Module, output: Any) -> Any:
        """The output of the module: scores that were not followed to a softmax are computed now."""
        if self.nested or not self.follower.busy:
            return output
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                vars(module)[name] = self.follower.computed(value)
        return self.follower.computed(output)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace a product; let everything else pass."""
        kwargs = kwargs or {}
        mine = self.frames[-1] is self
        if any(self.follower.followed) and (mine or not self.nested):
            args, kwargs = self.follower.known((args, kwargs))
            if mine and not multiplies(func, args):
                if self.follower.concerns((args, kwargs)):
                    return self.follower.call(func, args, kwargs)
            elif self.follower.waiting:
                args, kwargs = self.follower.computed((args, kwargs))
        if not mine or not multiplies(func, args):
            return func(*args, **kwargs)
        if self.weights:
            found = self._with_weights(func, args, kwargs)
            if found is not None:
                return found
        position, self.position = self.position, self.position + 1
        self._check(position, func)
        return self._product(position, func, args, kwargs)

    def _product(self, position: int, func: Any, args: Any, kwargs: Any) -> Any:
        """A product of two activations, or an attention."""
        site = self.frame.sites.get(position)
        if isinstance(site, AttentionSite):
            return site.attend(*args, **kwargs)[0]
        # Where products are exact and nothing is watched, it does not matter what is hidden.
        followed = self.frame.state.mode != "bypass"
        product = contraction(func, args, kwargs) if site is not None or position in self.frame.scores else None
        if site is None:
            output = func(*args, **kwargs)
            if product is not None and followed:
                self.follower.begin(product, output)
            return output
        assert product is not None
        if followed and position in self.frame.scores and site.operand.write == "right":
            return self.follower.wait(product, partial(site.apply, product))
        seen = self.follower.seen_by(func, args, kwargs) if followed else None
        if seen is None:
            return site.apply(product)
        return site.apply(product, (seen.swapped() if site.swapped else seen).left)

    def _check(self, position: int, func: Any) -> None:
        """Refuse another product than that which the dry run saw here.

        Raises:
            BadInput: it is another, or there was none.
        """
        expected, found = self.frame.operations.get(position, set()), func.__name__
        if found not in expected:
            before = f"{' or '.join(sorted(expected))} stood there" if expected else "there were no more products"
            raise BadInput(
                f"{self.frame.name or 'the model itself'}: product number {position + 1} of a call is {found}, but "
                f"{before} on the sample; convert with a sample that takes the same path, or, if {CHANGES} changed "
                "the model after its conversion, change the original and convert that; or keep it digital with all "
                f"inside by rules={{{self.frame.name!r}: None, {f'{self.frame.name}.*'.lstrip('.')!r}: None}}"
            )

    def _with_weights(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """A product with weights that are known, in cells or digital, or None where it has none."""
        if func is FUSED:
            return None
        if func in GROUPED:
            parts = [self._held(found) for found in group_contraction(func, args, kwargs)]
            return torch.cat([part for part in parts if part is not None]) if all_found(parts) else None
        return self._held(contraction(func, args, kwargs))

    def _held(self, found: Contraction | None) -> Tensor | None:
        if found is None:
            return None
        for product in (found, found.swapped()):
            matrix, origin = product.right, product.origin
            if opaque(origin):
                continue
            address, shape = _address(origin), tuple(matrix.shape)
            key: tuple[Any, ...] = (address, tuple(origin.shape), origin.stride(), shape)
            key = key if key in self.weights else (address, shape)
            if key in self.weights:
                operand, x = self.weights[key], product.left
                y = x @ matrix.transpose(-2, -1) if operand is None else operand.product(x, matrix, origin)
                return product.finish(y)
        return None


def all_found(parts: list[Tensor | None]) -> bool:
    """Whether every part of a product is known."""
    return bool(parts) and all(part is not None for part in parts)


@cache
def crossbar_class(cls: type[nn.Module]) -> type[nn.Module]:
    """The subclass of a module's class whose forward runs under `Intercept`."""

    @eager
    @wraps(cls.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_transforms(*args, *kwargs.values())
        frame: Frame = self.ohmformer_frame
        # Weights that are computed whenever they are asked for are computed once, so that they are known again.
        with parametrize.cached() if frame.parametrized() else nullcontext(), Intercept(frame) as intercept:
            return intercept.done(self, cls.forward(self, *args, **kwargs))

    def reduce(self: Any) -> tuple[Any, ...]:
        return _blank, (cls,), self.__dict__

    def extra_repr(self: Any) -> str:
        return joined(cls.extra_repr(self), self.ohmformer_frame.described())

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


def _blank(cls: type[nn.Module]) -> nn.Module:
    """An empty module of a class on crossbars, for pickle to fill."""
    made = crossbar_class(cls)  # type: ignore[arg-type]
    return made.__new__(made)
