"""Runs the blocks of a page, in order, in the working directory: `python tests/docs/run_page.py PAGE`.

- `python`: runs; all blocks of a page share their names.
- `sh`: runs in bash, and stops at the first command that fails.
- `toml`, `csv`, and `python` whose first line is `# file NAME`: is written to NAME, and not run.
- `text` right behind a block that runs: must be what that block printed. `...` stands for any text, and runs of spaces
  count as one space.

Other blocks are shown only.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# file (\S+)\n")
SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of the blocks of a page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def run(language: str, text: str, names: dict[str, Any]) -> str | None:
    """What one block prints; None if it is not run."""
    if kept := FILE.match(text):
        Path(kept[1]).write_text(text, encoding="utf-8")
        return None
    if language == "python":
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, "block", "exec"), names)
        return printed.getvalue()
    if language == "sh":
        done = subprocess.run(["bash", "-e", "-c", text], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"exit code {done.returncode} of:\n{text}\n{done.stdout}{done.stderr}")
        return done.stdout
    return None


def main(page: Path) -> None:
    """Run the page; print what its blocks print; end with exit code 1 if that differs from what the page shows."""
    sys.path.insert(0, "")
    os.environ |= {"COLUMNS": "110", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    names: dict[str, Any] = {"__name__": "page"}
    printed: str | None = None
    wrong = []
    for language, text in blocks(page):
        if language == "text" and printed is not None:
            if not doctest.OutputChecker().check_output(text, printed, SAME):
                wrong.append(f"--- the page shows\n{text}--- this is printed\n{printed}")
            printed = None
        elif language != "text":
            printed = run(language, text, names)
            print(f"--- {language}\n{printed}" if printed is not None else f"--- {language}, not run", flush=True)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
