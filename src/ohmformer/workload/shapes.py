"""Workloads from tables of dimensions: BERT, GPT-2, Llama, ViT, T5, and tables of the user.

A table is a library entry of the kind `shapes`. The stages of a layer are qkv, key (Q K^T and softmax), value (P V),
output, and ffn1 and ffn2 of the feed-forward network. Normalizations and residuals belong to the stage in whose lanes
they run. `trace` finds the same operations in models of Hugging Face and timm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ohmformer.errors import BadInput, check_type, shown
from ohmformer.quantities import Count
from ohmformer.schema import Spec, load
from ohmformer.workload.spec import DynamicMatMul, Elementwise, Lookup, Norm, Op, Phase, Softmax, StaticMatMul, Workload

Layers = Annotated[int, Field(ge=1, le=10_000)]
Width = Annotated[int, Field(ge=1, le=10_000_000)]
Length = Annotated[int, Field(ge=1, le=10_000_000)]
"""Tokens of one sample."""
LONGEST = {"seq_len": 10_000_000, "batch": 1_000_000, "context": 999_999_999}
"""Upper bounds of the lengths of a workload."""

PREFIX = "shapes:"
"""What precedes the name of a table where a study names a model."""


class Transformer(Spec):
    """Dimensions of a transformer.

    Attributes:
        title: name of the model.
        kind: `encoder` (bidirectional), `decoder` (causal) or `encoder_decoder`.
        layers: number of layers of the encoder, or of the only stack.
        decoder_layers: number of layers of the decoder of an `encoder_decoder`; None for `layers`.
        width: values of a token.
        heads: heads of the queries.
        kv_heads: heads of keys and values; None for `heads`.
        head_width: values of a token in one head; None for width / heads.
        hidden: width inside the feed-forward network.
        gated: True if the feed-forward network multiplies two projections.
        fused: True if W_Q, W_K and W_V are one matrix, so that they share arrays.
        patch: values of an image patch, which the first product embeds; None for token ids.
        entries: rows of the embedding table; None if patches are embedded.
        extra_tokens: tokens in addition to patches, such as [CLS].
        norm: whether tokens are normalized `before` attention and feed-forward network, and once after all layers, or
            `after` each of them, and after the embedding.
        rotary: True for rotary position embeddings of queries and keys.
        activation: `single`, or `gelu_tanh`, which takes two additions in addition to the tanh.
        pooler: True if a product of size width x width and an activation follow on one token.
        head: outputs of the last product; None for no such product. Decoders and classifiers use it on one token.
        max_tokens: the longest sequence that the position embeddings allow; None for unlimited.
        tokens: default sequence length.
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
            raise ValueError(f"heads = {self.heads} is not a multiple of kv_heads = {self.kv_heads}; correct one")
        if self.head_width is None and self.width % self.heads:
            raise ValueError(f"width = {self.width} is not a multiple of heads = {self.heads}; give head_width")
        if self.decoder_layers is not None and self.kind != "encoder_decoder":
            raise ValueError(f"decoder_layers = {self.decoder_layers}: this kind has one stack of layers; leave it out")
        if self.patch is not None and self.entries is not None:
            raise ValueError("patch and entries: tokens are either patches or token ids; leave one of them out")
        if self.extra_tokens and self.patch is None:
            raise ValueError(
                f"extra_tokens = {self.extra_tokens}: are counted beside patches; give patch, or leave it out"
            )
        if self.extra_tokens >= self.tokens:
            raise ValueError(
                f"extra_tokens = {self.extra_tokens}: leaves no patch of tokens = {self.tokens}; correct one"
            )
        return self

    @property
    def head_size(self) -> int:
        """Values of a token in one head."""
        return self.head_width or self.width // self.heads


@dataclass(frozen=True)
class _Pass:
    """What one stack of layers processes.

    Attributes:
        batch: samples.
        tokens: new tokens of each sample.
        context: cached tokens of each sample.
        causal: True if a token attends only to itself and to those before it.
    """

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
        model: the table, or the name of a library entry ('bert-base' or 'shapes:bert-base').
        tokens: new tokens of each sample, by default those of the table. In `decode` a decoder has one new token; for
            an `encoder_decoder` this is the length of the source instead.
        batch: samples.
        phase: `encode`, `prefill` or `decode`; by default the first phase of the kind of model.
        context: cached tokens of each sample before this pass (in `decode`, and in a `prefill` that is continued).

    Raises:
        BadInput: the model is unknown, or it does not support the lengths or the phase.
    """
    remedy = "the name of a table of dimensions, such as 'bert-base', or a Transformer"
    check_type("shapes", "model", model, (str, Transformer), remedy)
    table = load(Transformer, model.removeprefix(PREFIX)) if isinstance(model, str) else model
    chosen_phase: Phase = phase if phase is not None else ("encode" if table.kind == "encoder" else "prefill")
    length = table.tokens if tokens is None else tokens
    if chosen_phase == "decode" and table.kind == "decoder" and tokens not in (None, 1):
        raise BadInput(
            f"model {shown(table.title)}: seq_len = {tokens}: decoding makes one token at a time; leave it out, and "
            "say with context how many are in the cache"
        )
    _check(table, chosen_phase, length, batch, context)
    if table.kind == "encoder_decoder":
        ops = tuple(_encoder_decoder(table, chosen_phase, length, batch, context))
        count = length if chosen_phase != "decode" else 1
        return Workload(table.title, chosen_phase, batch, count, context, chosen_phase == "decode", ops)
    work = _Pass(batch, 1 if chosen_phase == "decode" else length, context, table.kind == "decoder")
    ops = (*_embedding(table, work), *_stack(table, work, "layers", 0, table.layers), *_head(table, work))
    return Workload(table.title, chosen_phase, batch, work.tokens, context, work.causal, ops)


def _check(table: Transformer, phase: str, tokens: int, batch: int, context: int) -> None:
    """Refuse a phase or lengths that the model does not support."""
    where = f"model {shown(table.title)}"
    if not isinstance(phase, str) or phase not in ("encode", "prefill", "decode"):
        raise BadInput(f"{where}: phase = {shown(phase)}: is not a phase; take encode, prefill or decode")
    if table.kind == "encoder" and phase != "encode":
        raise BadInput(f"{where}: phase = {shown(phase)}: an encoder sees all tokens at once; take encode")
    if table.kind == "decoder" and phase == "encode":
        raise BadInput(f"{where}: phase = 'encode': a decoder has a causal mask; take prefill or decode")
    for name, value, minimum in (("seq_len", tokens, 1), ("batch", batch, 1), ("context", context, 0)):
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise BadInput(f"{where}: {name} = {shown(value)}: must be a whole number; write it without decimals")
        if value < minimum:
            raise BadInput(f"{where}: {name} = {shown(value)}: must be {minimum} or more; raise it")
        if value > LONGEST[name]:
            raise BadInput(f"{where}: {name} = {shown(value)}: must be at most {LONGEST[name]:,}; lower it")
    if table.patch is not None and tokens <= table.extra_tokens:
        raise BadInput(
            f"{where}: seq_len = {tokens}: leaves no patch beside {table.extra_tokens} extra tokens; raise it"
        )
    if phase == "encode" and context:
        raise BadInput(f"{where}: context = {context}: encoding has no cache; leave it out, or take prefill or decode")
    longest = context + (1 if phase == "decode" and table.kind == "decoder" else tokens)
    if table.max_tokens is not None and longest > table.max_tokens:
        raise BadInput(
            f"{where}: {longest} tokens: its positions end at {table.max_tokens}; lower seq_len or context, "
            "or raise max_tokens in a table of your own"
        )


def _encoder_decoder(table: Transformer, phase: Phase, source: int, batch: int, context: int) -> Iterator[Op]:
    """Operations of an encoder-decoder.

    `encode` runs the encoder, `prefill` the encoder and the decoder's first token, `decode` one more token of the
    decoder, with K and V of the source cached.
    """
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
    """Embedding of patches or token ids, and its normalization."""
    if table.patch is not None:
        count = work.batch * max(1, work.tokens - table.extra_tokens)
        yield StaticMatMul("embedding", stage, None, count, table.patch, table.width)
    elif table.entries is not None:
        yield Lookup("embedding", stage, None, work.batch * work.tokens, table.width, table.entries)
    if table.norm == "after":
        yield Norm("embedding.norm", stage, None, work.batch * work.tokens, table.width)


def _last_norm(table: Transformer, work: _Pass, stage: str) -> Iterator[Op]:
    """Normalization after the last layer."""
    if table.norm == "before":
        yield Norm("norm", stage, None, work.batch * work.tokens, table.width)


def _head(table: Transformer, work: _Pass) -> Iterator[Op]:
    """What follows the last layer: normalization, pooler and head."""
    yield from _last_norm(table, work, "head")
    if table.pooler:
        yield StaticMatMul("pooler", "head", None, work.batch, table.width, table.width)
        yield Elementwise("pooler.activation", "head", None, work.batch * table.width)
    if table.head is not None:
        yield StaticMatMul("head", "head", None, work.batch, table.width, table.head)


def _stack(
    table: Transformer, work: _Pass, name: str, first: int, count: int, *, source: int = 0, new: int = 0
) -> Iterator[Op]:
    """Layers of an encoder or decoder.

    Args:
        table: dimensions of the model.
        work: what the stack processes.
        name: name of the stack.
        first: index of its first layer.
        count: number of its layers.
        source: tokens of the source; 0 without cross attention.
        new: tokens of the source whose K and V are computed in this pass.
    """
    for index in range(count):
        layer_name = f"{name}.{index}"
        held = work.context + work.tokens
        yield from _attention(table, work, f"{layer_name}.attention", first + index, "", held, work.tokens)
        if source:
            yield from _attention(table, work, f"{layer_name}.cross", first + index, "cross_", source, new)
        yield from _feed_forward(table, work, f"{layer_name}.mlp", first + index)


def _attention(
    table: Transformer, work: _Pass, name: str, layer: int, prefix: str, held: int, new: int
) -> Iterator[Op]:
    """Projections, products and softmax of one attention module.

    Args:
        table: dimensions of the model.
        work: what the stack processes.
        name: name of the module.
        layer: index of the layer.
        prefix: of stage names; empty for self attention.
        held: tokens of each sample whose K and V are read.
        new: of these, tokens whose K and V are computed in this pass.
    """
    heads, size, across = table.heads, table.head_size, bool(prefix)
    kv_heads = table.kv_heads or heads
    vectors, causal = work.batch * work.tokens, work.causal and not across
    stage = f"{prefix}qkv"
    if table.norm == "before" or across:  # otherwise the preceding part has normalized
        yield Norm(f"{name}.norm", stage, layer, vectors, table.width)
    if table.fused and not across:
        yield StaticMatMul(f"{name}.qkv", stage, layer, vectors, table.width, (heads + 2 * kv_heads) * size)
    else:
        yield StaticMatMul(f"{name}.query", stage, layer, vectors, table.width, heads * size)
    if work.batch * new and (across or not table.fused):
        for part in ("key", "value"):
            yield StaticMatMul(f"{name}.{part}", stage, layer, work.batch * new, table.width, kv_heads * size)
    if table.rotary and not across:
        yield Elementwise(f"{name}.query.rotary", stage, layer, vectors * heads * size, "add")
        yield Elementwise(f"{name}.key.rotary", stage, layer, vectors * kv_heads * size, "add")
    common: dict[str, Any] = {
        **{"batch": work.batch, "heads": heads, "kv_heads": kv_heads, "queries": work.tokens, "written": new},
        **{"causal": causal, "across": across},
    }
    key, value = f"{prefix}key", f"{prefix}value"
    yield DynamicMatMul(
        f"{name}.scores",
        key,
        layer,
        "attention.key",
        **common,
        inputs=size,
        outputs=held,
    )
    yield Softmax(f"{name}.softmax", key, layer, vectors * heads, held, heads)
    yield DynamicMatMul(
        f"{name}.mix",
        value,
        layer,
        "attention.value",
        **common,
        inputs=held,
        outputs=size,
    )
    yield StaticMatMul(f"{name}.output", f"{prefix}output", layer, vectors, heads * size, table.width)
    yield Elementwise(f"{name}.residual", f"{prefix}output", layer, vectors * table.width, "add")


def _feed_forward(table: Transformer, work: _Pass, name: str, layer: int) -> Iterator[Op]:
    """Operations of one feed-forward network."""
    vectors = work.batch * work.tokens
    elements = vectors * table.hidden
    yield Norm(f"{name}.norm", "ffn1", layer, vectors, table.width)
    first = "gate" if table.gated else "up"
    yield StaticMatMul(f"{name}.{first}", "ffn1", layer, vectors, table.width, table.hidden)
    kinds: tuple[Literal["activation", "add"], ...] = (
        ("add", "activation", "add") if table.activation == "gelu_tanh" else ("activation",)
    )
    for kind in kinds:
        yield Elementwise(f"{name}.activation", "ffn1", layer, elements, kind)
    if table.gated:
        yield StaticMatMul(f"{name}.up", "ffn1", layer, vectors, table.width, table.hidden)
        yield Elementwise(f"{name}.product", "ffn1", layer, elements, "add")
    yield StaticMatMul(f"{name}.down", "ffn2", layer, vectors, table.hidden, table.width)
    yield Elementwise(f"{name}.residual", "ffn2", layer, vectors * table.width, "add")
    if table.norm == "after":
        yield Norm(f"{name}.last_norm", "ffn2", layer, vectors, table.width)
