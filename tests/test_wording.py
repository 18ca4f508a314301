"""Articles and keywords in messages."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import KVClip
from ohmformer.wording import with_article


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
