"""Tokenizers that are not there, or not the model's, are refused; padding and the longest text fit the model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.models.load import load_model
from ohmformer.models.preprocessing import preparation, remember
from ohmformer.models.tokenizers import check_room, longest_text, read_tokenizer
from ohmformer.tasks.load import load_task
from ohmformer.tasks.scoring import scores
from tests.tasks import tiny

transformers = pytest.importorskip("transformers")

WORDS = len(tiny.SPECIAL) + len(tiny.WORDS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bert(tmp_path_factory.mktemp("bert") / "b", "BertForSequenceClassification", num_labels=2)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "b"))


@pytest.fixture
def table(tmp_path: Path) -> str:
    rows = [(text, n % 2) for n, text in enumerate(tiny.sentences(12))]
    return f"csv:{tiny.table(tmp_path / 't.csv', ('text', 'label'), *rows)}"


PARTS: dict[str, dict[str, str]] = {
    "nothing": {},
    "settings alone": {"tokenizer_config.json": "{}"},
    "a vocabulary of another kind": {"vocab.json": json.dumps({"a": 0, "b": 1, "<unk>": 2, "</s>": 3})},
    "merges alone": {"merges.txt": "#version: 0.2\na b\n"},
    "an empty vocabulary": {"vocab.txt": ""},
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize(
    "config",
    ["Bert", "DistilBert", "Roberta", "Electra", "Albert", "DebertaV2", "T5", "GPT2", "Llama", "XLNet", "XLMRoberta"],
)
def test_a_folder_without_words_has_no_tokenizer(tmp_path: Path, config: str, parts: dict[str, str]) -> None:
    getattr(transformers, f"{config}Config")().save_pretrained(tmp_path)
    for name, text in parts.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(
        BadInput, match=r"the tokenizer in .*(has no vocabulary|cannot be read).*tokenizer's files"
    ) as caught:
        read_tokenizer(transformers, str(tmp_path), {}, None)
    assert "\n" not in str(caught.value)


def test_characters_need_no_files(tmp_path: Path) -> None:
    transformers.CanineConfig().save_pretrained(tmp_path)
    assert read_tokenizer(transformers, str(tmp_path), {}, None)("ab")["input_ids"][1:-1] == [97, 98]


@pytest.mark.parametrize("text", [None, "", "{", "[]", "\0"])
def test_why_a_tokenizer_cannot_be_read_is_told(folder: Path, table: str, text: str | None) -> None:
    file = folder / "tokenizer.json"
    file.unlink() if text is None else file.write_text(text)
    model = load_model(f"hf:{folder}")
    with pytest.raises(BadInput, match=r"task\.source = .*the tokenizer in .* cannot be read \(\w+: .+\)") as caught:
        load_task(table, model=model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("longest", ["x", -1, 0, 1.5, True, [3], float("nan")])
def test_a_longest_text_that_is_none_is_one_line(folder: Path, table: str, longest: object) -> None:
    change(folder / "tokenizer_config.json", model_max_length=longest)
    with pytest.raises(BadInput, match=r"tokenizer_config\.json: model_max_length = .*: must be a whole number"):
        load_task(table, model=load_model(f"hf:{folder}"))


@pytest.mark.parametrize(("longest", "tokens"), [(None, 12), (5, 5), (10**30, 12), (1e30, 12)])
def test_the_longest_text_is_the_shorter_of_both(folder: Path, longest: float | None, tokens: int) -> None:
    change(folder / "tokenizer_config.json", model_max_length=longest)
    assert preparation(load_model(f"hf:{folder}")).max_tokens == tokens


def change(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def test_texts_of_unknown_words_are_refused(saved: Path, tmp_path: Path) -> None:
    model = load_model(f"hf:{saved}")
    rows = [(f"ein Satz {n}", n % 2) for n in range(12)]
    file = tiny.table(tmp_path / "t.csv", ("text", "label"), *rows)
    with pytest.raises(BadInput, match=r"33 of the 33 tokens of its texts are unknown to the model's tokenizer"):
        load_task(f"csv:{file}", model=model)
    rows = [(f"good film {n}", n % 2) for n in range(12)]
    task = load_task(f"csv:{tiny.table(file, ('text', 'label'), *rows)}", model=model)
    assert "11 of 33 tokens are unknown to the model's tokenizer" in task.notes


@pytest.mark.parametrize(("setting", "value"), [("vocab_size", 10)])
def test_tokens_that_the_model_has_no_vectors_for_are_one_line(
    folder: Path, table: str, setting: str, value: int
) -> None:
    change(folder / "config.json", **{setting: value})
    with pytest.raises(BadInput, match=r"numbers its tokens up to 24 .* embeds only 10 \(0 to 9\)"):
        load_task(table, model=load_model(f"hf:{folder}", weights="random"))


def test_padding_that_the_model_has_no_vector_for_is_one_line(folder: Path, table: str) -> None:
    change(folder / "tokenizer_config.json", pad_token="[NEW]")
    with pytest.raises(BadInput, match=rf"up to {WORDS} \('\[NEW\]'\), but the model embeds only {WORDS} "):
        load_task(table, model=load_model(f"hf:{folder}"))


def tokenizer_file(folder: Path, **changes: Any) -> None:
    change(folder / "tokenizer.json", **changes)


NEW = {
    "id": WORDS, "content": "[NEW]", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
    "special": False,
}  # fmt: skip
VOCABULARY = {word: number for number, word in enumerate([*tiny.SPECIAL, *tiny.WORDS])}
LEVEL = {"type": "WordLevel", "unk_token": "[UNK]"}
BPE = {
    "type": "BPE", "unk_token": "[UNK]", "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False,
    "vocab": {"[UNK]": 0, "a": 1, "b": 2, "ab": 3}, "merges": ["a b"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "number", "token"),
    [
        ({"added_tokens": [NEW]}, WORDS, "[NEW]"),
        ({"model": {**LEVEL, "vocab": {**VOCABULARY, "never": WORDS}}}, WORDS, "never"),
        ({"model": {**LEVEL, "vocab": {**VOCABULARY, "never": 1000}}}, 1000, "never"),
    ],
)
def test_a_vocabulary_beyond_the_embedding_is_refused_before_texts_use_it(
    folder: Path, table: str, changes: dict[str, Any], number: int, token: str
) -> None:
    tokenizer_file(folder, **changes)
    model = load_model(f"hf:{folder}")
    assert preparation(model).tokenizer is None
    said = rf"up to {number} \({re.escape(repr(token))}\), but the model embeds only {WORDS} \(0 to {WORDS - 1}\)"
    with pytest.raises(BadInput, match=said):
        load_task(table, model=model)


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[NONE]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        },
        {"model": {**BPE, "continuing_subword_prefix": "abc"}},
        {"model": {**LEVEL, "vocab": {"good": -1}}},
        {"model": {**LEVEL, "vocab": ["good"]}},
        {"model": None},
        {"added_tokens": None},
        {"added_tokens": "x"},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
        {"version": 1},
    ],
)
def test_files_on_which_the_tokenizer_library_fails_are_one_line(
    folder: Path, table: str, changes: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer_file(folder, **changes)
    capfd.readouterr()
    with pytest.raises(
        BadInput, match=r"the tokenizer in .* cannot be read \(\w+: .+\); put the tokenizer's"
    ) as caught:
        load_task(table, model=load_model(f"hf:{folder}"))
    assert "\n" not in str(caught.value)
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": 5}, {"pad_token": 5}, {"pad_token": ["a"]}, {"extra_special_tokens": {"a": 5}},
        {"added_tokens_decoder": [1]}, {"auto_map": 5}, {"model_input_names": 5}, {"padding_side": "up"}, {"self": 1},
    ],
)  # fmt: skip
def test_settings_on_which_transformers_fails_are_one_line(folder: Path, table: str, settings: dict[str, Any]) -> None:
    change(folder / "tokenizer_config.json", **settings)
    with pytest.raises(BadInput, match=r"the tokenizer in .* cannot be read \(\w+: .+\)") as caught:
        load_task(table, model=load_model(f"hf:{folder}"))
    assert "\n" not in str(caught.value)


def test_tokens_that_change_from_call_to_call_are_refused(folder: Path, table: str) -> None:
    tokenizer_file(folder, model={**BPE, "dropout": 0.5})
    with pytest.raises(BadInput, match=r"tokenizer\.json: model\.dropout = 0\.5: gives other tokens at each call"):
        load_task(table, model=load_model(f"hf:{folder}"))


class PanicException(BaseException):
    """As the one of Rust libraries, which is no `Exception`."""


def test_a_tokenizer_that_fails_on_texts_is_one_line(folder: Path, table: str, tmp_path: Path) -> None:
    class Fails:
        pad_token_id = 0

        def __init__(self, error: type[BaseException]) -> None:
            self.error = error

        def __call__(self, *_: object, **__: object) -> None:
            raise self.error("within")

    model = load_model(f"hf:{folder}")
    for error, raised in ((PanicException, BadInput), (KeyError, BadInput), (KeyboardInterrupt, KeyboardInterrupt)):
        remember(model, replace(preparation(model), tokenizer=Fails(error)))
        for source in (table, f"text:{tiny.prose(tmp_path / 'p.txt')}"):
            with pytest.raises(raised, match="within"):
                load_task(source, model=model, **({"window": 8} if source.startswith("text") else {}))


DECODERS = {
    "GPT2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32},
    "Llama": {**tiny.SMALL, "num_key_value_heads": 1, "max_position_embeddings": 32},
    "GPTNeoX": {**tiny.SMALL, "max_position_embeddings": 32},
    "Bloom": {"hidden_size": 16, "n_layer": 1, "n_head": 2},
}


@pytest.mark.parametrize("padding", [None, 0, 9])
@pytest.mark.parametrize("name", DECODERS)
def test_decoders_classify_by_the_last_token_that_is_no_padding(
    tmp_path: Path, table: str, name: str, padding: int | None
) -> None:
    config = getattr(transformers, f"{name}Config")(**DECODERS[name], vocab_size=WORDS, pad_token_id=padding)
    config.save_pretrained(tmp_path)
    tiny.tokenizer(tmp_path)  # it has no padding of its own
    model = load_model(f"hf:{tmp_path}", head="text-classification", weights="random")
    assert model.config.pad_token_id == preparation(model).tokenizer.pad_token_id == (4 if padding is None else padding)
    task = load_task(table, model=model)
    mask, ids = task.inputs["attention_mask"], task.inputs["input_ids"]
    assert not mask.all()
    with torch.inference_mode():
        together = model(**task.inputs).logits
        alone = [model(input_ids=ids[n : n + 1, : int(mask[n].sum())]).logits[0] for n in range(len(ids))]
    assert torch.allclose(together, torch.stack(alone), atol=1e-5)
    assert np.array_equal(scores(model, task, 1), scores(model, task, 100))


def test_models_that_read_the_last_token_are_padded_on_the_left(tmp_path: Path, table: str) -> None:
    config = transformers.XLNetConfig(vocab_size=WORDS, d_model=16, n_layer=1, n_head=2, d_inner=16, pad_token_id=0)
    config.save_pretrained(tmp_path)
    tiny.tokenizer(tmp_path, pad_token="[PAD]", padding_side="right")
    model = load_model(f"hf:{tmp_path}", head="text-classification", weights="random")
    task = load_task(table, model=model)
    mask, ids = task.inputs["attention_mask"].bool(), task.inputs["input_ids"]
    assert not mask.all()
    with torch.inference_mode():
        together = model(**task.inputs).logits
        alone = [model(input_ids=row[shown][None]).logits[0] for row, shown in zip(ids, mask, strict=True)]
    assert torch.allclose(together, torch.stack(alone), atol=1e-5)


def test_a_tokenizer_whose_package_is_missing_says_to_install_it() -> None:
    package = Mock(**{"AutoTokenizer.from_pretrained.side_effect": ImportError("You need to install rjieba")})
    with pytest.raises(BadInput, match=r"cannot be read \(ImportError: You need to install rjieba\); install it$"):
        read_tokenizer(package, "folder", {}, None)


POSITIONS: dict[str, dict[str, Any]] = {
    "Roberta": tiny.SMALL,
    "XLMRoberta": tiny.SMALL,
    "Longformer": {**tiny.SMALL, "attention_window": [4]},
    "Esm": {**tiny.SMALL, "position_embedding_type": "rotary", "mask_token_id": 4},
    "XLM": {"emb_dim": 16, "n_layers": 1, "n_heads": 2},
    "Flaubert": {"emb_dim": 16, "n_layers": 1, "n_heads": 2},
}


@pytest.mark.parametrize("padding", [None, 0])
@pytest.mark.parametrize("name", POSITIONS)
def test_models_that_number_positions_from_the_padding_need_one(
    tmp_path: Path, table: str, name: str, padding: int | None
) -> None:
    config = getattr(transformers, f"{name}Config")(**POSITIONS[name], vocab_size=WORDS, pad_token_id=padding)
    config.save_pretrained(tmp_path)
    tiny.tokenizer(tmp_path)
    model = load_model(f"hf:{tmp_path}", head="text-classification", weights="random")
    if padding is None:
        with pytest.raises(BadInput, match=r"config\.json: pad_token_id is missing, without which \w+ cannot tell"):
            load_task(table, model=model)
    else:
        assert np.isfinite(scores(model, load_task(table, model=model), 100)).all()


SIZES = {
    **tiny.SMALL,
    "vocab_size": 30,
    "max_position_embeddings": 24,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
NAMED = {"n_layer": 1, "n_head": 2, "vocab_size": 30, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
FAMILIES: dict[str, tuple[dict[str, Any], int | None]] = {
    "Bert": (SIZES, 24), "Electra": ({**SIZES, "embedding_size": 16}, 24), "DebertaV2": (SIZES, 24),
    "Nystromformer": (SIZES, 24), "Roberta": (SIZES, 22), "XLMRoberta": (SIZES, 22), "Camembert": (SIZES, 22),
    "MPNet": (SIZES, 22), "Data2VecText": (SIZES, 22), "Longformer": ({**SIZES, "attention_window": [4]}, 22),
    "IBert": (SIZES, 22), "Esm": ({**SIZES, "position_embedding_type": "absolute"}, 22),
    "BigBird": ({**SIZES, "block_size": 4, "num_random_blocks": 1}, 24),
    "OPT": ({**SIZES, "ffn_dim": 16, "word_embed_proj_dim": 16}, 24),
    "GPT2": ({**NAMED, "n_embd": 16, "n_positions": 24}, 24), "XLNet": ({**NAMED, "d_model": 16, "d_inner": 16}, None),
    "Funnel": ({"vocab_size": 30, "block_sizes": [1], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 16}, None),
    "Mpt": ({"d_model": 16, "n_heads": 2, "n_layers": 1, "max_seq_len": 24, "vocab_size": 30}, 24),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_the_longest_text_is_what_the_model_takes_and_no_more(name: str) -> None:
    settings, longest = FAMILIES[name]
    config = getattr(transformers, f"{name}Config")(**settings)
    head = "ForCausalLM" if name == "Mpt" else "ForSequenceClassification"
    model = getattr(transformers, f"{name}{head}")(config).eval()
    assert longest_text(model, None) == longest
    takes(model, longest or 200)
    if longest:
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            takes(model, longest + 1)


def takes(model: nn.Module, tokens: int) -> None:
    ids = torch.arange(tokens)[None] % 20 + 5
    with torch.inference_mode():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))


def evil_model(folder: Path) -> None:
    change(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "code.Config"})


def evil_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    change(folder / "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["code.Evil", None]})


@pytest.mark.parametrize("spoil", [evil_model, evil_tokenizer])
def test_code_of_a_folder_is_never_run_nor_asked_for(
    folder: Path, table: str, spoil: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spoil(folder)
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Evil: pass\n")

    def asks(*_: object) -> str:
        raise AssertionError("transformers asks whether it may run code")

    monkeypatch.setattr("builtins.input", asks)
    with pytest.raises(BadInput):
        load_task(table, model=load_model(f"hf:{folder}"))
    assert not (tmp_path / "ran").exists()


def test_a_configuration_that_makes_no_model_is_one_line(folder: Path) -> None:
    change(folder / "config.json", max_position_embeddings=-1)
    with pytest.raises(BadInput, match=r"cannot be built \(RuntimeError: .*check the folder's config\.json"):
        load_model(f"hf:{folder}", weights="random")


@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_without_room_for_words_is_refused(tmp_path: Path, limit: int) -> None:
    class Bert:
        model_max_length = limit

        def num_special_tokens_to_add(self) -> int:
            return 2

    with pytest.raises(BadInput, match=rf"tokenizer_config.json: model_max_length = {limit}: leaves no room for words"):
        check_room(str(tmp_path), Bert())
    Bert.model_max_length = 10**30
    check_room(str(tmp_path), Bert())
