"""Paths on the command line: what cannot be a folder or file is refused before anything is computed."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from ohmformer import cli
from ohmformer.cli.output import results_folder
from ohmformer.errors import BadInput
from ohmformer.terminal.files import check_file
from ohmformer.terminal.paths import check_folder, given_path

STUDY = 'name = "s"\nmodel.source = "shapes:bert-base"\nhardware.base = "nvm_ideal"\n'


@pytest.fixture
def odd_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with one of each kind of file."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder").mkdir()
    os.mkfifo("pipe")
    Path("link").symlink_to("no/where")
    Path("loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "reason"),
    [("file", "is a file, not a folder"), ("pipe", "is a pipe"), ("socket", "is a socket"),
     ("/dev/null", "is a device"),
     ("link", "is a link that leads nowhere"), ("loop", "is a link that leads nowhere"),
     ("link/x", "link is a link that leads nowhere"), ("file/x/y", "file is a file, not a folder"),
     ("x" * 300, r"cannot be made \(File name too long\)"), ("new/" + "x" * 300, "File name too long"),
     ("y/" * 3000, "File name too long"), ("a\0b", "cannot be made")],
)  # fmt: skip
def test_what_cannot_be_a_folder_is_refused(odd_files: Path, path: str, reason: str) -> None:
    before = sorted(os.listdir())
    for option, remedy in (("--out", "give the path of another folder"), ("", "choose another folder with --out")):
        with pytest.raises(BadInput, match=rf"{reason}.*; {remedy}$") as caught:
            check_folder(option, Path(path))
        assert len(str(caught.value)) < 300
    assert sorted(os.listdir()) == before
    for good in ("folder", "folder/new", "new/newer"):
        check_folder("--out", Path(good))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(odd_files: Path) -> None:
    Path("folder").chmod(0o555)
    with pytest.raises(BadInput, match="folder is not writable"):
        check_folder("--out", Path("folder/new"))


def test_a_folder_that_may_not_be_entered_is_refused(foreign: Path) -> None:
    out = foreign / "run"
    out.mkdir()
    (out / "results.json").write_text("{}")
    out.chmod(0o600)
    with pytest.raises(BadInput, match=r"^--out .*run: may not be entered; change its permissions, or give"):
        results_folder(str(out), "a study")


def test_permission_is_asked_of_the_nearest_folder(odd_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "access", lambda path, mode: mode == os.X_OK or Path(path).resolve() != odd_files / "folder"
    )
    with pytest.raises(BadInput, match=r"^--out folder/a/b: cannot be made, since folder is not writable; give"):
        check_folder("--out", Path("folder/a/b"))
    check_folder("--out", Path("folder"))
    with pytest.raises(BadInput, match=r"^--json folder/x: is not writable; give"):
        check_file("--json", "folder/x")


def test_the_home_folder_is_expanded_and_variables_are_refused(
    odd_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(odd_files))
    assert given_path("--json", "~/x.json") == str(odd_files / "x.json")
    assert given_path("--json", "-") == "-"
    assert given_path("--json", "a~/x.json") == "a~/x.json"
    for path in ("$HOME/x", "${HOME}/x", "a/$NAME"):
        with pytest.raises(BadInput, match=r"^--json \S+: variables are not filled in here; write the path in full$"):
            given_path("--json", path)
    with pytest.raises(BadInput, match=r"^--out ~nobody_has_this_name/x: there is no such home folder"):
        given_path("--out", "~nobody_has_this_name/x")
    for empty in ("", "  ", "\t"):
        with pytest.raises(BadInput, match=r"^--out: is empty; give a path, or leave the option out$"):
            given_path("--out", empty)
    Path("$price").touch()
    assert given_path("--json", "$price") == "$price", "an existing file may have such a name"


OPTIONS = [
    (verb, option)
    for verb, options in {
        "run s.toml": ("--out", "--json"), "accuracy s.toml": ("--out", "--json"), "demo": ("--out", "--json"),
        "compare s.toml --platforms nvm_ideal": ("--out", "--json"), "cost s.toml": ("--json", "--trace"),
        "validate": ("--json", "--page"),
    }.items()
    for option in options
]  # fmt: skip


@pytest.mark.parametrize(("verb", "option"), OPTIONS)
@pytest.mark.parametrize("path", ["", "$HOME/x", "~nobody_has_this_name/x", "file/x", "link/x", "x" * 300])
def test_all_options_refuse_the_same_paths(
    odd_files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    option: str,
    path: str,
) -> None:
    Path("s.toml").write_text(STUDY + ('task.source = "bundled:fashion-mnist"\n' if "accuracy" in verb else ""))
    monkeypatch.setattr(sys, "argv", ["ohmformer", *verb.split(), option, path])
    if verb.startswith(("accuracy", "demo")) and option == "--json":
        Path("s.toml").write_text(STUDY)  # refused before the study is computed, or for want of a task
    assert cli.main() == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert not (odd_files / "ohmformer-runs").exists()


def test_a_wrong_verb_or_option_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in (
        (["shw"], "ohmformer: no such command 'shw'. Did you mean 'show'? (see ohmformer --help)\n"),
        (["show"], "ohmformer show: missing argument 'NAME' (see ohmformer show --help)\n"),
        (["cost", "a", "b"], "ohmformer cost: got unexpected extra argument(s) (b) (see ohmformer cost --help)\n"),
        (
            ["run", "a", "--workers", "x"],
            "ohmformer run: invalid value for '--workers': 'x' is not a whole number; give one (see ",
        ),
        (
            ["device", "require", "a", "--loss", "1 %", "--step", "5 %"],
            "ohmformer device require: invalid value for '--step': '5 %' is not a number; give one without a unit (",
        ),
        (["cost", "--" + "x" * 10_000], "(10,002 characters) (see ohmformer cost --help)\n"),
    ):
        monkeypatch.setattr(sys, "argv", ["ohmformer", *arguments])
        assert cli.main() == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err
        assert (err.count("\n"), len(err) < 300) == (1, True)
