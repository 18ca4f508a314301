"""The passes of a served request: one prefill of the prompt, then one decoding step for each further token.

The prefill makes the first generated token. So G generated tokens take G - 1 steps; step i reads the tokens that the
prefill and the steps before it have left in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from ohmformer.errors import BadInput, check_type, given, shown
from ohmformer.quantities import whole_number
from ohmformer.schema import load
from ohmformer.workload.shapes import PREFIX, Transformer, shapes
from ohmformer.workload.spec import Layer, Op, StaticMatMul, Workload

MOST_GENERATED = 32_768
"""Maximum number of generated tokens, whose steps take about 20 s to price."""


@dataclass(frozen=True)
class Steps:
    """Decoding steps whose sizes grow by the same amounts from each step to the next.

    Attributes:
        first: the workload of the first step.
        last: the workload of the last step.
        count: number of steps.
    """

    first: Workload
    last: Workload
    count: int

    @property
    def uniform(self) -> bool:
        """True if layers that are equal in one step are equal in all of them."""
        return self.first.kinds == self.last.kinds

    @property
    def grows_evenly(self) -> bool:
        """True if all sizes of the last step are those of the first one and a whole growth per step."""
        try:
            self.workload(0)
        except BadInput:
            return False
        return True

    def layer(self, position: int, index: int) -> Layer:
        """A layer of a step; operations that do not change are those of the last step, and so is a layer of them."""
        last = self.last.layers()[position]
        if position in self._constant:
            return last
        pairs = zip(self.first.layers()[position].ops, last.ops, strict=True)
        ops = tuple(self._op(one, other, index) for one, other in pairs)
        if all(one is other for one, other in zip(ops, last.ops, strict=True)):
            self._constant.add(position)
            return last
        return Layer(last.name, last.index, last.tokens, ops)

    def workload(self, index: int) -> Workload:
        """The workload of a step."""
        ops = tuple(self._op(one, other, index) for one, other in zip(self.first.ops, self.last.ops, strict=True))
        return replace(self.last, context=self.first.context + index, ops=ops)

    def _op(self, one: Op, other: Op, index: int) -> Op:
        growth = self._growth.get(id(other))
        if growth is None:
            growth = self._growth[id(other)] = _growth(one, other, self.count - 1)
        if not growth:
            return other
        sizes: Any = {name: value + index * step for name, (value, step) in growth.items()}
        return replace(one, **sizes)

    @cached_property
    def _constant(self) -> set[int]:
        """The positions of layers that were found to be the same in all steps."""
        return set()

    @cached_property
    def _growth(self) -> dict[int, dict[str, tuple[int, int]]]:
        """The `id` of an operation of the last step -> its sizes that grow: first size, and growth per step."""
        return {}


def line(first: Workload, second: Workload, last: Workload, count: int) -> Steps | None:
    """The steps from `first` to `last` whose sizes grow evenly; None if the sizes of `second` are not among them."""
    if len(first.ops) != len(last.ops) or any(type(a) is not type(b) for a, b in zip(first.ops, last.ops, strict=True)):
        return None
    steps = Steps(first, last, count)
    try:
        return steps if steps.workload(1) == second else None
    except BadInput:
        return None


@dataclass(frozen=True)
class ListedSteps:
    """Decoding steps that are given one by one.

    Attributes:
        workloads: one for each step.
    """

    workloads: tuple[Workload, ...]

    @property
    def count(self) -> int:
        """Number of steps."""
        return len(self.workloads)

    @property
    def first(self) -> Workload:
        """The workload of the first step."""
        return self.workloads[0]

    @property
    def last(self) -> Workload:
        """The workload of the last step."""
        return self.workloads[-1]

    @property
    def uniform(self) -> bool:
        """True if layers that are equal in one step are equal in all of them."""
        return all(work.kinds == self.last.kinds for work in self.workloads)

    def layer(self, position: int, index: int) -> Layer:
        """A layer of a step; operations that do not change are those of the last step, and so is a layer of them."""
        layer, last = self.workloads[index].layers()[position], self.last.layers()[position]
        if len(layer.ops) != len(last.ops):
            return layer
        ops = tuple(other if one == other else one for one, other in zip(layer.ops, last.ops, strict=True))
        if layer.tokens == last.tokens and all(one is other for one, other in zip(ops, last.ops, strict=True)):
            return last
        return replace(layer, ops=ops)

    def workload(self, index: int) -> Workload:
        """The workload of a step."""
        return self.workloads[index]


@dataclass(frozen=True)
class RequestPasses:
    """The passes of a batch of requests that start together.

    Attributes:
        prefill: the pass over the prompts, which makes the first token of each request.
        steps: the decoding steps; None if one token is generated.
        alone: the prefill of a single request; None if it is not known.
        prompt: tokens of the prompt.
        table: the dimensions of the model; None if the passes are listed.
    """

    prefill: Workload
    steps: Steps | ListedSteps | None
    alone: Workload | None
    prompt: int
    table: Transformer | None = None

    @property
    def generate(self) -> int:
        """Generated tokens of each request."""
        return 1 + (self.steps.count if self.steps else 0)

    @property
    def batch(self) -> int:
        """Number of requests."""
        return self.prefill.batch


def table_passes(model: Transformer | str, prompt: object, generate: object, batch: object) -> RequestPasses:
    """The passes of a request to a model that is given as a table of dimensions.

    Args:
        model: as in `shapes`.
        prompt: tokens of the prompt; for an encoder-decoder, of the source.
        generate: generated tokens of each request.
        batch: requests that start together.

    Raises:
        BadInput: the model generates no tokens, or it does not support the lengths.
    """
    remedy = "the name of a table of dimensions, such as 'gpt2', a Transformer, or (prefill, steps)"
    check_type("serve", "model", model, (str, Transformer), remedy)
    table = load(Transformer, model.removeprefix(PREFIX)) if isinstance(model, str) else model
    if table.kind == "encoder":
        raise BadInput(
            f"model {shown(table.title)}: is an encoder, which generates no tokens; take `ohmformer cost` or "
            "of.simulate, or a decoder"
        )
    tokens, made, requests = (_count(*pair) for pair in (("prompt", prompt), ("generate", generate), ("batch", batch)))
    check_generated(made)
    decoder = table.kind == "decoder"
    if decoder and table.max_tokens is not None and tokens + made - 1 > table.max_tokens:
        raise BadInput(
            f"model {shown(table.title)}: prompt = {tokens}, generate = {made}: takes {tokens + made - 1} positions, "
            f"which end at {table.max_tokens}; lower one of them, or raise max_tokens in a table of your own"
        )
    sizes: dict[str, Any] = {"phase": "prefill", "tokens": tokens}
    prefill = shapes(table, batch=requests, **sizes)
    alone = prefill if requests == 1 else shapes(table, batch=1, **sizes)
    if made == 1:
        return RequestPasses(prefill, None, alone, tokens, table)
    start, source = (tokens, None) if decoder else (1, tokens)
    ends = [
        shapes(table, batch=requests, phase="decode", tokens=source, context=context)
        for context in (start, start + made - 2)
    ]
    return RequestPasses(prefill, Steps(ends[0], ends[1], made - 1), alone, tokens, table)


def listed_passes(prefill: object, steps: object, alone: Workload | None = None) -> RequestPasses:
    """The passes of a request that are given as workloads, such as those that `trace` makes.

    Args:
        prefill: the pass over the prompt.
        steps: the decoding steps, in order.
        alone: the prefill of a single request; None for `prefill` if it has one sample.

    Raises:
        BadInput: one of them is not a workload of its phase, or their batches differ.
    """
    check_type("serve", "prefill", prefill, Workload, "a Workload (of.trace or of.shapes with phase='prefill')")
    check_type("serve", "steps", steps, Sequence, "a list of workloads with phase='decode'")
    assert isinstance(prefill, Workload)
    assert isinstance(steps, Sequence)
    if prefill.phase != "prefill":
        raise BadInput(f"serve: prefill: has phase {prefill.phase!r}; give a workload with phase = 'prefill'")
    check_generated(len(steps) + 1)
    for number, step in enumerate(steps):
        check_type("serve", f"steps[{number}]", step, Workload, "a Workload with phase='decode'")
        if step.phase != "decode":
            raise BadInput(f"serve: steps[{number}]: has phase {step.phase!r}; give workloads with phase = 'decode'")
        if step.batch != prefill.batch:
            raise BadInput(
                f"serve: steps[{number}]: has batch = {step.batch}, the prefill {prefill.batch}; give equal batches"
            )
    counts = [len(step.layers()) for step in steps]
    for number, count in enumerate(counts):
        if count != counts[-1]:
            raise BadInput(f"serve: steps[{number}]: has {count} layers, the last step {counts[-1]}; give one model")
    _check_order(steps)
    _check_weights(prefill, steps)
    if alone is None and prefill.batch == 1:
        alone = prefill
    return RequestPasses(prefill, ListedSteps(tuple(steps)) if steps else None, alone, prefill.tokens)


def _check_order(steps: Sequence[Workload]) -> None:
    """Refuse steps whose caches shrink, since a machine is sized for the last one.

    Raises:
        BadInput: a step has fewer cached tokens than the step before it.
    """
    for number, (before, step) in enumerate(pairwise(steps), 1):
        if step.context < before.context:
            raise BadInput(
                f"serve: steps[{number}]: has context = {step.context} after {before.context}; list the steps in order"
            )


def _check_weights(prefill: Workload, steps: Sequence[Workload]) -> None:
    """Refuse steps of another model than the prefill, which has all their weights; the first and the last one are read.

    Raises:
        BadInput: a step has weights that the prefill has not.
    """
    known = set(_weights(prefill))
    for number in sorted({0, len(steps) - 1}) if steps else ():
        for name, inputs, outputs in _weights(steps[number]):
            if (name, inputs, outputs) not in known:
                raise BadInput(
                    f"serve: steps[{number}]: has weights {shown(name)} of {inputs} x {outputs}, which the prefill "
                    "lacks; give passes of one model"
                )


def _weights(workload: Workload) -> list[tuple[str, int, int]]:
    """Name, inputs and outputs of each static weight."""
    return [(op.name, op.inputs, op.outputs) for op in workload.ops if isinstance(op, StaticMatMul)]


def check_generated(count: int) -> None:
    """Refuse more generated tokens than can be priced in a short time.

    Raises:
        BadInput: there are too many.
    """
    if count > MOST_GENERATED:
        raise BadInput(f"serve: generate = {count}: must be at most {MOST_GENERATED:,}; lower it")


def _count(name: str, value: object) -> int:
    """A whole number of 1 or more.

    Raises:
        BadInput: it is not.
    """
    count = whole_number(value)
    if count == -1 and not (isinstance(value, int) and not isinstance(value, bool)):
        raise BadInput(f"serve: {name} is {given(value)}; give a whole number")
    if count < 1:
        raise BadInput(f"serve: {name} = {count}: must be 1 or more; raise it")
    return count


def _growth(one: Op, other: Op, steps: int) -> dict[str, tuple[int, int]]:
    """The sizes of an operation that differ between the first and the last step: first size, and growth per step."""
    grown = {}
    for name, size in vars(one).items():
        change = vars(other)[name] - size if type(size) is int else 0
        if change:
            rate, rest = divmod(change, steps)
            if rest:
                raise BadInput(
                    f"serve: {one.name}: {name} does not grow by the same amount at every step; list the steps"
                )
            grown[name] = size, rate
    return grown
