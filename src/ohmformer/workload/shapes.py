"""Workloads from a table of dimensions: BERT, GPT-2, Llama, ViT, T5 and whatever a user writes down.

A table is a library entry of the kind `shapes`. Stages of a layer: qkv, key (Q K^T), softmax with it, value (P V),
output, and the feed-forward part ffn1 and ffn2; normalisation and residuals run in the lanes of the stage that they
belong to. `trace` finds the same operations in models of Hugging Face and timm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ohmformer.errors import BadInput, shown
from ohmformer.quantities import Count
from ohmformer.schema import Spec, load
from ohmformer.workload.spec import DynamicMatMul, Elementwise, Lookup, Norm, Op, Phase, Softmax, StaticMatMul, Workload

Layers = Annotated[int, Field(ge=1, le=10_000)]
Width = Annotated[int, Field(ge=1, le=10_000_000)]
Length = Annotated[int, Field(ge=1, le=10_000_000)]
"""Tokens of one sample."""
LONGEST = {"seq_len": 10_000_000, "batch": 1_000_000, "context": 999_999_999}
"""What a workload has at most."""

PREFIX = "shapes:"


class Transformer(Spec):
    """Dimensions of a transformer.

    Attributes:
        kind: `encoder` (bidirectional), `decoder` (causal) or `encoder_decoder`.
        layers: of the encoder, or of the only stack.
        decoder_layers: of the decoder of an `encoder_decoder`; None for as many.
        width: values of a token.
        heads: of the queries.
        kv_heads: of keys and values; None for as many.
        head_width: values of a token in a head; None for width / heads.
        hidden: width inside the feed-forward part.
        gated: whether that part multiplies two projections.
        fused: whether W_Q, W_K and W_V are one matrix, so that they fill arrays together.
        patch: values of an image patch, which a first product embeds; None for token ids.
        entries: rows of the embedding table; None where patches are embedded.
        extra_tokens: tokens beside patches, such as [CLS].
        norm: whether tokens are normalised `before` attention and feed-forward part, and once after all layers, or
            `after` each of them, and after the embedding.
        rotary: whether queries and keys are turned by their position.
        activation: `single`, or `gelu_tanh`, which takes two additions beside the tanh.
        pooler: whether a product of the width and an activation follow on one token.
        head: outputs of a last product; None without one. Decoders and classifiers use it on one token.
        max_tokens: the longest sequence that positions allow; None where there is no such limit.
        tokens: the sequence length that is taken where nothing is said.
    """

    catalog_kind: ClassVar[str] = "shapes"

    title: str
    kind: Literal["encoder", "decoder", "encoder_decoder"]
    layers: Layers
    decoder_layers: Layers | None = None
    width: Width
    heads: Width
    kv_heads: Width | None = None
    head_width: Width | None = None
    hidden: Width
    gated: bool = False
    fused: bool = False
    patch: Width | None = None
    entries: Count | None = None
    extra_tokens: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    norm: Literal["before", "after"] = "before"
    rotary: bool = False
    activation: Literal["single", "gelu_tanh"] = "single"
    pooler: bool = False
    head: Count | None = None
    max_tokens: Count | None = None
    tokens: Length

    @model_validator(mode="after")
    def _consistent(self) -> Transformer:
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"heads = {self.heads} is no multiple of kv_heads = {self.kv_heads}; correct one of them")
        if self.head_width is None and self.width % self.heads:
            raise ValueError(f"width = {self.width} is no multiple of heads = {self.heads}; give head_width")
        return self

    @property
    def head_size(self) -> int:
        """Values of a token in one head."""
        return self.head_width or self.width // self.heads


@dataclass(frozen=True)
class _Pass:
    """What one stack sees: samples, new tokens of each, tokens before them, and those of the other stack."""

    batch: int
    tokens: int
    context: int
    causal: bool


def shapes(
    model: Transformer | str,
    *,
    tokens: int | None = None,
    batch: int = 1,
    phase: Phase | None = None,
    context: int = 0,
) -> Workload:
    """The workload of a table of dimensions.

    Args:
        model: the table, or the name of a library entry ('bert-base', 'shapes:bert-base').
        tokens: new tokens of each sample; by default what the table says. One in `decode`, where for an
            `encoder_decoder` it is the length of the source instead.
        batch: samples.
        phase: `encode`, `prefill` or `decode`; by default what the kind of model does first.
        context: tokens in the cache before this pass (`decode`, and `prefill` that goes on).

    Raises:
        BadInput: unknown model, or lengths and phases that it does not have.
    """
    table = load(Transformer, model.removeprefix(PREFIX)) if isinstance(model, str) else model
    chosen: Phase = phase or ("encode" if table.kind == "encoder" else "prefill")
    length = table.tokens if tokens is None else tokens
    if chosen == "decode" and table.kind == "decoder" and tokens not in (None, 1):
        raise BadInput(
            f"model {table.title!r}: seq_len = {tokens}: decoding makes one token at a time; leave it out, and say "
            "with context how many are in the cache"
        )
    _check(table, chosen, length, batch, context)
    if table.kind == "encoder_decoder":
        ops = tuple(_encoder_decoder(table, chosen, length, batch, context))
        count = length if chosen != "decode" else 1
        return Workload(table.title, chosen, batch, count, context, chosen == "decode", ops)
    work = _Pass(batch, 1 if chosen == "decode" else length, context, table.kind == "decoder")
    ops = (*_embedding(table, work), *_stack(table, work, "layers", 0, table.layers), *_head(table, work))
    return Workload(table.title, chosen, batch, work.tokens, context, work.causal, ops)


def _check(table: Transformer, phase: str, tokens: int, batch: int, context: int) -> None:
    where = f"model {table.title!r}"
    if phase not in ("encode", "prefill", "decode"):
        raise BadInput(f"{where}: phase = {phase!r}: is no phase; take encode, prefill or decode")
    if table.kind == "encoder" and phase != "encode":
        raise BadInput(f"{where}: phase = {phase!r}: an encoder sees all tokens at once; take encode")
    if table.kind == "decoder" and phase == "encode":
        raise BadInput(f"{where}: phase = 'encode': a decoder has a causal mask; take prefill or decode")
    for name, value, least in (("seq_len", tokens, 1), ("batch", batch, 1), ("context", context, 0)):
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise BadInput(f"{where}: {name} = {shown(value)}: must be a whole number; write it without decimals")
        if value < least:
            raise BadInput(f"{where}: {name} = {shown(value)}: must be {least} or more; raise it")
        if value > LONGEST[name]:
            raise BadInput(f"{where}: {name} = {shown(value)}: must be at most {LONGEST[name]:,}; lower it")
    if phase == "encode" and context:
        raise BadInput(f"{where}: context = {context}: encoding has no cache; leave it out, or take prefill or decode")
    longest = context + (1 if phase == "decode" and table.kind == "decoder" else tokens)
    if table.max_tokens is not None and longest > table.max_tokens:
        raise BadInput(
            f"{where}: {longest} tokens: its positions end at {table.max_tokens}; lower seq_len or context, "
            "or raise max_tokens in a table of your own"
        )


def _encoder_decoder(table: Transformer, phase: Phase, source: int, batch: int, context: int) -> Iterator[Op]:
    """`encode`: the encoder; `prefill`: also the decoder's first token; `decode`: one token, the source known."""
    if phase != "decode":
        work = _Pass(batch, source, 0, causal=False)
        yield from _embedding(table, work)
        yield from _stack(table, work, "encoder", 0, table.layers)
        yield from _last_norm(table, work, "head" if phase == "encode" else "between")
    if phase != "encode":
        step = _Pass(batch, 1, context, causal=True)
        yield from _embedding(table, step, "embedding" if phase == "decode" else "between")
        new = source if phase == "prefill" else 0
        count = table.decoder_layers or table.layers
        yield from _stack(table, step, "decoder", table.layers, count, source=source, new=new)
        yield from _head(table, step)


def _embedding(table: Transformer, work: _Pass, stage: str = "embedding") -> Iterator[Op]:
    if table.patch is not None:
        count = work.batch * max(1, work.tokens - table.extra_tokens)
        yield StaticMatMul("embedding", stage, None, count, table.patch, table.width)
    elif table.entries is not None:
        yield Lookup("embedding", stage, None, work.batch * work.tokens, table.width, table.entries)
    if table.norm == "after":
        yield Norm("embedding.norm", stage, None, work.batch * work.tokens, table.width)


def _last_norm(table: Transformer, work: _Pass, stage: str) -> Iterator[Op]:
    if table.norm == "before":
        yield Norm("norm", stage, None, work.batch * work.tokens, table.width)


def _head(table: Transformer, work: _Pass) -> Iterator[Op]:
    yield from _last_norm(table, work, "head")
    if table.pooler:
        yield StaticMatMul("pooler", "head", None, work.batch, table.width, table.width)
        yield Elementwise("pooler.activation", "head", None, work.batch * table.width)
    if table.head is not None:
        yield StaticMatMul("head", "head", None, work.batch, table.width, table.head)


def _stack(
    table: Transformer, work: _Pass, name: str, first: int, count: int, *, source: int = 0, new: int = 0
) -> Iterator[Op]:
    for index in range(count):
        place = f"{name}.{index}"
        held = work.context + work.tokens
        yield from _attention(table, work, f"{place}.attention", first + index, "", held, work.tokens)
        if source:
            yield from _attention(table, work, f"{place}.cross", first + index, "cross_", source, new)
        yield from _feed_forward(table, work, f"{place}.mlp", first + index)


def _attention(
    table: Transformer, work: _Pass, place: str, layer: int, prefix: str, held: int, new: int
) -> Iterator[Op]:
    """Projections, products and softmax of one attention; across sources K and V come from `new` source tokens."""
    heads, size, across = table.heads, table.head_size, bool(prefix)
    kv_heads = table.kv_heads or heads
    vectors, causal = work.batch * work.tokens, work.causal and not across
    stage = f"{prefix}qkv"
    if table.norm == "before" or across:  # otherwise the part before has normalised
        yield Norm(f"{place}.norm", stage, layer, vectors, table.width)
    if table.fused and not across:
        yield StaticMatMul(f"{place}.qkv", stage, layer, vectors, table.width, (heads + 2 * kv_heads) * size)
    else:
        yield StaticMatMul(f"{place}.query", stage, layer, vectors, table.width, heads * size)
    if work.batch * new and (across or not table.fused):
        for part in ("key", "value"):
            yield StaticMatMul(f"{place}.{part}", stage, layer, work.batch * new, table.width, kv_heads * size)
    if table.rotary and not across:
        yield Elementwise(f"{place}.query.rotary", stage, layer, vectors * heads * size, "add")
        yield Elementwise(f"{place}.key.rotary", stage, layer, vectors * kv_heads * size, "add")
    common: dict[str, Any] = {
        "batch": work.batch,
        "heads": heads,
        "kv_heads": kv_heads,
        "queries": work.tokens,
        "written": new,
    }
    key, value = f"{prefix}key", f"{prefix}value"
    yield DynamicMatMul(
        f"{place}.scores",
        key,
        layer,
        "attention.key",
        **common,
        inputs=size,
        outputs=held,
        causal=causal,
        across=across,
    )
    yield Softmax(f"{place}.softmax", key, layer, vectors * heads, held, heads)
    yield DynamicMatMul(
        f"{place}.mix",
        value,
        layer,
        "attention.value",
        **common,
        inputs=held,
        outputs=size,
        causal=causal,
        across=across,
    )
    yield StaticMatMul(f"{place}.output", f"{prefix}output", layer, vectors, heads * size, table.width)
    yield Elementwise(f"{place}.residual", f"{prefix}output", layer, vectors * table.width, "add")


def _feed_forward(table: Transformer, work: _Pass, place: str, layer: int) -> Iterator[Op]:
    vectors = work.batch * work.tokens
    elements = vectors * table.hidden
    yield Norm(f"{place}.norm", "ffn1", layer, vectors, table.width)
    first = "gate" if table.gated else "up"
    yield StaticMatMul(f"{place}.{first}", "ffn1", layer, vectors, table.width, table.hidden)
    sums: tuple[Literal["activation", "add"], ...] = (
        ("add", "activation", "add") if table.activation == "gelu_tanh" else ("activation",)
    )
    for kind in sums:
        yield Elementwise(f"{place}.activation", "ffn1", layer, elements, kind)
    if table.gated:
        yield StaticMatMul(f"{place}.up", "ffn1", layer, vectors, table.width, table.hidden)
        yield Elementwise(f"{place}.product", "ffn1", layer, elements, "add")
    yield StaticMatMul(f"{place}.down", "ffn2", layer, vectors, table.hidden, table.width)
    yield Elementwise(f"{place}.residual", "ffn2", layer, vectors * table.width, "add")
    if table.norm == "after":
        yield Norm(f"{place}.last_norm", "ffn2", layer, vectors, table.width)
