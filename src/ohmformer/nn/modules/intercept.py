"""Taking products out of the forward of a module, without touching its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ohmformer.capture.grouped_matmul import GROUPED, group_contraction
from ohmformer.capture.mask_following import Follower
from ohmformer.capture.matmul import Contraction, contraction
from ohmformer.capture.recorder import FUSED, multiplies
from ohmformer.errors import BadInput
from ohmformer.nn.modules.activation_matmul import PairSite
from ohmformer.nn.modules.attention import AttentionSite
from ohmformer.nn.modules.compile_guard import eager
from ohmformer.nn.operands.state import State
from ohmformer.nn.operands.weight import StaticOperand


@dataclass(eq=False)
class Weights:
    """A matrix that is a parameter, or a part of one, and the operand that holds it.

    Attributes:
        operand: it, or None where the matrix stays digital.
        owner: the module that has the parameter.
        parameter: what it is called there.
        offset: from the parameter's first value to the matrix's.
        shape: of the matrix [O, I] or [G, O, I].
        stride: of the matrix.
    """

    operand: StaticOperand | None
    owner: nn.Module
    parameter: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def key(self) -> tuple[Any, ...]:
        """What identifies the matrix among tensors now."""
        parameter = self.owner.get_parameter(self.parameter)
        return _address(parameter) + self.offset * parameter.element_size(), self.shape, self.stride


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
    sites: dict[int, AttentionSite | PairSite] = field(default_factory=dict)
    weights: list[Weights] = field(default_factory=list)
    operations: Mapping[int, set[str]] = field(default_factory=dict)
    scores: set[int] = field(default_factory=set)

    def operands(self) -> dict[tuple[Any, ...], StaticOperand | None]:
        """Operand by what identifies its matrix now."""
        return {weights.key(): weights.operand for weights in self.weights}


class Intercept(TorchFunctionMode):
    """Sends the products of one call of a module to their operands."""

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.frame = frame
        self.position = 0
        self.weights = frame.operands() if frame.weights else {}

    def __enter__(self) -> Any:
        frames = self.frame.state.frames
        around = frames[-1] if frames else None
        # Scores may be computed in one module, and meet their mask in the one around it.
        self.nested = isinstance(around, Intercept)
        self.follower: Follower = around.follower if isinstance(around, Intercept) else Follower()
        frames.append(self)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        self.frame.state.frames.pop()
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
        mine = self.frame.state.frames[-1] is self
        if self.follower.busy and (mine or not self.nested):
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
            return site.attend(*args, **kwargs)
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
                f"{before} on the sample; convert with a sample that takes the same path"
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
            matrix = product.right
            key = (_address(matrix), tuple(matrix.shape), matrix.stride())
            if key in self.weights:
                operand, x = self.weights[key], product.left
                y = x @ matrix.transpose(-2, -1) if operand is None else operand.product(x, matrix)
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
        with Intercept(self.crossbar_frame) as intercept:
            return intercept.done(self, cls.forward(self, *args, **kwargs))

    def reduce(self: Any) -> tuple[Any, ...]:
        return _blank, (cls,), self.__dict__

    methods = {"forward": forward, "__reduce__": reduce, "__module__": cls.__module__}
    subclass: type[nn.Module] = type(f"Crossbar{cls.__name__}", (cls,), methods)
    return subclass


def _blank(cls: type[nn.Module]) -> nn.Module:
    """An empty module of a class on crossbars, for pickle to fill."""
    made = crossbar_class(cls)  # type: ignore[arg-type]
    return made.__new__(made)
