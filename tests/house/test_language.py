"""What is published speaks of the project, not of the machines it was written on."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# One letter of each pattern stands in brackets, so that this file does not find itself.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/(?:[w]ork|[r]oot|[h]ome/\w+|[U]sers/\w+|[t]mp/w|[o]pt/(?:wheels|pypi))\b",
    "the address of a package registry": r"\b(?:[p]ypi\.org|[p]ythonhosted\.org|[d]eb\.debian\.org|[r]egistry\.npmjs)",
    "how the work was organized": r"\b(?:[h]elper session|[w]orkplace|[i]ssues show|[w]ork tree at)\b",
}


def published_files() -> list[Path]:
    """Tracked files, and new ones that are not ignored."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


def test_no_file_speaks_of_a_machine_or_of_how_it_was_made() -> None:
    violations = []
    for path in published_files():
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            for what, pattern in FORBIDDEN.items():
                if found := re.search(pattern.encode(), line, re.IGNORECASE):
                    violations.append(f"{path.relative_to(ROOT)}:{number}: {what}: {found[0].decode()!r}")
    assert not violations, "\n" + "\n".join(violations)
