"""What the documentation shows type-checks, for users of a package that ships its types."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
def test_readme_and_examples_type_check(tmp_path: Path) -> None:
    """Each Python block of the README goes on where the one before it ended."""
    pytest.importorskip("mypy")
    blocks = re.findall(
        r"^```(?:python)?\n((?:import|work) .*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
    )
    assert len(blocks) == 2
    (tmp_path / "readme.py").write_text("\n".join(blocks), encoding="utf-8")
    for example in EXAMPLES:  # module names do not begin with digits
        text = example.read_text(encoding="utf-8")
        (tmp_path / f"example_{example.name}").write_text(text, encoding="utf-8")
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nignore_missing_imports = true\ncheck_untyped_defs = true\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), *map(str, sorted(tmp_path.glob("*.py")))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
