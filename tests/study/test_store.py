"""What was put is on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.store import Store


def test_results_survive(tmp_path: Path) -> None:
    result = {"accuracy": {"mean": 0.1 + 0.2, "chips": [1 / 3]}, "text": "γ"}
    with Store(tmp_path / "results.sqlite") as store:
        store.put("a", {"old": 1})
        store.put("a", result)
        store.put("b", {})
    with Store(tmp_path / "results.sqlite") as store:
        assert store.get(["a", "b", "c"]) == {"a": result, "b": {}}
        store.forget(["a", "c"])
        assert store.get(["a", "b"]) == {"b": {}}


def test_an_uncommitted_reader_sees_each_result_at_once(tmp_path: Path) -> None:
    with Store(tmp_path / "results.sqlite") as writer, Store(tmp_path / "results.sqlite") as reader:
        assert reader.get(["a"]) == {}
        writer.put("a", {"x": 1})
        assert reader.get(["a"]) == {"a": {"x": 1}}


def test_another_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "results.sqlite"
    file.write_text("something else entirely, and long enough to be looked at " * 20)
    before = file.read_bytes()
    with pytest.raises(BadInput, match=r"results\.sqlite: cannot hold results"):
        Store(file)
    assert file.read_bytes() == before
