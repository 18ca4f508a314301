"""The wheel holds the library: data that a checkout finds and an installation does not is a bug nobody sees."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_all_library_files(tmp_path: Path) -> None:
    pytest.importorskip("build")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or done.stdout
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    library = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "ohmformer" / "library").rglob("*")
        if path.is_file()
    }
    assert library, "found no library files"
    assert not library - packed, f"not in the wheel: {sorted(library - packed)}; does .gitignore name them?"
