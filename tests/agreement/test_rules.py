"""Both halves agree for every operand on engine, array, written side, clip, basis and cells, whatever the rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ohmformer.array.spec import Crossbar
from ohmformer.cost.engine_choice import EngineChoice, PlacedOp
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import Rule, RuleBook
from ohmformer.hardware.spec import Accelerator, ArrayEngine
from ohmformer.mitigation.spec import KVClip, WeightMitigation
from ohmformer.nn.convert.convert import convert
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.weight import WeightOperand
from ohmformer.schema import load, replace
from ohmformer.tracing.trace import trace
from ohmformer.workload.spec import DynamicMatMul, StaticMatMul

pytestmark = pytest.mark.filterwarnings("ignore::ohmformer.nn.convert.convert.StaysDigital")

PRICED = load(Accelerator, "clipformer_tcad_2024_adc8")
HARDWARE = {name: load(Accelerator, name) for name in ("clipformer_tcad_2024_adc8", "xformer_tvlsi_2023")}
assert isinstance(PRICED.attention.key, ArrayEngine)
SMALL = replace(PRICED.attention.key.array, "rows", 16)
CLIP, OTHER_CLIP = KVClip(alpha=2.0, beta=0.25), KVClip(alpha=1.0, beta=0.5)
X = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))


class OnItsOwn(nn.Module):
    """Multiplies the weights of its children by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (F.linear(x, each.weight).unflatten(-1, (2, 8)).transpose(1, 2) for each in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Packed(nn.Module):
    """One parameter for three projections, two sites of attention, the second written out by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.randn(48, 16) / 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (x @ each.T for each in self.qkv.chunk(3))
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        y = F.scaled_dot_product_attention(y[:, None], k[:, None], v[:, None])[:, 0]
        return torch.einsum("bmn,bnd->bmd", torch.einsum("bmd,bnd->bmn", y, k).softmax(-1), v)


class Tied(nn.Module):
    """Two layers with one weight, and a third use of it from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)) + F.linear(x, self.a.weight))


class Bank(nn.Module):
    """Matrices of a bank, and a convolution in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.up = nn.Parameter(torch.randn(2, 16, 16) / 4), nn.Parameter(torch.randn(3, 16, 16) / 4)
        self.conv = nn.Conv1d(16, 16, 1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        for each in (*self.weight, *self.up):
            x = x @ each
        return self.conv(x.mT).mT


class Multihead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.self_attention(x, x, x, need_weights=False)[0]
        return y


class Model(nn.Module):
    """A part inside a model, between a layer of GPT-2 and a linear one; `spare` is not called."""

    def __init__(self, part: Callable[[], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.part, self.head, self.spare = Conv1D(16, 16), part(), nn.Linear(16, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.part(self.first(x)))


PARTS = (OnItsOwn, Packed, Tied, Bank, Multihead)
PATTERNS = st.sampled_from(
    [
        *("*", "part", "part.*", "part*", "first", "head", "spare", "*.K", "*.V", "part.K", "part.V", "part#1", "*#1*"),
        *("part.q", "part.k", "part.[qkv]", "part.out", "part.qkv", "part.qkv#256", "part.a", "part.b", "part.c"),
        *("part.up", "part.up[[]1]", "part[[]0]", "part.conv", "part.conv#1", "part.self_attention", "*attention.K"),
        *("*attention#q", "*.out_proj", "part#1.V"),
    ]
)
RULES = st.sampled_from(
    [
        Rule(on="digital"),
        Rule(),
        Rule(array=SMALL),
        Rule(array=SMALL, write="left", clip="none"),
        Rule(write="right"),
        Rule(clip=OTHER_CLIP),
        Rule(clip="none", scale="column"),
        Rule(on="projection"),
        Rule(on="attention.value"),
        Rule(rotate=True),
        Rule(rotate=False, percentile=99.0),
    ]
)
Facts = tuple[object, ...]
Made = TypeVar("Made")


def plain(array: Crossbar) -> Crossbar:
    """An array without what changes no price."""
    return replace(replace(array, "scale", "tensor"), "percentile", 100.0)


def top_code(operand: KVOperand, clip: KVClip | None) -> int | None:
    own = clip if operand.clip == "model" else operand.clip
    return own.max_code(operand.array) if isinstance(own, KVClip) else None


def of_accuracy(operands: tuple[Operand, ...], clip: KVClip | None) -> dict[str, Facts]:
    found: dict[str, Facts] = {}
    for operand in operands:
        if isinstance(operand, WeightOperand):
            found[operand.name] = (plain(operand.array), operand.rotated)
        elif isinstance(operand, KVOperand):
            shared = operand.fault_name != operand.name
            found[operand.name] = (plain(operand.array), operand.write, top_code(operand, clip), shared)
    return found


def of_cost(placed: list[PlacedOp]) -> dict[str, Facts]:
    found: dict[str, Facts] = {}
    for each in placed:
        op = each.op
        if not isinstance(each.engine, ArrayEngine):
            continue
        if isinstance(op, StaticMatMul):
            name = op.rule_names[0] if op.rule_names else op.name
            found[name] = (plain(each.array), each.rotated)
        else:
            side = "left" if op.turned else each.engine.written
            found[op.name] = (plain(each.array), side, each.max_code, each.shared)
    return found


def attempt(task: Callable[[], Made]) -> tuple[Made | None, str]:
    """What a task returns, or why it refuses."""
    try:
        return task(), ""
    except BadInput as error:
        return None, str(error)


def check(part: Callable[[], nn.Module], platform: str, rules: dict[str, Rule], clip: KVClip | None) -> None:
    """Everything that both halves say of the operands is the same; or both refuse the rules in the same words."""
    model, hardware, weights = Model(part).eval(), HARDWARE[platform], WeightMitigation(rotate=clip is not None)
    converted, refused = attempt(lambda: convert(model, hardware, sample=X, rules=rules, clip=clip, weights=weights))
    work, left_out = attempt(lambda: trace(model, X, rules=rules))
    if converted is None or work is None:  # a workload does not know what hardware its rules are for
        assert refused == left_out or "rotate = true, but" in refused
        return
    choice = EngineChoice(hardware, clip, RuleBook.read(rules), weights)
    placed = [each for each in choice.layer(work.ops, choice.tenants(work.ops)) if isinstance(each, PlacedOp)]
    operands = crossbars(converted).operands
    assert of_accuracy(operands, clip) == of_cost(placed)
    cells = {id(operand.cells) for operand in operands if isinstance(operand, WeightOperand)}
    groups = {each.op.rule_names[0] for each in placed if isinstance(each.op, StaticMatMul) and each.op.rule_names}
    stored = [e for e in placed if isinstance(e.op, StaticMatMul) and isinstance(e.engine, ArrayEngine)]
    own = [each for each in stored if each.holds_cells and not getattr(each.op, "rule_names", ())]
    assert len(cells) == len(own) + len(groups)


@pytest.mark.parametrize("part", PARTS)
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    rules=st.dictionaries(PATTERNS, RULES, max_size=3),
    clip=st.sampled_from([None, CLIP]),
    platform=st.sampled_from(list(HARDWARE)),
)
@pytest.mark.slow
def test_both_halves_agree_on_every_operand(
    part: Callable[[], nn.Module], rules: dict[str, Rule], clip: KVClip | None, platform: str
) -> None:
    check(part, platform, rules, clip)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    rules=st.dictionaries(PATTERNS, RULES, max_size=4),
    clip=st.sampled_from([None, CLIP]),
    platform=st.sampled_from(list(HARDWARE)),
)
def test_both_halves_agree_on_every_operand_at_length(
    part: Callable[[], nn.Module], rules: dict[str, Rule], clip: KVClip | None, platform: str
) -> None:
    check(part, platform, rules, clip)


def test_weights_that_another_module_multiplies_by_are_found_by_their_owner() -> None:
    """A rule on the calling module once made them digital in the workload, but not on the converted model."""
    model = Model(OnItsOwn).eval()
    for rules in ({"part": None}, {"part": Rule(array=SMALL)}):
        table = crossbars(convert(model, PRICED, sample=X, rules=rules)).table
        on_arrays = {row.module for row in table.rows if row.engine == "projection"}
        work = trace(model, X, rules=rules)
        assert {op.name for op in work.ops if isinstance(op, StaticMatMul)} == on_arrays
        assert {"part.q", "part.k", "part.v"} < on_arrays
    work = trace(model, X, rules={"part": None})
    assert not [op for op in work.ops if isinstance(op, DynamicMatMul)]


class ReadTwice(nn.Module):
    """The same weights as two different matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 4, 4) / 4)

    def forward(self, x: Tensor) -> Tensor:
        one = torch.einsum("bld,dhe->blhe", x, self.weight).flatten(2)
        return one - torch.einsum("bld,dhe->bleh", x, self.weight).flatten(2)


def test_weights_that_are_read_as_two_matrices_have_the_same_names_and_rules_in_both_halves() -> None:
    model = Model(ReadTwice).eval()
    for rules, held in (({}, {"part", "part#as2"}), ({"part#as2": None}, {"part"}), ({"part": None}, set())):
        operands = {op.name for op in crossbars(convert(model, PRICED, sample=X, rules=rules)).operands}
        assert operands & {"part", "part#as2"} == held
        work = trace(model, X, rules=rules)
        assert {op.name for op in work.ops if isinstance(op, StaticMatMul)} & {"part", "part#as2"} == held


def test_tied_weights_that_rules_put_into_different_arrays_take_cells_of_their_own() -> None:
    model = Model(Tied).eval()
    for rules, sets in (({}, 1), ({"part.b": Rule(array=SMALL)}, 2), ({"part.a": None}, 1), ({"part.b": None}, 1)):
        work = trace(model, X, rules=rules)
        choice = EngineChoice(PRICED, rules=RuleBook.read(rules))
        placed = choice.layer(work.ops, choice.tenants(work.ops))
        names = ("part.a", "part.b")
        held = [each for each in placed if isinstance(each, PlacedOp) and each.holds_cells and each.op.name in names]
        assert len(held) == sets, rules


def test_both_halves_refuse_a_rule_without_effect_in_the_same_words() -> None:
    model = Model(Multihead).eval()
    for rules in ({"nothing": None}, {"*": Rule(), "part*": None}, {"*n.K": Rule(), "*attention": None}):
        found, line = attempt(lambda rules=rules: convert(model, PRICED, sample=X, rules=rules))
        assert found is None
        assert attempt(lambda rules=rules: trace(model, X, rules=rules)) == (None, line)
    trace(model, X, rules={"spare": None})
    convert(model, PRICED, sample=X, rules={"spare": None})
