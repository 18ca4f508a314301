"""Files that people write: encodings, what is no file, nesting, numbers without end, and what is read twice."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from ohmformer import catalog, textfiles
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.schema import load
from ohmformer.textfiles import read_json, read_text, read_toml

GOOD = '[cell]\ng_min = "1 uS"\ng_max = "2 uS"\n'


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(GOOD.encode("utf-8-sig"))
    assert load(Cell, str(file)).g_max == 2e-6
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_utf_16_and_utf_32_are_named(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(f"\ufeff{GOOD}".encode(encoding))
    with pytest.raises(BadInput, match=rf"mine.toml: is text in {encoding[:6].upper()}; save it as UTF-8"):
        load(Cell, str(file))


def test_lines_that_end_in_carriage_returns_alone_are_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(GOOD.replace("\n", "\r").encode())
    with pytest.raises(BadInput, match=r"mine.toml: its lines end in carriage returns alone \(CR\); save it with"):
        load(Cell, str(file))
    file.write_bytes(GOOD.replace("\n", "\r\n").encode())
    assert load(Cell, str(file)).g_max == 2e-6


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD.encode("utf-16-le"), "holds null characters, as UTF-16"),
        (GOOD.encode("utf-32-be"), "holds null characters"),
        (GOOD.encode() + b"\0", "holds null characters"),
        (b"\xef\xbb\xbf" + GOOD.encode("utf-8-sig"), "begins with two byte-order marks"),
        (b"\xe9", r"is not text in UTF-8 \(byte 0xe9 at position 0\)"),
    ],
)
def test_text_in_another_encoding_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    for reader in (read_text, read_toml, read_json):
        with pytest.raises(BadInput, match=rf"mine\.toml: {said}"):
            reader(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("text", "character"),
    [
        ("name = \u201cx\u201d\n", "U+201C, left double quotation mark,"),
        ("a = 1\r\n\ufeffb = 2\r\n", "U+FEFF, zero width no-break space,"),
        ("a\u00a0= 3\n", "U+00A0, no-break space,"),
        ("a = \u22123\n", "U+2212, minus sign,"),
        ("a = [1\uff0c2]\n", "U+FF0C, fullwidth comma,"),
        ("a = 1\u200b\n", "U+200B, zero width space,"),
    ],
)
def test_a_character_that_toml_does_not_know_is_named(tmp_path: Path, text: str, character: str) -> None:
    (tmp_path / "mine.toml").write_bytes(text.encode())
    with pytest.raises(BadInput, match="is not valid TOML") as caught:
        read_toml(tmp_path / "mine.toml")
    assert f"(its character {character} is not part of TOML outside of quotes)" in str(caught.value)


@pytest.mark.parametrize("text", ["a = \n", "a = x\n", "a", "# \u201cx\u201d\na = ]\n"])
def test_other_faults_of_toml_name_no_character(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.toml").write_bytes(text.encode())
    with pytest.raises(BadInput, match=r"correct that line$"):
        read_toml(tmp_path / "mine.toml")


def test_files_of_size_0_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").touch()
    monkeypatch.setattr(Path, "read_bytes", lambda file: pytest.fail("opened"))
    assert read_text(tmp_path / "empty") == ""


@pytest.mark.parametrize("reader", [read_text, read_toml, read_json])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, reader: object) -> None:
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    begun = time.monotonic()
    for place in (pipe, tmp_path, Path("/dev/zero")):
        with pytest.raises(BadInput, match="is a folder, pipe or device; give the path of a file"):
            reader(place)  # type: ignore[operator]
    for place, said in (
        (tmp_path / "gone", "no such file; check the path"),
        (tmp_path / ("a" * 300), "cannot be read"),
        (tmp_path / "a\0b", "cannot be read"),
    ):
        with pytest.raises(BadInput, match=said):
            reader(place)  # type: ignore[operator]
    assert time.monotonic() - begun < 5


def test_a_pipe_or_folder_among_library_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cells" / "folder.toml").mkdir(parents=True)
    os.mkfifo(tmp_path / "cells" / "pipe.toml")
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(tmp_path))
    for name in ("folder", "pipe"):
        with pytest.raises(BadInput, match=rf"{name}.toml: is a folder, pipe or device"):
            load(Cell, name)


@pytest.mark.parametrize("name", ["a" * 300 + ".toml", "a/" * 3000 + "b.toml", "\0.toml", ".toml"])
def test_a_name_that_no_file_has_names_no_file(name: str) -> None:
    with pytest.raises(BadInput, match="no such file"):
        catalog.find("cell", name)


DEEP = [
    (f"a = {600 * '['}{600 * ']'}", "nested too deeply"),
    (f"a = {5000 * '['}", "nested too deeply"),
    (f"a = {60 * '['}{60 * ']'}", "nested too deeply"),
    ("[b." + "b." * 40 + "b]\n" + "c." * 20 + "c = 1", "nested too deeply"),
    ("a." * 100 + "a = 1", "a key has too many parts"),
    ("a." * 400_000 + "a = 1", "a key has too many parts"),
    ("[" + '"a" . ' * 100_000 + "a]", "a key has too many parts"),
    (f"a = {4301 * '9'}", "a number has too many digits"),
    (f"a = 0x{9000 * '9'}", ""),
    ("a = [1, ", "at end of document"),
]


@pytest.mark.parametrize(("text", "said"), DEEP, ids=range(len(DEEP)))
def test_toml_that_cannot_be_read_is_one_short_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    begun = time.process_time()
    if said:
        with pytest.raises(BadInput, match=rf"is not valid TOML \(.*{said}.*\); correct that line") as caught:
            read_toml(file)
        assert len(str(caught.value)) < 300
    else:
        read_toml(file)
    assert time.process_time() - begun < 2


def test_a_long_list_and_long_text_are_no_long_keys(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'a = [{", ".join(["0.5"] * 3000)}]\nb = "{"A sentence. " * 300}"\n')
    assert len(read_toml(file)["a"]) == 3000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting"), ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": [-Infinity]}', "-Infinity is not a JSON number"),
        ("[" * 100_000, "nested too deeply"), (f"{'[' * 60}{']' * 60}", "nested too deeply"), ("9" * 5000, "digits"),
    ],
)  # fmt: skip
def test_json_that_cannot_be_read_is_one_short_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(BadInput, match=rf"a.json: is not JSON \(.*{said}.*\)") as caught:
        read_json(file)
    assert len(str(caught.value)) < 400


def test_too_large_a_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large.toml"
    with open(file, "wb") as content:
        content.truncate(10**12)
    with pytest.raises(BadInput, match=r"large.toml: has 1,000,000,000,000 bytes, at most 16,000,000"):
        read_toml(file)


def test_a_file_is_parsed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("a = { b = [1] }")
    os.utime(file, (1e9, 1e9))
    parsed: list[str] = []
    real = textfiles.parse_toml
    monkeypatch.setattr(textfiles, "parse_toml", lambda text: parsed.append(text) or real(text))
    first = read_toml(file)
    first["a"]["b"].append(2)
    first["c"] = 3
    assert read_toml(file) == {"a": {"b": [1]}}
    assert len(parsed) == 1
    file.write_text("a = { b = [7] }")  # of the same size
    assert read_toml(file) == {"a": {"b": [7]}}
    file.write_text("a = { b = [8] }")  # at once
    assert read_toml(file) == {"a": {"b": [8]}}


def test_plug_ins_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(catalog, "entry_points", lambda group: asked.append(group) or ())
    catalog._plugins.cache_clear()
    for _ in range(3):
        assert "rram_clipformer_2024" in catalog.entries("cell")
    assert asked == ["ohmformer.library"]
    catalog._plugins.cache_clear()


def chain(folder: Path, length: int, last: str) -> Path:
    """Files of which each starts from the next one."""
    for number in range(length):
        base = f"c{number + 1}.toml" if number + 1 < length else last
        (folder / f"c{number}.toml").write_text(f'[cell]\nbase = "{base}"\n')
    return folder / "c0.toml"


def test_a_chain_of_bases_has_an_end(tmp_path: Path) -> None:
    assert load(Cell, str(chain(tmp_path, 30, "rram_clipformer_2024"))).g_max > 0
    with pytest.raises(BadInput, match="is one of more than 32 files that start from one another") as caught:
        load(Cell, str(chain(tmp_path, 200, "rram_clipformer_2024")))
    assert len(str(caught.value)) < 500
    with pytest.raises(BadInput, match="leads back to itself"):
        load(Cell, str(chain(tmp_path, 5, "c2.toml")))


def test_json_of_a_deep_but_honest_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    content: list[object] = []
    for _ in range(textfiles.DEEPEST - 2):
        content = [content]
    file.write_text(json.dumps(content))
    assert read_json(file) == content
