"""Finding and reading library entries."""

import os
from pathlib import Path

import pytest

from ohmformer import catalog
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.schema import load

GOOD = '[cell]\ng_min = "1 uS"\ng_max = "2 uS"\n'


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cells").mkdir()
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(tmp_path))
    return tmp_path


def test_a_users_entry_hides_the_one_that_ships(library: Path) -> None:
    (library / "cells" / "rram_clipformer_2024.toml").write_text(GOOD)
    assert load(Cell, "rram_clipformer_2024").g_max == 2e-6
    assert catalog.entries("cell")["rram_clipformer_2024"].parent == library / "cells"


def test_an_unknown_name_is_met_with_the_closest_one() -> None:
    with pytest.raises(
        BadInput, match=r"^rram_clipformer: is not among the cells of the library; did you mean 'rram_clipformer_"
    ):
        load(Cell, "rram_clipformer")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"gone.toml: no such file; give the path of a TOML file, or the"):
        load(Cell, str(tmp_path / "gone.toml"))
    with pytest.raises(BadInput, match="no such file; check the path"):
        catalog.read(tmp_path / "gone.toml")


BROKEN = [
    ("[cell]\ng_min = \ng_max = 3", "is not valid TOML \\(.*line 2.*\\); correct that line"),
    ("g_min = '1 uS'", r"has no table \[cell\]; put the cell into one"),
    ("cell = 3", r"has no table \[cell\]"),
    (f"{GOOD}\n[array]\n", "array: does not belong here; leave it out, or move it"),
    ("\udc80", "is not text in UTF-8"),
]


@pytest.mark.parametrize(("text", "reason"), BROKEN)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadInput, match=rf"mine.toml: {reason}") as caught:
        load(Cell, str(file))
    assert "\n" not in str(caught.value)


def test_a_folder_that_does_not_exist_is_no_silent_omission(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(tmp_path / "gone"))
    with pytest.raises(BadInput, match=r"OHMFORMER_LIBRARY: .*gone: no such folder"):
        catalog.entries("cell")


@pytest.mark.parametrize("kind", ["cell", "array", "accelerator"])
def test_every_entry_that_ships_can_be_loaded(kind: str) -> None:
    from ohmformer.array.spec import Crossbar
    from ohmformer.hardware.spec import Accelerator

    names = catalog.entries(kind)
    assert names
    for name in names:
        load({"cell": Cell, "array": Crossbar, "accelerator": Accelerator}[kind], name)  # type: ignore[type-var]


def test_a_link_that_leads_to_itself_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "loop.toml").symlink_to("loop.toml")
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(tmp_path))
    with pytest.raises(BadInput, match=r"loop\.toml: cannot be read .*; check the path"):
        load(Cell, "loop")


@pytest.mark.parametrize("name", ["pipe.toml", "folder.toml", "broken.toml"])
def test_what_exists_but_is_no_file_is_not_called_missing(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "broken.toml").symlink_to("nowhere.toml")
    with pytest.raises(BadInput, match=rf"{name}.*: is a folder, pipe, device or broken link; give the path of a TOML"):
        load(Cell, str(tmp_path / name))


def test_a_library_that_may_not_be_read_is_refused(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in (0o600, 0o300):
        foreign.chmod(mode)
        monkeypatch.setenv("OHMFORMER_LIBRARY", str(foreign))
        with pytest.raises(BadInput, match=r"OHMFORMER_LIBRARY: .*: may not be read; change its permissions"):
            catalog.entries("cells")
    foreign.chmod(0)
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(foreign / "inner"))
    with pytest.raises(BadInput, match="inner: no such folder"):
        catalog.entries("cells")
