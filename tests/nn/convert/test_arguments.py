"""What `convert` is given: taken in every usual form, or refused in one line that names it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import ohmformer as of
from ohmformer import BadInput
from ohmformer.nn.convert.convert import StaysDigital
from ohmformer.nn.convert.handle import crossbars
from tests.nn.models import SelfAttention

HARDWARE = of.load("clipformer_tcad_2024")
TOKENS = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(2))


def convert(model: Any = None, sample: Any = TOKENS, **options: Any) -> nn.Module:
    return of.convert(SelfAttention().eval() if model is None else model, HARDWARE, sample=sample, **options)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.embed(input_ids))


class Files:
    """Inputs that are read when a slice of them is asked for, as image folders are."""

    def __len__(self) -> int:
        return len(TOKENS)

    def __getitem__(self, rows: slice) -> Tensor:
        return TOKENS[rows]


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        return iter([TOKENS])


@pytest.mark.parametrize("sample", [TOKENS.numpy(), (TOKENS.numpy(),), {"x": TOKENS.numpy()}, [TOKENS], Files()])
def test_usual_forms_of_a_sample_are_taken(sample: Any) -> None:
    torch.manual_seed(0)
    model = SelfAttention().eval()
    expected, found = convert(model), convert(model, sample)
    with torch.no_grad(), of.samples(range(3)):
        assert torch.equal(found(TOKENS), expected(TOKENS))


@pytest.mark.parametrize("sample", [{"input_ids": [[1, 2], [3, 4]]}, [[1, 2], [3, 4]], np.array([[1, 2], [3, 4]])])
def test_lists_of_numbers_are_tensors(sample: Any) -> None:
    assert of.capture_table(convert(Words(), sample)).digital == ()


@pytest.mark.parametrize(
    ("sample", "why"),
    [
        (DataLoader(TensorDataset(TOKENS)), r"type DataLoader; .*next\(iter\(loader\)\)"),
        (TensorDataset(TOKENS), "type TensorDataset; give a batch"),
        (Endless(), "type Endless; give a batch"),
        (None, "sample is empty: it is None; give a batch"),
        ("a text", "type str; give what the tokenizer"),
        (iter([TOKENS]), "type list_iterator; give a tensor"),
        (3.5, "type float; give a tensor"),
        (dict, "type type; give a tensor"),
        ({"input_ids": [[1, 2], [3]]}, r"sample\['input_ids'\] holds lists of different lengths; pad"),
        ([[1, 2], [3]], "sample holds lists of different lengths"),
        ([], "sample is empty"),
        ({}, "sample is empty"),
        (np.array(["a"]), "array of type <U1; give numbers"),
        (["a text", "another"], "sample holds texts; give what the tokenizer"),
        (TOKENS.to_sparse(), r"sample holds a sparse tensor; give sample.to_dense\(\)"),
        (
            torch.nested.nested_tensor([TOKENS[0], TOKENS[1, :3]], layout=torch.jagged),
            "sample holds a nested tensor; pad it",
        ),
        (TOKENS[:, :0], r"sample of shape \(3, 0, 24\) holds no values"),
    ],
)
def test_other_samples_are_named(sample: Any, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        convert(sample=sample)


@pytest.mark.parametrize("name", ["seed", "chip"])
@pytest.mark.parametrize("value", [1.5, "x", "", True, False, [1], []])
def test_seeds_and_chips_are_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"^{name} = .*: must be a whole number"):
        convert(**{name: value})


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return convert()


NO_WHOLE_NUMBERS = [
    *(True, np.True_, np.array(True), torch.tensor(True), torch.tensor([True]), 3.0, np.float32(3), torch.tensor(3.0)),
    *(np.array(3.0), torch.tensor([1, 2]), torch.ones(9, 9, dtype=torch.int64), np.array([1, 2]), np.array([])),
    *(torch.tensor([], dtype=torch.int64), torch.tensor(3, device="meta"), torch.tensor(3 + 0j), -1, np.int8(-1)),
    *(torch.tensor(-1), 2**63, 10**5000, -(10**5000), math.nan, math.inf, Fraction(3), Decimal(3), "3", b"3", object()),
    *([3], (3,), {}, np.array(["3"]), np.array([None]), np.datetime64("2020"), 3j),
]


@pytest.mark.parametrize("value", NO_WHOLE_NUMBERS, ids=lambda value: type(value).__name__)
def test_one_rule_for_whole_numbers(model: nn.Module, value: Any) -> None:
    """Chips, seeds, steps and batches take the same values, and refuse others in one line."""
    calls: list[Callable[[], object]] = [
        lambda: of.set_chip(model, value),
        lambda: of.set_chip(model, 0, seed=value),
        lambda: of.monte_carlo(model, lambda _: 0.5, chips=value, progress=False),
        lambda: of.monte_carlo(model, lambda _: 0.5, chips=1, seed=value, progress=False),
        lambda: of.variation(model, seed=value),
        lambda: setattr(of.variation(model), "step", value),
    ]
    if not isinstance(value, int) or value < 2:  # a batch may be larger than all inputs
        calls.append(lambda: of.calibrate(model, TOKENS, batch=value))
    for each in calls:
        with pytest.raises(BadInput, match="must be a whole number") as error:
            each()
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 400


class Three:
    """A whole number of another library."""

    def __index__(self) -> int:
        return 3


WHOLE = [3, np.int8(3), np.uint64(3), np.array(3), np.array([3]), torch.tensor(3), torch.tensor([[3]]), Three()]


@pytest.mark.parametrize("value", [*WHOLE, torch.tensor(3, dtype=torch.uint8)], ids=lambda value: type(value).__name__)
def test_whole_numbers_of_any_type(value: Any) -> None:
    model = convert(chip=value, seed=value)
    assert len(of.monte_carlo(model, lambda _: 0.5, chips=value, seed=value, progress=False).chips) == 3
    steps = of.variation(model, seed=value)
    steps.step = value
    assert (steps.step, steps.seed) == (3, 3)
    assert type(steps.step) is int
    of.calibrate(model, TOKENS, batch=value, remedy="none")


def test_arguments_beside_a_configuration_are_named() -> None:
    """The message said nothing of which arguments it meant."""
    config = of.ConvertConfig(hardware=HARDWARE)
    given = {"seed": 0, "chip": 0, "level": "array", "rules": {}, "weights": of.WeightMitigation(), "clip": of.KVClip()}
    for name, value in given.items():
        with pytest.raises(BadInput, match=f"^convert: {name} given beside .* replace\\(config, '{name}', ...\\)$"):
            of.convert(SelfAttention().eval(), config, sample=TOKENS, **{name: value})
    with pytest.raises(BadInput, match=r"^convert: level and chip given beside"):
        of.convert(SelfAttention().eval(), config, sample=TOKENS, chip=1, level="array")
    of.convert(SelfAttention().eval(), of.replace(config, "seed", 5), sample=TOKENS)


def test_no_seed_is_seed_0_and_numpy_integers_are_whole() -> None:
    torch.manual_seed(0)
    model = SelfAttention().eval()
    with torch.no_grad(), of.samples(range(3)):
        first = convert(model, seed=None)(TOKENS)
        assert torch.equal(first, convert(model, seed=0)(TOKENS))
        assert torch.equal(first, convert(model, seed=np.int64(0), chip=np.int64(0))(TOKENS))


def test_what_is_on_crossbars_already_is_said_to_be() -> None:
    converted = convert()
    with pytest.raises(BadInput, match=r"^this model is on crossbars already; .*revert\(\)"):
        convert(converted)
    with pytest.raises(BadInput, match=r"^module '1' of this model is on crossbars already"):
        convert(nn.Sequential(nn.Linear(24, 24), converted))
    with pytest.raises(BadInput, match=r"^module '0' of this model is on crossbars already"):
        convert(nn.Sequential(converted.q, nn.ReLU()))


class Holds(nn.Module):
    """Calls a model that it does not register as a part."""

    def __init__(self, parts: object) -> None:
        super().__init__()
        self.parts, self.head = parts, nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        part: Any = self.parts
        while not callable(part):
            part = part["a"] if isinstance(part, dict) else part[0]
        return self.head(part(x))


@pytest.mark.parametrize("wrap", [lambda m: [m], lambda m: {"a": (m,)}, lambda m: lambda x: m(x)])
def test_what_is_on_crossbars_already_is_said_to_be_where_no_module_names_it(wrap: Callable[..., object]) -> None:
    model = Holds(wrap(convert()))
    with pytest.raises(
        BadInput, match=r"^CrossbarSelfAttention, which this model calls, is on crossbars already; .*revert"
    ):
        convert(model)
    with pytest.raises(
        BadInput, match=r"^CrossbarSelfAttention, which this model calls, is on crossbars already; .*revert"
    ):
        of.trace(model, TOKENS)


def test_a_tensor_that_an_earlier_call_left_is_told_from_computed_weights() -> None:
    model = SelfAttention()
    model.q.seen = model.q.weight.sum() * 2
    with pytest.raises(BadInput, match=r"^q.seen is a tensor with gradients .*; set it to None, or to its detach\(\)$"):
        convert(model)
    model.q.seen = model.q.seen.detach()
    convert(model)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "change",
    [
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.3),
        lambda layer: torch.nn.utils.weight_norm(layer),
    ],
)
def test_computed_weights_are_refused_with_what_makes_them_parameters(change: Any) -> None:
    model = SelfAttention()
    change(model.q)
    with pytest.raises(BadInput, match=r"^q.weight is computed .*prune.remove, remove_weight_norm"):
        convert(model)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", [parametrizations.weight_norm, torch.nn.utils.spectral_norm])
def test_parametrized_weights_stay_digital_and_the_warning_says_what_to_do(change: Any) -> None:
    model = SelfAttention().eval()
    change(model.q)
    with pytest.warns(StaysDigital, match="parametrize.remove_parametrizations make parameters"):
        convert(model)


class Tripled(nn.Module):
    """A parametrization."""

    def forward(self, parameter: Tensor) -> Tensor:
        return 3 * parameter


class LinearAndMultihead(nn.Module):
    """One layer, and PyTorch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.attention = nn.Linear(8, 8), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        attended: Tensor = self.attention(y, y, y)[0]
        return attended


@pytest.mark.parametrize(
    ("part", "name", "digital"),
    [
        ("linear", "bias", 0),
        ("attention", "in_proj_weight", 4),
        ("attention", "in_proj_bias", 4),
        ("attention.out_proj", "weight", 4),
        ("attention.out_proj", "bias", 4),
    ],
)
def test_parametrized_biases_and_multihead_attention(part: str, name: str, digital: int) -> None:
    """A layer whose bias is parametrized is on crossbars; `nn.MultiheadAttention` with such a part stays digital."""
    torch.manual_seed(0)
    model, x = LinearAndMultihead().eval(), torch.randn(2, 5, 8)
    parametrize.register_parametrization(model.get_submodule(part), name, Tripled())
    with torch.no_grad():
        expected = model(x)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            converted = of.convert(model, HARDWARE, sample=x)
            of.trace(model, x)
        assert [warning.category for warning in told] == ([StaysDigital, of.LeftOut] if digital else [])
        assert len(of.capture_table(converted).digital) == digital
        with crossbars(converted).state.set_mode("ideal"), of.samples(range(2)):
            torch.testing.assert_close(converted(x), expected, rtol=0, atol=1e-5)
        assert torch.equal(of.revert(converted)(x), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pattern", ["2", "2*"])
def test_a_rule_keeps_a_quantized_layer_digital_with_all_that_is_in_it(pattern: str) -> None:
    model = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24)).eval()
    model[2] = torch.ao.quantization.quantize_dynamic(nn.Sequential(model[2]), {nn.Linear})[0]
    table = of.capture_table(of.convert(model, HARDWARE, sample=TOKENS, rules={pattern: None}))
    assert {row.module: row.engine for row in table.rows} == {"0": "projection", "2": "digital"}


@pytest.mark.filterwarnings("ignore")
def test_quantized_layers_are_named() -> None:
    model = torch.ao.quantization.quantize_dynamic(SelfAttention().eval(), {nn.Linear})
    with pytest.raises(BadInput, match=r"^q \(Linear\) is quantized already .*convert the float model"):
        convert(model)
    model = SelfAttention()
    model.q.weight = nn.Parameter(torch.zeros(24, 24, dtype=torch.int8), requires_grad=False)
    with pytest.raises(BadInput, match=r"^q \(Linear\) is quantized already \(its weights are whole numbers\)"):
        convert(model)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_8_bit_floats_are_named(dtype: torch.dtype) -> None:
    class Small(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight.float(), self.bias)

    model = nn.Sequential(Small(8, 8), nn.Linear(8, 2))
    model[0].weight = nn.Parameter(model[0].weight.detach().to(dtype), requires_grad=False)
    sample = torch.randn(4, 8)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(BadInput, match=rf"^0 \(Small\) is quantized already \(its weights are of type {name}\)"):
        of.convert(model, HARDWARE, sample=sample)
    of.convert(model, HARDWARE, sample=sample, rules={"0": "digital"})
    model[0].weight[0, 0] = math.nan
    with pytest.raises(BadInput, match=r"parameter 0\.weight holds NaN or infinity"):
        of.convert(model, HARDWARE, sample=sample, rules={"0": "digital"})


def test_weights_of_a_class_of_their_own_are_named() -> None:
    class Packed(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return super().__torch_dispatch__(func, types, args, kwargs or {})

    model = SelfAttention()
    model.q.register_buffer("packed", torch.zeros(24, 24).as_subclass(Packed))
    with pytest.raises(BadInput, match=r"^q \(Linear\) is quantized already \(its weights are of type"):
        convert(model)


@pytest.mark.parametrize("sample", [[object()], {"x": {"y": object()}}, (object(), None)])
def test_a_sample_without_tensors_is_not_said_to_be_empty(sample: Any) -> None:
    """A list of images of PIL was once called empty."""
    with pytest.raises(BadInput, match=r"^sample holds no tensor but an object; give tensors"):
        of.convert(nn.Linear(2, 2).eval(), of.load("nvm_ideal"), sample=sample)
