"""What a stranger's study may not do: run code, write elsewhere than asked, or speak to the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.permission import check_python
from ohmformer.study.read_study import make_whole
from ohmformer.terminal.files import check_file, write_bytes, write_text
from ohmformer.terminal.plain import HARMFUL, clean, escaped, one_line
from tests.study.small import document

ESCAPES = "\x1b]52;c;AAAA\x07 \x9b31m \u202e \ud800 \x00"
SHAPES = {"model": {"source": "shapes:bert-base"}, "hardware": {"base": "nvm_ideal"}, "task": {"source": "python:os:x"}}


@pytest.mark.parametrize("verb", ["run", "accuracy", "cost", "compare"])
@pytest.mark.parametrize("section", ["model", "task"])
def test_code_of_a_study_runs_only_where_its_module_is_allowed(tmp_path: Path, verb: str, section: str) -> None:
    from tests.cli.test_cli import write_study

    (tmp_path / "stranger.py").write_text("print('ran')\ndef make(): print('ran')\n")
    study = write_study(tmp_path / "study.toml", **{section: {"source": "python:stranger:make"}})
    arguments = [verb, str(study), *(["--platforms", "nvm_ideal"] if verb == "compare" else [])]
    arguments += ["--allow-python", "tests.study", "--allow-python", "strange"]
    code = "import sys; from ohmformer.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"{section}.source = 'python:stranger:make': would run code of the module 'stranger'" in done.stderr
    assert done.stderr.endswith("if you trust it, add --allow-python stranger\n")
    assert done.stderr.count("\n") == 1


def test_permission_is_for_modules_and_those_below() -> None:
    settings = [point.settings for point in make_whole(document(sweep={"seed": [0, 1]})).points]
    for allowed in (["tests.study.small"], ["tests"], ["x", "tests.study"]):
        check_python(settings, allowed, "")
    for unnamed in ("", "*", "tests/small", "os;id"):
        with pytest.raises(BadInput, match=r"^--allow-python .*: is not the name of a module"):
            check_python(settings, [unnamed], "")
    for refused in ([], ["tests.study.smal"], ["tests.study.small.x"]):
        with pytest.raises(
            BadInput, match=r"^model\.source = .* \(and 1 more\): .*add --allow-python tests\.study\.small$"
        ):
            check_python(settings, refused, "")
    check_python([point.settings for point in make_whole({"name": "x", **SHAPES}).points], [], "")


def test_harmful_characters_are_replaced_and_json_keeps_them() -> None:
    assert not HARMFUL.search(clean(ESCAPES))
    assert clean("a\tb\nγ日本é") == "a b\nγ日本é"
    text = json.dumps({"a": ESCAPES, "tag": "\U000e0041"}, ensure_ascii=False)
    assert not HARMFUL.search(escaped(text))
    assert json.loads(escaped(text)) == {"a": ESCAPES, "tag": "\U000e0041"}
    assert len(one_line("x" * 100_000)) < 2000
    assert "\n" not in one_line("a\nb\r\x85c\u2028d")


@pytest.mark.parametrize(
    "arguments",
    [["cost", "s.toml"], ["cost", "s.toml", "--json", "-"], ["show", "s.toml"], ["run", "s.toml"], ["cost", "x\x1b[2J"],
     ["cost", "s.toml", "--\x1b[2J"], ["cost", "s.toml", "--set", "model.\x1b[2J=1"], ["show", "\x1b[2J"],
     ["cost", "s.toml", "--json", "no\x1b[2J/x"], ["list", "\x9b2J"], ["run", "s.toml", "--out", "\x1b[2J\u202e"]],
    ids=repr,
)  # fmt: skip
def test_no_verb_prints_control_characters_of_others(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ohmformer import cli

    monkeypatch.chdir(tmp_path)
    name = json.dumps("\x1b]0;x\x07\u202e\x9b2J")
    Path("s.toml").write_text(
        f'name = {name}\nmodel.source = "shapes:bert-base"\nhardware.base = "nvm_ideal"\n'
        f'[[sweep]]\nlabel = {name}\n"dataflow.kind" = ["layer_serial"]\n[[sweep]]\n"model.batch" = [1, 2]'
    )
    monkeypatch.setattr(sys, "argv", ["ohmformer", *arguments])
    cli.main()
    said = capsys.readouterr()
    assert said.out + said.err
    assert not HARMFUL.search(said.out + said.err)


def test_files_are_written_where_they_are_said_to_be(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    link.symlink_to(target)
    write_text(link, "one")
    assert link.is_symlink()
    assert target.read_text() == "one"
    target.chmod(0o640)
    write_text(link, "two\ud800")
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("two\\ud800", 0o640)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_bytes(pipe, b"x" * 200_000)
    reader.join(10)
    assert len(found[0]) == 200_000
    assert pipe.is_fifo()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link.json", "pipe", "target.json"]


def test_a_device_stays_a_device() -> None:
    with pytest.raises(BadInput, match=r"^/dev/full: cannot be written \(No space left on device\)"):
        write_text(Path("/dev/full"), "x")
    assert Path("/dev/full").is_char_device()


def test_a_pipe_that_nobody_reads_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ohmformer.terminal import files

    monkeypatch.setattr(files, "READER_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="no program reads this pipe"):
        write_text(tmp_path / "pipe", "x")


@pytest.mark.parametrize(
    "file", ["", "/", ".", "folder", "new/", "no/x", "/no/x", "x" * 300, "x\0y", "loop", "file/x", "dangling"]
)
def test_what_cannot_be_written_is_refused_before_anything_is_computed(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("no/where")
    before = sorted(os.listdir())
    with pytest.raises(BadInput, match=r"^--json") as caught:
        check_file("--json", file)
    assert "\n" not in str(caught.value)
    if file != "new/":  # a Path has no slash at its end
        with pytest.raises(BadInput, match="cannot be written"):
            write_text(Path(file), "x")
    assert sorted(os.listdir()) == before
    for good in ("new.json", "file", "folder/new.json", "-", "/dev/null", "/dev/stdout"):
        check_file("--json", good)
