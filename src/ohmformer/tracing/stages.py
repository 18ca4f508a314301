"""Which layer an operation belongs to, and which operations of a layer work at once: from names and dependencies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from ohmformer.tracing.operations import OpDraft
from ohmformer.workload.spec import DynamicMatMul, Norm, Op

Block = tuple[str, str, int]
"""A container of blocks, which of them, and the number of its call."""


def staged(drafts: Sequence[OpDraft], sizes: Mapping[str, int]) -> tuple[Op, ...]:
    """The operations with their layers and stages; `sizes` says how many children each module has.

    Layers are the blocks that repeat around attention, numbered as they first run; those of a decoder that runs
    without its encoder follow the encoder's all the same. Stages of a layer: `qkv`, `key`, `value`, `output`, then
    `ffn1`, `ffn2` ... by dependency; what comes before qkv is `pre1` ..., and weights between scores and probabilities
    are `mix`. Cross attention has `cross_` before its stages, a second attention of the same kind `attention2_`.
    Outside layers: `embedding` before the first, `head` after the last, or `between`.
    """
    containers = _containers(drafts)
    order: dict[Block, int] = {}
    layers = [_block(draft, containers) for draft in drafts]
    for block in layers:
        if block is not None:
            order.setdefault(block, len(order))
    skipped = _skipped(order, sizes)
    indexed = [None if block is None else order[block] + skipped for block in layers]
    last = max((n for n, index in enumerate(indexed) if index is not None), default=-1)
    stages: dict[OpDraft, str] = {}
    for index in set(indexed) - {None}:
        stages |= _of_group([d for d, own in zip(drafts, indexed, strict=True) if own == index], "ffn", first="ffn1")
    at = 0
    for own, run in groupby(indexed):
        size = len(list(run))
        if own is None:
            name = "head" if at > last >= 0 else "embedding" if at == 0 else "between"
            stages |= _of_group(list(drafts[at : at + size]), name, first=name)
        at += size
    ops = [replace(draft.op, stage=stages[draft], layer=own) for draft, own in zip(drafts, indexed, strict=True)]
    return tuple(op for _, run in groupby(ops, lambda op: op.layer) for op in _in_order(list(run)))


def _in_order(ops: list[Op]) -> list[Op]:
    """What qkv waits for comes first, also where a part of qkv happened to run before it."""
    names = list(dict.fromkeys(op.stage for op in ops))
    for name in names:
        prefix, early, _ = name.partition("pre")
        if early and f"{prefix}qkv" in names[: names.index(name)]:
            first = next(n for n, op in enumerate(ops) if op.stage == f"{prefix}qkv")
            early_ops = [op for op in ops if op.stage == name]
            ops = ops[:first] + early_ops + [op for op in ops[first:] if op.stage != name]
    return ops


def _skipped(order: Mapping[Block, int], sizes: Mapping[str, int]) -> int:
    """Layers of an encoder that did not run, where its decoder runs first."""
    first = next(iter(order), ("", "", 1))[0]
    encoder = first.replace("decoder", "encoder")
    return sizes.get(encoder, 0) if encoder != first and all(block[0] != encoder for block in order) else 0


def _parts(name: str) -> Iterator[tuple[str, str]]:
    """Containers along a module's name, and which of their children it is in, outermost first."""
    words = name.split(".")
    for n, word in enumerate(words):
        if word.isdigit():
            yield ".".join(words[:n]), word


def _module(draft: OpDraft) -> str:
    return draft.blocks[-1][0]


def _containers(drafts: Sequence[OpDraft]) -> set[str]:
    """The containers whose children are layers: the innermost of which each child attends and then multiplies on."""
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
            whole = [container for container in path if complete.get(container) == children[container]]
            chosen |= set(whole[-1:] or path[:1])
    if any(draft.role == "value" for draft in drafts):
        return chosen
    return {container for container, found in children.items() if len(found) > 1 and _outermost(container, children)}


def _outermost(container: str, all_of_them: dict[str, set[str]]) -> bool:
    return not any(container.startswith(f"{other}.") for other in all_of_them if other != container)


def _block(draft: OpDraft, containers: set[str]) -> Block | None:
    for container, child in reversed(list(_parts(_module(draft)))):
        if container in containers:
            whole = f"{container}.{child}" if container else child
            inside = (call for name, call in draft.blocks if name == whole or name.startswith(f"{whole}."))
            return container, child, next(inside, 1)
    return None


def _of_group(drafts: list[OpDraft], name: str, *, first: str) -> dict[OpDraft, str]:
    """Stages of all operations of one layer, or of what stands between layers."""
    stages = dict(_attention(drafts))
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


def _attention(drafts: list[OpDraft]) -> Iterator[tuple[OpDraft, str]]:
    """Stages of attention and of the projections around it."""
    free = [draft for draft in drafts if draft.role == "static"]
    keys = [draft for draft in drafts if draft.role == "key"]
    used: list[str] = []
    previous: tuple[OpDraft, str] | None = None
    for value in (draft for draft in drafts if draft.role == "value"):
        own = [key for key in keys if value.deps & key.bit]
        keys = [key for key in keys if key not in own]
        prefix = _prefix(value, used)
        before = [s for s in free if any(d.deps & s.bit for d in (*own, value))]
        free = [s for s in free if s not in before]
        mixing = [s for s in before if any(s.deps & key.bit for key in own)]
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
        yield from ((key, f"{prefix}key") for key in own)
        yield value, f"{prefix}value"
        previous = value, prefix
    yield from ((key, "key") for key in keys)
    if previous is not None:
        yield from ((s, f"{previous[1]}output") for s in _outputs(free, previous[0]))


def _prefix(value: OpDraft, used: list[str]) -> str:
    """What tells one attention of a layer from another."""
    word = "cross" if isinstance(value.op, DynamicMatMul) and value.op.across else ""
    used.append(word)
    count = used.count(word)
    if count > 1:
        return f"{word or 'attention'}{count}_"
    return f"{word}_" if word else ""


def _outputs(drafts: list[OpDraft], value: OpDraft) -> list[OpDraft]:
    """The products that take what attention gives, before any other."""
    after = [draft for draft in drafts if draft.deps & value.bit]
    return [s for s in after if not any(s.deps & c.bit for c in after if c is not s)]


def _levels(drafts: list[OpDraft]) -> dict[OpDraft, int]:
    """How many of these must be done one after another up to each; the experts of a bank share a bit."""
    levels: dict[OpDraft, int] = {}
    for draft in drafts:
        before = [level for other, level in levels.items() if draft.deps & other.bit and other.bit != draft.bit]
        levels[draft] = 1 + max(before, default=0)
    return levels
