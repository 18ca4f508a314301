"""Cost of real models: what is priced is what the model computes, on the samples of the study's task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.cost import make_costs, runs_of
from ohmformer.workload.spec import DynamicMatMul, StaticMatMul, Workload
from tests.nn.hub import library
from tests.tasks import tiny

VIT = {"source": "bundled:fashion-vit"}
SMALL = {"source": "python:tests.study.small:model"}


def nothing() -> Any:
    """A model that says nothing of what it takes."""
    import torch

    return torch.nn.Linear(3, 3)


def work(model: dict[str, Any], step: int = -1, **sections: Any) -> Workload:
    (point,) = make_costs({"name": "x", "model": model, "hardware": {"base": "nvm_ideal"}, **sections}).points
    return runs_of(point.settings)[step].placement.workload


def size(found: Workload) -> tuple[str, int, int, int, bool]:
    return found.phase, found.batch, found.tokens, found.context, found.causal


def static(found: Workload) -> set[str]:
    """Modules whose weights are on arrays."""
    return {op.name for op in found.ops if isinstance(op, StaticMatMul)}


def said(model: dict[str, Any], **sections: Any) -> str:
    with pytest.raises(BadInput) as caught:
        work(model, **sections)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_bundled_model_with_and_without_its_task() -> None:
    alone = work({**VIT, "batch": 3})
    assert size(alone) == ("encode", 3, 50, 0, False)
    assert work({**VIT, "batch": 3, "seq_len": 50}, task={"source": "bundled:fashion-mnist"}).ops == alone.ops


def test_batches_larger_than_the_calibration_set() -> None:
    assert size(work({**SMALL, "batch": 30}, task={"source": "python:tests.study.small:task"}))[1:3] == (30, 5)


def test_rules_keep_modules_digital_in_both_halves() -> None:
    whole, part = work(SMALL), work(SMALL, rules={"blocks.*.mlp.*": "digital"})
    assert static(whole) - static(part) == {"blocks.0.mlp.0", "blocks.0.mlp.2"}


@pytest.mark.parametrize(
    ("model", "sections", "message"),
    [
        ({**VIT, "seq_len": 64}, {}, "model.seq_len = 64: the model makes 50 tokens of one input; leave it out"),
        ({**VIT, "phase": "decode"}, {}, "model.phase = 'decode': the model computes 50 tokens of a sample at once"),
        ({**VIT, "phase": "prefill"}, {}, "model.phase = 'prefill': the model has no causal mask"),
        ({**VIT, "context": 5}, {}, "model.context = 5: VisionTransformer takes no past_key_values"),
        ({**VIT, "weights": "random"}, {}, "model.weights = 'random': only for timm: and hf: sources"),
        (
            {"source": "python:tests.study.test_default_inputs:nothing"},
            {},
            "does not state the shape of its inputs; add a [task]",
        ),
        (VIT, {"rules": {"blocks.*": "generic_amplitude"}}, "rules['blocks.*'].array.cost: is missing, so these"),
        (VIT, {"rules": {"blockz.*": "puma_2019"}}, "rules: 'blockz.*' matches no module that multiplies"),
        (VIT, {"task": {"source": "bundled:mnist"}}, "task.source = 'bundled:mnist': no such task"),
    ],
)
def test_what_cannot_be_traced_is_one_line(model: dict[str, Any], sections: dict[str, Any], message: str) -> None:
    assert message in said(model, **sections)


def test_texts_have_the_length_that_is_asked_for(tmp_path: Path) -> None:
    library("transformers")
    model = {"source": f"hf:{tiny.bert(tmp_path / 'bert')}"}
    assert size(work({**model, "seq_len": 8})) == ("encode", 1, 8, 0, False)
    free = work({**model, "seq_len": 8, "weights": "random", "batch": 4})
    assert size(free) == ("encode", 4, 8, 0, False)
    task = {"source": f"csv:{tiny.reviews(tmp_path / 'r.csv', 80)}", "probe": True}
    assert size(work({**model, "seq_len": 11, "batch": 2}, task=task)) == ("encode", 2, 11, 0, False)
    assert not any("probe" in name for name in static(work(model, task=task))), "as in the accuracy half"
    assert "model.seq_len: is missing" in said(model)
    assert "13 tokens: its positions end at 12" in said({**model, "seq_len": 13})
    assert "model.phase = 'prefill': the model has no causal mask" in said({**model, "seq_len": 8, "phase": "prefill"})


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_text_is_made_with_a_cache(tmp_path: Path, weights: str) -> None:
    library("transformers")
    model = {"source": f"hf:{tiny.llama(tmp_path / 'llama')}", "weights": weights}
    assert size(work({**model, "seq_len": 8})) == ("prefill", 1, 8, 0, True)
    assert size(work({**model, "seq_len": 8, "context": 4, "phase": "prefill"})) == ("prefill", 1, 8, 4, True)
    steps = {**model, "phase": "decode", "context": 9, "steps": 4, "batch": 2}
    assert size(work(steps, 0)) == ("decode", 2, 1, 9, True)
    assert size(work(steps)) == ("decode", 2, 1, 12, True)
    task = {"source": f"text:{tiny.prose(tmp_path / 'p.txt')}", "window": 16}
    assert size(work(model, task=task)) == ("prefill", 1, 16, 0, True)
    assert size(work({**model, "phase": "decode", "context": 5}, task=task)) == ("decode", 1, 1, 5, True)
    assert "33 tokens: its positions end at 32" in said({**model, "phase": "decode", "context": 32})
    assert "model.phase = 'encode': the model has a causal mask" in said({**model, "phase": "encode", "seq_len": 4})
    assert "decoding makes one token at a time" in said({**model, "phase": "decode", "seq_len": 7})


def test_many_steps_are_what_each_of_them_is(tmp_path: Path) -> None:
    library("transformers")
    model = {"source": f"hf:{tiny.llama(tmp_path / 'llama')}", "phase": "decode", "weights": "random"}
    for step in range(7):
        alone = work({**model, "context": 9 + step})
        assert work({**model, "context": 9, "steps": 7}, step) == alone


def test_images_of_model_libraries(tmp_path: Path) -> None:
    library("transformers")
    deit = {"source": f"hf:{tiny.deit(tmp_path / 'deit')}"}
    task = {"source": f"imagefolder:{tiny.photographs(tmp_path / 'images')}", "calibration": 4}
    assert work({**deit, "batch": 2}, task=task).ops == work({**deit, "batch": 2}).ops
    assert size(work({**deit, "weights": "random"})) == ("encode", 1, 6, 0, False)
    library("timm")
    assert size(work({"source": "timm:vit_tiny_patch16_224", "weights": "random"})) == ("encode", 1, 197, 0, False)


def sounds() -> Any:
    from tests.tracing.test_trace_models import DECODERS, make

    return make(DECODERS["whisper"])


def pictures_and_words() -> Any:
    transformers = library("transformers")
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 128}
    text = {**sizes, "vocab_size": 100, "max_position_embeddings": 16, "eos_token_id": 2}
    config = transformers.CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8})
    return transformers.CLIPModel(config).eval()


@pytest.mark.filterwarnings("ignore::ohmformer.tracing.operations.LeftOut")  # the comparison of texts with images
def test_sound_and_pairs_of_text_and_image_need_no_task() -> None:
    library("transformers")
    heard = work({"source": "python:tests.study.test_default_inputs:sounds", "batch": 2})
    assert size(heard)[:3] == ("prefill", 2, 20)
    seen = work({"source": "python:tests.study.test_default_inputs:pictures_and_words", "batch": 3, "seq_len": 7})
    queries = {(op.batch, op.queries) for op in seen.ops if isinstance(op, DynamicMatMul)}
    assert queries == {(3, 7), (3, 17)}
