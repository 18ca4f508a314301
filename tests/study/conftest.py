"""What tests of several files of this folder begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.study.small import LOG


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "log"
    file.touch()
    monkeypatch.setenv(LOG, str(file))
    return file
