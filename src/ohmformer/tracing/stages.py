"""`staged`: the layer and the stage of each operation, from the names of modules and from dependencies.

The operations of one stage do not depend on one another. Example, one encoder layer of BERT:

    encoder.layer.3.attention.self.query, .key, .value    stage qkv
    Q K^T of encoder.layer.3.attention.self               stage key
    P V of encoder.layer.3.attention.self                 stage value
    encoder.layer.3.attention.output.dense                stage output
    encoder.layer.3.intermediate.dense                    stage ffn1
    encoder.layer.3.output.dense                          stage ffn2
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from ohmformer.tracing.operations import OpDraft
from ohmformer.workload.spec import DynamicMatMul, Norm, Op

BlockCall = tuple[str, str, int]
"""One call of a block, which may be a layer: name of its container, name of the block in it, number of the call."""


def staged(drafts: Sequence[OpDraft], sizes: Mapping[str, int]) -> tuple[Op, ...]:
    """Give each operation its layer and its stage.

    Layers are the blocks that repeat around attention, numbered in the order of their first run. The layers of a
    decoder that runs without its encoder are numbered after those of the encoder.

    Stages of a layer: `qkv`, `key`, `value`, `output`, then `ffn1`, `ffn2` ... by dependency. Products with weights on
    which `qkv` depends are `pre1`, `pre2` ...; those between scores and probabilities are `mix`. Stages of cross
    attention begin with `cross_`, those of a second attention of the same kind with `attention2_`.
    Outside of layers, the stages are `embedding` before the first layer, `head` after the last, and `between`.

    Args:
        drafts: the operations, in order.
        sizes: name of a module -> number of its children.

    Returns:
        The operations of each layer together, in order.
    """
    containers = _containers(drafts)
    order: dict[BlockCall, int] = {}
    layers = [_block(draft, containers) for draft in drafts]
    for block in layers:
        if block is not None:
            order.setdefault(block, len(order))
    offset = _layers_of_missing_encoder(order, sizes)
    indices = [None if block is None else order[block] + offset for block in layers]
    last = max((n for n, index in enumerate(indices) if index is not None), default=-1)
    stages: dict[OpDraft, str] = {}
    for index in set(indices) - {None}:
        stages |= _stages_of_group([d for d, i in zip(drafts, indices, strict=True) if i == index], "ffn", first="ffn1")
    start = 0
    for index, run in groupby(indices):
        size = len(list(run))
        if index is None:
            name = "head" if start > last >= 0 else "embedding" if start == 0 else "between"
            stages |= _stages_of_group(list(drafts[start : start + size]), name, first=name)
        start += size
    ops = [replace(draft.op, stage=stages[draft], layer=index) for draft, index in zip(drafts, indices, strict=True)]
    return tuple(op for _, run in groupby(ops, lambda op: op.layer) for op in _pre_before_qkv(list(run)))


def _pre_before_qkv(ops: list[Op]) -> list[Op]:
    """The operations of a layer, with its `pre` stages moved before `qkv`; a part of qkv may have run before them."""
    names = list(dict.fromkeys(op.stage for op in ops))
    for name in names:
        prefix, early, _ = name.partition("pre")
        if early and f"{prefix}qkv" in names[: names.index(name)]:
            first = next(n for n, op in enumerate(ops) if op.stage == f"{prefix}qkv")
            early_ops = [op for op in ops if op.stage == name]
            ops = ops[:first] + early_ops + [op for op in ops[first:] if op.stage != name]
    return ops


def _layers_of_missing_encoder(order: Mapping[BlockCall, int], sizes: Mapping[str, int]) -> int:
    """The number of layers of an encoder that did not run although its decoder did; otherwise 0."""
    first = next(iter(order), ("", "", 1))[0]
    encoder = first.replace("decoder", "encoder")
    return sizes.get(encoder, 0) if encoder != first and all(block[0] != encoder for block in order) else 0


def _parts(name: str) -> Iterator[tuple[str, str]]:
    """(container, child) for each numbered child along the name of a module, outermost first.

    Example: "encoder.layer.3.attention" gives ("encoder.layer", "3").
    """
    words = name.split(".")
    for n, word in enumerate(words):
        if word.isdigit():
            yield ".".join(words[:n]), word


def _module(draft: OpDraft) -> str:
    """Name of the module that computes an operation."""
    return draft.blocks[-1][0]


def _containers(drafts: Sequence[OpDraft]) -> set[str]:
    """The containers whose children are layers.

    These are the innermost containers in which every child has an attention and, after it, a product with weights.
    Without any attention, they are the outermost containers with more than one child.
    """
    children: dict[str, set[str]] = {}
    attending: dict[str, set[str]] = {}
    complete: dict[str, set[str]] = {}
    for draft in drafts:
        for container, child in _parts(_module(draft)) if draft.role != "other" else ():
            children.setdefault(container, set()).add(child)
            if draft.role == "value":
                attending.setdefault(container, set()).add(child)
            elif draft.role == "static" and child in attending.get(container, ()):
                complete.setdefault(container, set()).add(child)
    chosen = set()
    for draft in drafts:
        if draft.role == "value":
            path = [container for container, _ in _parts(_module(draft))]
            candidates = [container for container in path if complete.get(container) == children[container]]
            chosen |= set(candidates[-1:] or path[:1])
    if any(draft.role == "value" for draft in drafts):
        return chosen
    return {container for container, blocks in children.items() if len(blocks) > 1 and _outermost(container, children)}


def _outermost(container: str, containers: dict[str, set[str]]) -> bool:
    """True if a container lies in no other one."""
    return not any(container.startswith(f"{other}.") for other in containers if other != container)


def _block(draft: OpDraft, containers: set[str]) -> BlockCall | None:
    """The innermost block in which an operation lies; None outside of all."""
    for container, child in reversed(list(_parts(_module(draft)))):
        if container in containers:
            block = f"{container}.{child}" if container else child
            calls = (call for name, call in draft.blocks if name == block or name.startswith(f"{block}."))
            return container, child, next(calls, 1)
    return None


def _stages_of_group(drafts: list[OpDraft], name: str, *, first: str) -> dict[OpDraft, str]:
    """The stages of all operations of one layer, or of one run of operations outside of layers.

    Args:
        drafts: the operations, in order.
        name: name of the stages of products outside of attention; they are numbered by dependency from 2 on.
        first: name of the first of these stages.
    """
    stages = dict(_attention_stages(drafts))
    rest = [draft for draft in drafts if draft.role == "static" and draft not in stages]
    if any(draft.role == "value" for draft in drafts):
        name, first = "ffn", "ffn1"
    for draft, level in _levels(rest).items():
        stages[draft] = first if level == 1 else f"{name}{level}"
    for n, draft in enumerate(drafts):
        if draft not in stages:
            after = next((stages[d] for d in drafts[n + 1 :] if d.role != "other"), None)
            before = next((stages[d] for d in reversed(drafts[:n]) if d.role != "other"), None)
            pair = (after, before) if isinstance(draft.op, Norm) else (before, after)
            stages[draft] = pair[0] or pair[1] or first
    return stages


def _attention_stages(drafts: list[OpDraft]) -> Iterator[tuple[OpDraft, str]]:
    """The stages of attention and of the projections around it.

    For each product P V, its scores are the products Q K^T on which it depends. The static products on which any of
    these depend come before the attention: the last of them are qkv, and earlier ones are the output of an attention
    before, or `pre`.
    """
    free = [draft for draft in drafts if draft.role == "static"]
    keys = [draft for draft in drafts if draft.role == "key"]
    kinds: list[str] = []
    previous: tuple[OpDraft, str] | None = None
    for value in (draft for draft in drafts if draft.role == "value"):
        scores = [key for key in keys if value.deps & key.bit]
        keys = [key for key in keys if key not in scores]
        prefix = _prefix(value, kinds)
        before = [s for s in free if any(d.deps & s.bit for d in (*scores, value))]
        free = [s for s in free if s not in before]
        mixing = [s for s in before if any(s.deps & key.bit for key in scores)]
        yield from ((s, f"{prefix}mix{'' if level == 1 else level}") for s, level in _levels(mixing).items())
        before = [s for s in before if s not in mixing]
        last = [s for s in before if not any(c.deps & s.bit for c in before if c is not s)]
        yield from ((s, f"{prefix}qkv") for s in last)
        earlier = [s for s in before if s not in last]
        if previous is not None:
            outputs = _outputs(earlier, previous[0])
            yield from ((s, f"{previous[1]}output") for s in outputs)
            earlier = [s for s in earlier if s not in outputs]
        yield from ((s, f"{prefix}pre{level}") for s, level in _levels(earlier).items())
        yield from ((key, f"{prefix}key") for key in scores)
        yield value, f"{prefix}value"
        previous = value, prefix
    yield from ((key, "key") for key in keys)
    if previous is not None:
        yield from ((s, f"{previous[1]}output") for s in _outputs(free, previous[0]))


def _prefix(value: OpDraft, kinds: list[str]) -> str:
    """The prefix of the stages of an attention; its kind ("cross" or "") is added to those of the layer so far."""
    kind = "cross" if isinstance(value.op, DynamicMatMul) and value.op.across else ""
    kinds.append(kind)
    count = kinds.count(kind)
    if count > 1:
        return f"{kind or 'attention'}{count}_"
    return f"{kind}_" if kind else ""


def _outputs(drafts: list[OpDraft], value: OpDraft) -> list[OpDraft]:
    """The products that take the output of an attention, and that depend on no other such product."""
    after = [draft for draft in drafts if draft.deps & value.bit]
    return [s for s in after if not any(s.deps & c.bit for c in after if c is not s)]


def _levels(drafts: list[OpDraft]) -> dict[OpDraft, int]:
    """For each operation, its level: 1 plus the largest level of those on which it depends.

    The experts of a bank share a bit and a level.
    """
    levels: dict[OpDraft, int] = {}
    for draft in drafts:
        before = [level for other, level in levels.items() if draft.deps & other.bit and other.bit != draft.bit]
        levels[draft] = 1 + max(before, default=0)
    return levels
