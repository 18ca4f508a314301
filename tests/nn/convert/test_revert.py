"""The way back, also of models that were changed, or of parts; and that the advice of messages works literally."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import ohmformer as of
from ohmformer.nn.convert.handle import crossbars
from tests.nn.hub import library
from tests.nn.models import vit

HARDWARE = of.load("clipformer_tcad_2024")
IMAGES = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(2))
VERBS: list[Callable[[Any], object]] = [
    of.capture_table,
    lambda model: of.set_chip(model, 1),
    lambda model: of.monte_carlo(model, lambda _: 0.5, chips=1, progress=False),
    lambda model: of.save(model, "never-written.safetensors"),
    lambda model: of.variation(model),
    lambda model: of.calibrate(model, IMAGES),
]


@pytest.fixture(scope="module")
def digital() -> Any:
    return vit()


@pytest.fixture(scope="module")
def original(digital: Any) -> Any:
    return of.convert(digital, HARDWARE, sample=IMAGES)


@pytest.fixture
def converted(original: Any) -> Any:
    return copy.deepcopy(original)


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(of.BadInput) as error:
        work()
    assert "\n" not in str(error.value)
    return str(error.value)


def own(module: nn.Module) -> list[str]:
    """What of a conversion is left on the modules of a model."""
    found = [name for each in module.modules() for name in vars(each) if name.startswith("ohmformer")]
    return found + [type(each).__name__ for each in module.modules() if "Crossbar" in type(each).__name__]


@pytest.mark.parametrize("layer", ["blocks.0.attn.qkv", "blocks.1.mlp.0", "head"])
@pytest.mark.parametrize(
    "parametrize", [parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal]
)
def test_revert_after_parametrization(converted: Any, digital: Any, layer: str, parametrize: Any) -> None:
    """Ended in an AttributeError: the class with the parametrized weight was taken away with that on crossbars."""
    torch.manual_seed(3)
    parametrize(converted.get_submodule(layer))
    back = of.revert(converted)
    assert not own(back)
    assert isinstance(back.get_submodule(layer), nn.Linear)
    expected = copy.deepcopy(digital)
    torch.manual_seed(3)
    parametrize(expected.get_submodule(layer))
    expected.load_state_dict(back.state_dict())
    torch.testing.assert_close(back.eval()(IMAGES), expected.eval()(IMAGES))
    nn.utils.parametrize.remove_parametrizations(back.get_submodule(layer), "weight")
    assert type(back.get_submodule(layer)) is nn.Linear
    torch.testing.assert_close(back(IMAGES), expected(IMAGES))
    again = of.convert(back, HARDWARE, sample=IMAGES)
    assert len(of.capture_table(again).rows) == len(of.capture_table(converted).rows)


@pytest.mark.filterwarnings("ignore:1 product stays digital")
def test_revert_after_parametrization_of_other_classes() -> None:
    """A module that multiplies by itself, PyTorch's attention, and a layer that was parametrized before, too."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(24, 3, 24, batch_first=True)
    for model, path, name in (
        (nn.Sequential(nn.Conv1d(9, 5, 1)), "0", "weight"),
        (nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), "layers.0.self_attn", "in_proj_weight"),
        (nn.Sequential(parametrizations.weight_norm(nn.Linear(24, 24))), "0", "bias"),
    ):
        converted, expected = of.convert(model.eval(), HARDWARE, sample=TOKENS), model(TOKENS)
        nn.utils.parametrize.register_parametrization(converted.get_submodule(path), name, nn.Identity())
        back = of.revert(converted)
        assert not own(back)
        torch.testing.assert_close(back(TOKENS), expected)


@pytest.mark.filterwarnings("ignore::ohmformer.GrownWeights")
@pytest.mark.parametrize(
    "change", [weight_norm, spectral_norm, lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5)]
)
@pytest.mark.parametrize("called", [False, True])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_revert_after_hooks_that_compute_weights(converted: Any, change: Any, called: bool) -> None:
    """The digital model, or one line that names the layer and the remedy."""
    change(converted.head)
    if called:
        with torch.no_grad(), of.samples(range(2)):
            converted(IMAGES)
    computed = converted.head.weight.grad_fn is not None
    if computed:
        assert "head.weight is computed from other parameters" in refused(lambda: of.revert(converted))
    else:
        back = of.revert(converted)
        assert not own(back)
        assert back(IMAGES).isfinite().all()


def bigger(converted: Any) -> Any:
    return nn.Sequential(converted, nn.Linear(5, 2))


def test_advice_for_a_model_with_a_converted_part(converted: Any) -> None:
    """Pass the part, or convert all of it: both work as the message writes them."""
    model = bigger(converted)
    for verb in VERBS:
        message = refused(lambda verb=verb: verb(model))
        assert "only 0 of this model is on crossbars; pass that part, model.get_submodule('0')" in message
        assert "or convert all of it: convert(revert(model), ...)" in message
    for verb in VERBS[:3]:
        verb(model.get_submodule("0"))
    again = of.convert(of.revert(model), HARDWARE, sample=IMAGES)
    assert len(of.capture_table(again).rows) == len(of.capture_table(converted).rows) + 1
    assert of.capture_table(model.get_submodule("0")).rows  # the part itself stays converted


def test_advice_for_several_converted_parts(converted: Any) -> None:
    model = nn.ModuleDict({"a": converted, "b": copy.deepcopy(converted)})
    message = refused(lambda: of.capture_table(model))
    assert "only a, b of this model are on crossbars" in message
    of.capture_table(model.get_submodule("a"))
    assert not own(of.revert(model))


def test_advice_of_convert(converted: Any) -> None:
    whole = [(model, IMAGES) for model in (converted, bigger(converted))]
    pieces = [(model, TOKENS) for model in (converted.blocks[0], nn.Sequential(converted.blocks[0]))]
    for model, sample in whole + pieces:
        message = refused(lambda model=model, sample=sample: of.convert(model, HARDWARE, sample=sample))
        assert "convert the original, or what revert() returns" in message
        of.convert(of.revert(model), HARDWARE, sample=sample)


def test_advice_for_a_piece_of_a_converted_model(converted: Any) -> None:
    for model in (converted.blocks[0], nn.Sequential(converted.blocks[0], nn.Linear(24, 2)), converted.head):
        for verb in VERBS:
            message = refused(lambda verb=verb, model=model: verb(model))
            assert "is a part of a model on crossbars; pass that whole model, or convert this part alone" in message
        again = of.convert(of.revert(model), HARDWARE, sample=TOKENS)
        assert of.capture_table(again).rows
    of.capture_table(converted)  # the whole stays as it was
    with torch.no_grad(), of.samples(range(2)):
        converted(IMAGES)


def test_reverted_piece_is_the_digital_one(converted: Any, digital: Any) -> None:
    back = of.revert(converted.blocks[0])
    assert not own(back)
    assert torch.equal(back(TOKENS), digital.blocks[0](TOKENS))
    assert all(a is b for a, b in zip(back.parameters(), converted.blocks[0].parameters(), strict=True))


def test_converted_model_inside_a_converted_one(converted: Any) -> None:
    """The remedy for a changed model works where what was put in is on crossbars itself."""
    model = copy.deepcopy(converted)
    model.head = nn.Sequential(copy.deepcopy(converted).head)
    message = refused(lambda: model(IMAGES))
    assert "convert(revert(model), ...)" in message
    of.convert(of.revert(model), HARDWARE, sample=IMAGES)


def test_revert_of_what_was_never_converted(digital: Any) -> None:
    assert "pass it through ohmformer.convert first" in refused(lambda: of.revert(digital))
    assert "model is an int, 3" in refused(lambda: of.revert(3))  # type: ignore[type-var]


def test_restore_takes_no_model_with_converted_parts(converted: Any, tmp_path: Any) -> None:
    """Its weights were overwritten before it was refused."""
    file = tmp_path / "model.safetensors"
    of.save(converted, file)
    for model in (converted, bigger(converted)):
        assert "what revert() returns" in refused(lambda model=model: of.restore(model, file))
    of.restore(of.revert(converted), file)


def test_settings_of_a_part_hold_in_the_bigger_model(converted: Any) -> None:
    model = bigger(converted)
    of.set_chip(model.get_submodule("0"), 4)
    assert crossbars(model[0]).state.chip == 4


def test_save_pretrained_after_revert_writes_the_plain_model(tmp_path: Path) -> None:
    transformers = library("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=20, **sizes)).eval()
    ids = torch.tensor([[3, 4, 5]])
    converted = of.convert(model, of.load("clipformer_tcad_2024"), sample={"input_ids": ids}, level="noise")
    of.revert(converted).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as content:
        assert set(content.keys()) == set(model.state_dict())
    read = transformers.BertModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(read(ids).last_hidden_state, model(ids).last_hidden_state)
