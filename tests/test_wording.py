"""Articles, keywords and places in messages."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import KVClip
from ohmformer.wording import with_article, without_place


@pytest.mark.parametrize(
    "text",
    [
        *(
            "an int",
            "an object",
            "an OrderedDict",
            "an ndarray",
            "an nn.Module",
            "an 'offset'",
            "an _Odd",
            "an Unknown",
        ),
        *("an Unknown", "an LSTM", "an MLPModel", "an XLMModel", "an F16", "an IOWrapper", "an unsigned", "an albert"),
        *("a Tensor", "a float", "a 'differential'", "a uint8", "a Uniform", "a unit", "a UUID", "a ViT", "a one"),
        *("a gpt2", "a torch.nn.Module", "a Namespace", "a number", "a NoneType"),
    ],
)
def test_nouns_have_the_article_that_their_sound_needs(text: str) -> None:
    assert with_article(text.split(" ", 1)[1]) == text


@pytest.mark.parametrize(
    ("make", "written"),
    [
        (lambda: KVClip(2.0, 0.5), r"write KVClip\(alpha=\.\.\., beta=\.\.\.\)$"),
        (lambda: KVClip(2.0, beta=0.5), r"write KVClip\(alpha=\.\.\., beta=\.\.\.\)$"),
        (lambda: Cell(1e-7), r"write Cell\(g_min=\.\.\., g_max=\.\.\., .*, \.\.\.\)$"),
    ],
)
def test_a_value_without_its_keyword_is_refused_with_the_keywords(make: Any, written: str) -> None:
    with pytest.raises(BadInput, match=rf"^\w+: takes no value without its keyword; {written}"):
        make()
    assert "positional" not in str(inspect.signature(KVClip))


@pytest.mark.parametrize(
    ("keys", "fault", "rest"),
    [
        ("array.writes", "writes = 10: change nothing", "change nothing"),
        ("cell.drift", "drift: g_rest = 1 S is above g_max", "g_rest = 1 S is above g_max"),
        ("attention.refresh_loss", "refresh_loss = 0.1: no cells lose it", "no cells lose it"),
        ("array.wires.ir_drop", "wires.ir_drop = 'sweeps' holds up to 4", "holds up to 4"),
        ("array.wires", "wires.ir_drop = 'sweeps' holds up to 4", "ir_drop = 'sweeps' holds up to 4"),
        ("cell.g_max", "g_max = 10 uS: is below g_min", "is below g_min"),
        # Another key, a word that only begins alike, and a value with a unit in front of a verb stay.
        ("array.bits", "writes = 10: change nothing", "writes = 10: change nothing"),
        ("array.write", "writes = 10: change nothing", "writes = 10: change nothing"),
        ("cell.g_rest", "g_rest = 1 S is above g_max", "g_rest = 1 S is above g_max"),
        ("array.wires", "wires. Leave them out", "wires. Leave them out"),
    ],
)
def test_a_fault_does_not_name_its_place_again(keys: str, fault: str, rest: str) -> None:
    assert without_place(fault, keys.split("."), value=True) == rest


def test_a_value_that_the_message_does_not_show_stays() -> None:
    assert without_place("wear: nothing says", ("cell", "wear"), value=False) == "nothing says"
    assert without_place("writes = 10: change nothing", ("writes",), value=False) == "writes = 10: change nothing"
