"""Every verb answers every wrong file with one line and exit code 2. Verbs and their options come from the program."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from ohmformer import catalog, cli
from ohmformer.cli.entry import VERBS, app

STUDY = 'name = "s"\nmodel.source = "shapes:bert-base"\nhardware.base = "nvm_ideal"\n'
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01"

Content = bytes | str | Callable[[Path], object]
WRONG: dict[str, Content] = {
    "image.png": PNG,
    "image.toml": PNG,
    "folder.toml": Path.mkdir,
    "folder": Path.mkdir,
    "pipe.toml": os.mkfifo,
    "link.toml": lambda path: path.symlink_to("nowhere.toml"),
    "loop.toml": lambda path: path.symlink_to("loop.toml"),
    "missing.toml": lambda path: None,
    "no/such/folder.toml": lambda path: None,
    "x" * 300 + ".toml": lambda path: None,
    "null\0.toml": lambda path: None,
    "empty.toml": "",
    "blank.toml": "\n \n# nothing\n",
    "json.toml": json.dumps({"name": "s", "model": {"source": "shapes:bert-base"}}),
    "results.json": json.dumps({"schema": 1, "study": "s", "points": []}),
    "study.yaml": "name: s\n",
    "study.TOML": STUDY,
    "twice.toml": STUDY + 'name = "again"\n',
    "dotted_twice.toml": STUDY + '[hardware]\nbase = "nvm_ideal"\n',
    "unfinished.toml": STUDY + "seed = ",
    "large.toml": STUDY + "# " + "x" * 17_000_000,
    "many_lines.toml": "".join(f"key_{n} = {n}\n" for n in range(100_000)),
    "deep.toml": STUDY + "x = " + "[" * 5000 + "]" * 5000,
    "deep_key.toml": STUDY + ".".join(["a"] * 3000) + " = 1",
    "digits.toml": STUDY + "seed = " + "9" * 5000,
    "utf16.toml": STUDY.encode("utf-16"),
    "latin1.toml": STUDY.replace('"s"', '"\xe9"').encode("latin-1"),
    "null_inside.toml": STUDY + "\0",
    "escapes.toml": STUDY + '"\\u001b[2J" = "\\u202e"\n',
    "claims.toml": '[paper]\ntitle = "t"\n[[claim]]\nid = "a"\n',
    "wrong_types.toml": "name = 3\nmodel = 4\nhardware = [1]\nsweep = true\n",
    "wrong_unit.toml": STUDY + 'cost.rate = "3 V"\n',
    "broken_array.toml": "[array]\nrows = -1\n",
    "foreign.toml": '[build-system]\nrequires = ["x"]\n[tool.ruff]\nline-length = 120\n',
    "studies_in_a_list.toml": f"[[study]]\n{STUDY}",
}  # fmt: skip
"""Name -> content of a file, or what makes it."""


def arguments(verb: str, file: str) -> list[str]:
    """The shortest command that hands a file to a verb: as its argument, or as one too many if it takes none."""
    return [verb, file, *(["--platforms", "nvm_ideal"] if verb == "compare" else [])]


def file_options() -> list[tuple[str, str]]:
    """(verb, option) of every option that takes a path, and of `--platforms` and `--set`."""
    group = typer.main.get_command(app)
    return [
        (verb, parameter.opts[0])
        for verb, command in group.commands.items()  # type: ignore[attr-defined]
        for parameter in command.params
        if parameter.opts[0].startswith("--") and parameter.metavar in ("FILE", "DIR", "A,B,C", "PATH=VALUE")
    ]


@pytest.fixture(scope="module")
def wrong_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    for name, content in WRONG.items():
        path = folder / name
        if callable(content):
            content(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def refusal(command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the program says of a command that it refuses."""
    monkeypatch.setattr(sys, "argv", ["ohmformer", *command])
    code = cli.main()
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert err.startswith("ohmformer")
    assert (err.count("\n"), err[-1:]) == (1, "\n")
    assert err[:-1].isprintable()
    assert len(err) < 1600
    return err


@pytest.mark.parametrize("name", WRONG, ids=lambda name: ascii(name[:20]))
@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_file_is_refused_in_one_line(
    verb: str, name: str, wrong_files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(wrong_files)
    before = sorted(os.listdir())
    refusal(arguments(verb, name), monkeypatch, capsys)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("kind", [kind for kind in catalog.KINDS if kind not in ("study", "costs")])
@pytest.mark.parametrize("verb", ["run", "accuracy", "cost", "compare"])
def test_a_file_of_another_kind_is_refused_by_name(
    verb: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = next(iter(catalog.entries(kind).values()))
    said = refusal(arguments(verb, str(file)), monkeypatch, capsys)
    assert f"{file}: is a file of kind {kind}, not a study; " in said


INPUTS = ("--platforms", "--set")
UNWRITABLE = ["no/such/folder.toml", "x" * 300 + ".toml", "null\0.toml", "folder.toml"]
FOREIGN = [name for name, content in WRONG.items() if isinstance(content, bytes | str) and content]


def wrong_values() -> list[tuple[str, str, str]]:
    """(verb, option, file): all files for inputs, and for outputs those that may not be written over."""
    cases = []
    for verb, option in file_options():
        names = list(WRONG) if option in INPUTS else [*UNWRITABLE, *FOREIGN]
        allowed = {"no/such/folder.toml", "folder.toml"} if option == "--out" else {"results.json"}
        cases += [(verb, option, name) for name in names if option in INPUTS or name not in allowed]
    return cases


@pytest.mark.parametrize(("verb", "option", "name"), wrong_values(), ids=lambda part: ascii(part[:20]))
def test_a_wrong_file_of_an_option_is_refused_in_one_line(
    verb: str, option: str, name: str, wrong_files: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Outputs never replace what this program did not write; inputs are as wrong as they are for a verb."""
    monkeypatch.chdir(wrong_files)
    study = wrong_files.parent / "good_study"
    study.mkdir(exist_ok=True)
    (study / "s.toml").write_text(STUDY)
    value = f"hardware.base={name}" if option == "--set" else name
    command = [verb, *([str(study / "s.toml")] if verb in ("run", "accuracy", "cost", "compare") else [])]
    command += ["--platforms", "nvm_ideal"] if verb == "compare" and option != "--platforms" else []
    before = sorted(os.listdir())
    refusal([*command, option, value], monkeypatch, capsys)
    assert sorted(os.listdir()) == before
