"""Messages are one printable line, whatever the input holds."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmformer.errors import LONGEST_LINE, SHOWN, BadInput, Misplaced, closest, cut, printable, shown, suggest


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain, with \u00b5 and \u65e5\u672c", "plain, with \u00b5 and \u65e5\u672c"),
        ("two\n  lines\r\nand\ta tab", "two lines and a tab"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202edcba", "abc\\u202edcba"),
        ("\u2066x\u2069\u200f\ufeff", "\\u2066x\\u2069\\u200f\\ufeff"),
        ("a\u2028b\u2029c\x85d", "a b c d"),
        ("\udc80", "\\udc80"),
        ("\x00\x7f", "\\x00\\x7f"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, seen: str) -> None:
    assert printable(text) == seen
    assert str(BadInput(text)) == seen


@given(st.text())
def test_no_text_breaks_a_line(text: str) -> None:
    said = str(BadInput(f"{text}: is wrong; mend it"))
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in said)
    assert len(said.splitlines()) <= 1
    said.encode("utf-8")


def test_long_text_keeps_both_ends() -> None:
    said = str(BadInput(f"file.toml: {'x ' * 50_000}; take another one"))
    assert len(said) == LONGEST_LINE
    assert said.startswith("file.toml: x x")
    assert said.endswith("x x ; take another one")
    assert cut("short") == "short"


def test_a_long_word_is_cut_and_its_length_is_given_wherever_it_stands() -> None:
    word = "x" * 100_000
    said = str(BadInput(f"no/{word}: has {word!r}; take another one"))
    assert len(said) < 300
    assert said.startswith("no/xx")
    assert "xx (100,003 characters): has 'xx" in said
    assert said.endswith("xx' (100,002 characters); take another one")
    path = "/".join(["folder"] * 40)
    assert str(BadInput(f"{path}: no such file")) == f"{path}: no such file", "a path is shown whole"


def test_values_are_cut_and_their_length_is_given() -> None:
    for value in ("a" * 100_000, list(range(10_000)), 10**400, {"a": "b" * 500}):
        assert len(shown(value)) <= SHOWN
        assert shown(value).endswith(f" ({len(repr(value)):,} characters)")
    assert shown(10**5000) == "a number of thousands of digits"
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(nested) == "a value nested too deeply"
    while nested:
        nested = nested.pop()  # type: ignore[assignment]
    assert len(str(Misplaced(("k" * 500,), "v" * 500, "is wrong"))) < 200
    assert str(Misplaced(("a", "b"), 3, "is wrong; mend it")) == "a.b = 3: is wrong; mend it"


KNOWN = ["bert_base", "vit_base", "gtx_1060", "head", "level", "write_noise", "array", "seed"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [("bert", "bert_base"), ("Bert base", "bert_base"), ("GTX1060", "gtx_1060"), ("haed", "head"), ("ehad", "head"),
     ("levle", "level"), ("noise", "write_noise"), ("aray", "array"), ("arrays", "array"), (" seed ", "seed"),
     ("write-nosie", "write_noise"), ("rram", ""), ("x", ""), ("a", ""), ("", ""), ("nothing", ""), ("tpu", ""),
     ("copies", ""), ("y" * 100_000, "")],
)  # fmt: skip
def test_near_words_are_suggested_and_others_are_not(word: str, meant: str) -> None:
    assert closest(word, KNOWN) == meant
    assert suggest(word, KNOWN).startswith(f"did you mean {meant!r}? known: array, " if meant else "known: array, ")


def test_a_known_word_is_listed_once() -> None:
    assert suggest("nosuch", ["cell_b", "cell_a", "cell_b"]) == "known: cell_a, cell_b"
