"""A study that has not changed is shown from its store alone, and never after anything that decides it has changed."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from ohmformer import catalog, cli
from ohmformer.study import loaded
from ohmformer.study.results import key as result_key
from ohmformer.study.store import fingerprint as fingerprints
from ohmformer.study.store import same_models
from ohmformer.study.store.fingerprint import fingerprint
from ohmformer.study.store.tables import row_checksum
from tests.tasks import tiny

STUDY = """name = "again"
model.source = "bundled:fashion-vit"
task = { source = "bundled:fashion-mnist", limit = 4 }
hardware.base = "clipformer_tcad_2024"
trials.chips = 1

[sweep]
"hardware.attention.array.cell.write_noise.gamma" = [0.0, 4]
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def without_kinds_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds that other tests have registered in this process do not count."""
    monkeypatch.setattr(fingerprints.registry, "is_own", lambda kind: True)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "study.toml"
    file.write_text(STUDY)
    return file


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], study: Path) -> Run:
    """Run `accuracy` or another verb on the study: exit code and standard output."""
    monkeypatch.chdir(study.parent)

    def call(verb: str = "accuracy", *options: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ohmformer", verb, "study.toml", "--out", "out", "--workers", "1", *options])
        return cli.main(), capsys.readouterr().out

    return call


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("results.json", "figure.svg", "figure.png")}


def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a study fail that is read, or whose model is loaded."""

    def refuse(*_: Any) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr("ohmformer.study.read_study.make_whole", refuse)
    monkeypatch.setattr("ohmformer.study.run.identify", refuse)


@pytest.mark.parametrize("verb", ["accuracy", pytest.param("run", marks=pytest.mark.slow)])
def test_an_unchanged_study_is_shown_without_being_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    code, first = run(verb, "--json", "first.json")
    assert code == 0
    before = files(tmp_path / "out")
    with monkeypatch.context() as patch:
        unread(patch)
        code, second = run(verb, "--json", "second.json")
        assert code == 0
        assert "unchanged in out: results.json, figure.svg, figure.png, results.sqlite" in second
        assert second.splitlines()[:-1] == first.splitlines()[:-1]
        assert (tmp_path / "second.json").read_bytes() == (tmp_path / "first.json").read_bytes()
        (tmp_path / "out" / "figure.svg").unlink()
        (tmp_path / "out" / "results.json").write_text('{"schema": 1, "study": "again"}')
        assert "written to out" in run(verb)[1]
    assert files(tmp_path / "out") == before


def stored(folder: Path, statement: str, *values: Any) -> list[Any]:
    database = sqlite3.connect(folder / "results.sqlite")
    with database:
        found = database.execute(statement, values).fetchall()
    database.close()
    return found


@pytest.mark.slow
def test_a_damaged_row_is_computed_again(run: Run, tmp_path: Path) -> None:
    run()
    before = files(tmp_path / "out")
    (row,) = stored(tmp_path / "out", "SELECT key, result FROM results LIMIT 1")
    stored(tmp_path / "out", "UPDATE results SET result = '{}' WHERE key = ?", row[0])
    assert "written to out" in run()[1]
    assert files(tmp_path / "out") == before
    assert stored(tmp_path / "out", "SELECT result FROM results WHERE key = ?", row[0]) == [(row[1],)]


@pytest.mark.slow
def test_rows_that_another_program_has_changed_are_read_anew(run: Run, tmp_path: Path) -> None:
    """Its rows may be intact: what is shown and written is what the store holds now."""
    run()
    row = stored(tmp_path / "out", "SELECT key, question, version, result FROM results LIMIT 1")[0]
    result = json.loads(row[3])
    result["accuracy"] |= {"mean": 0.123, "ci95": [0.1, 0.2]}
    text = json.dumps(result)
    check = row_checksum(row[0], text, row[1], row[2])
    stored(tmp_path / "out", "UPDATE results SET result = ?, checksum = ? WHERE key = ?", text, check, row[0])
    out = run()[1]
    assert "written to out" in out
    assert "12.3" in out


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["UPDATE shown SET content = '{}'", "DELETE FROM points", "DROP TABLE shown"])
def test_without_an_intact_note_all_is_read(run: Run, tmp_path: Path, damage: str) -> None:
    run()
    stored(tmp_path / "out", damage)
    assert "written to out" in run()[1]
    assert "unchanged in out" in run()[1]


@pytest.mark.slow
def test_other_settings_options_and_verbs_are_read(run: Run, study: Path) -> None:
    run()
    for options in (("--set", "seed=1"), ("--fresh",), ("--allow-python", "os")):
        assert "written to out" in run("accuracy", *options)[1]
    study.write_text(STUDY.replace("[0.0, 4]", "[4, 0.0]"))
    assert "written to out" in run()[1]
    study.write_text(f"# a remark\n{study.read_text()}")
    assert "unchanged in out" in run()[1]
    assert "written to out" in run("run")[1]


@pytest.mark.slow
def test_a_model_of_the_user_is_always_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = STUDY.replace("bundled:fashion-vit", "python:tests.study.small:model").replace(
        '{ source = "bundled:fashion-mnist", limit = 4 }', '{ source = "python:tests.study.small:task" }'
    )
    (tmp_path / "study.toml").write_text(text)
    for _ in range(2):
        allowed = ["--allow-python", "tests.study.small"]
        monkeypatch.setattr(sys, "argv", ["ohmformer", "accuracy", "study.toml", "--out", "out", *allowed])
        assert cli.main() == 0
    assert stored(tmp_path / "out", "SELECT * FROM shown") == []


def test_a_fingerprint_is_that_of_study_command_code_versions_and_processor(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    (package / "library").mkdir(parents=True)
    (package / "code.py").write_text("x = 1")
    monkeypatch.setattr(fingerprints, "PACKAGE", package)
    before = fingerprint("accuracy", str(study), [])
    assert before is not None
    assert before.name == "again"
    assert fingerprint("accuracy", str(study), []) == before
    found = {before, fingerprint("run", str(study), []), fingerprint("accuracy", str(study), ["seed=1"])}
    (package / "code.py").write_text("x = 2")
    found.add(fingerprint("accuracy", str(study), []))
    (package / "library" / "new.toml").write_text("")
    found.add(fingerprint("accuracy", str(study), []))
    study.write_text(STUDY.replace("chips = 1", "chips = 2"))
    found.add(fingerprint("accuracy", str(study), []))
    monkeypatch.setattr(fingerprints, "CPU", tmp_path / "none")
    found.add(fingerprint("accuracy", str(study), []))
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    found.add(fingerprint("accuracy", str(study), []))
    monkeypatch.setattr(result_key, "_version", lambda name: "0")
    found.add(fingerprint("accuracy", str(study), []))
    assert len(found) == 9
    assert None not in found


def test_there_is_no_fingerprint_where_further_files_may_take_part(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fingerprint("accuracy", str(study), ["hardware.base=own.toml"]) is None
    assert fingerprint("accuracy", str(study), ['hardware.base="own\\u002etoml"']) is None
    study.write_text(STUDY.replace('"clipformer_tcad_2024"', '"own\\u002etoml"'))
    assert fingerprint("accuracy", str(study), []) is None
    study.write_text(STUDY)
    assert fingerprint("accuracy", str(study), []) is not None
    monkeypatch.setattr(fingerprints.registry, "is_own", lambda kind: False)
    assert fingerprint("accuracy", str(study), []) is None
    monkeypatch.undo()
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(tmp_path))
    assert fingerprint("accuracy", str(study), []) is None
    monkeypatch.undo()
    for name in ("missing.toml", "unknown study", ""):
        assert fingerprint("accuracy", name, []) is None


COSTS = """name = "costs again"
model.source = "shapes:bert-base"
hardware.base = "clipformer_tcad_2024"

[sweep]
"cost.rate" = ["1 Hz", "2 Hz"]
"""


@pytest.fixture
def price(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `run` or `cost` on a study of costs alone: exit code and standard output, or the line of an error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "costs.toml").write_text(COSTS)

    def call(verb: str = "cost", *options: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ohmformer", verb, "costs.toml", "--out", "out", *options])
        code, said = cli.main(), capsys.readouterr()
        return code, said.err if code else said.out

    return call


@pytest.mark.parametrize("verb", ["cost", "run"])
def test_unchanged_costs_alone_are_shown_without_being_read(
    price: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    code, first = price(verb, "--json", "first.json")
    assert code == 0
    before = (tmp_path / "out" / "results.json").read_bytes()
    assert before == (tmp_path / "first.json").read_bytes()
    with monkeypatch.context() as patch:
        unread(patch)
        code, second = price(verb, "--json", "second.json")
        assert code == 0
        assert "unchanged in out: results.json, results.sqlite" in second
        assert second.splitlines()[:-1] == first.splitlines()[:-1]
        assert (tmp_path / "second.json").read_bytes() == before
        (tmp_path / "out" / "results.json").unlink()
        assert "written to out" in price(verb)[1]
    assert (tmp_path / "out" / "results.json").read_bytes() == before


@pytest.mark.parametrize("verb", ["cost", "run"])
def test_changed_costs_alone_are_read(price: Run, tmp_path: Path, verb: str) -> None:
    price(verb)
    for options in (("--set", "cost.leveling=true"), ("--fresh",), ("--allow-python", "os")):
        assert "written to out" in price(verb, *options)[1]
    assert "unchanged in out" in price(verb)[1]
    assert "written to out" in price("cost" if verb == "run" else "run")[1]
    (tmp_path / "costs.toml").write_text(COSTS.replace("2 Hz", "3 Hz"))
    assert "written to out" in price(verb)[1]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE results SET result = '{}'",
        "DELETE FROM results",
        "UPDATE shown SET content = '{}'",
        "DELETE FROM points",
        "UPDATE points SET cost = ''",
    ],
)
def test_damaged_costs_are_computed_again(price: Run, tmp_path: Path, damage: str) -> None:
    shown = price()[1].splitlines()[:-1]
    before = (tmp_path / "out" / "results.json").read_bytes()
    stored(tmp_path / "out", damage)
    again = price()[1]
    assert again.splitlines()[:-1] == shown
    assert "written to out" in again
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    assert "unchanged in out" in price()[1]


def test_costs_that_another_program_has_changed_are_read_anew(price: Run, tmp_path: Path) -> None:
    price()
    row = stored(tmp_path / "out", "SELECT key, question, version, result FROM results LIMIT 1")[0]
    text = json.dumps(json.loads(row[3]) | {"latency_s": 0.123})
    check = row_checksum(row[0], text, row[1], row[2])
    stored(tmp_path / "out", "UPDATE results SET result = ?, checksum = ? WHERE key = ?", text, check, row[0])
    out = price()[1]
    assert "written to out" in out
    assert "123 ms" in out


def test_options_without_effect_are_refused_though_costs_are_stored(price: Run) -> None:
    price("run")
    price("run")
    code, line = price("run", "--workers", "2")
    assert code == 2
    assert "--workers 2: has no effect" in line


def test_costs_of_a_file_of_ones_own_are_read(price: Run, tmp_path: Path) -> None:
    text = (catalog.entries("shapes")["bert-base"]).read_text()
    (tmp_path / "own.toml").write_text(text)
    (tmp_path / "costs.toml").write_text(COSTS.replace("shapes:bert-base", "shapes:own.toml"))
    for _ in range(2):
        assert "written to out" in price()[1]
    assert stored(tmp_path / "out", "SELECT * FROM shown") == []


def test_a_trace_is_written_though_costs_are_stored(price: Run, tmp_path: Path) -> None:
    price()
    assert price("cost", "--trace", "trace.json")[0] == 0
    assert (tmp_path / "trace.json").stat().st_size > 1000


OWN = """name = "own"
model.source = "hf:model"
task = { source = "imagefolder:images", calibration = 4, limit = 4 }
hardware.base = "clipformer_tcad_2024"
trials.chips = 1
"""


@pytest.mark.parametrize("elsewhere", [{}, {"backbone": "resnet18"}], ids=["files tell", "loaded"])
def test_a_model_of_ones_own_is_compared_but_its_points_are_not_read(
    run: Run, study: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: dict[str, str]
) -> None:
    study.write_text(OWN)
    configuration = tiny.deit(study.parent / "model") / "config.json"
    configuration.write_text(json.dumps(json.loads(configuration.read_text()) | elsewhere))
    tiny.photographs(study.parent / "images", each=4)
    _forget_models()
    code, first = run()
    assert code == 0
    with monkeypatch.context() as patch:
        unread(patch)
        _forget_models()
        identified = list[object]()
        identity = same_models._identity
        patch.setattr(same_models, "_identity", lambda *choice: identified.append(choice) or identity(*choice))
        assert run()[1].splitlines()[:-1] == first.splitlines()[:-1]
    assert len(identified) == len(elsewhere)
    weights = load_file(study.parent / "model" / "model.safetensors")
    weights["classifier.bias"] += 0.5
    save_file(weights, study.parent / "model" / "model.safetensors", {"format": "pt"})
    _forget_models()
    assert "written to out" in run()[1]
    assert "unchanged in out" in run()[1]
    _forget_models()
    tiny.photographs(study.parent / "images", each=5)
    assert "written to out" in run()[1]


def test_a_model_of_another_version_of_its_package_is_another_one() -> None:
    assert same_models.same_models([], {"transformers": "1"})
    assert not same_models.same_models([{"model": {}, "task": {}, "identity": {}}], {"transformers": "1"})


def test_more_models_than_a_process_keeps_are_compared_by_their_files(run: Run, study: Path) -> None:
    sources = [f"hf:model{number}" for number in range(6)]
    study.write_text(f"{OWN}[sweep]\n'model.source' = {sources}\n")
    for number in range(6):
        tiny.deit(study.parent / f"model{number}")
    tiny.photographs(study.parent / "images", each=4)
    _forget_models()
    assert "written to out" in run()[1]
    assert "unchanged in out" in run()[1]
    (study.parent / "model5" / "preprocessor_config.json").write_text(
        json.dumps({**tiny.IMAGES, "image_mean": [0.4] * 3})
    )
    assert "written to out" in run()[1]


def _forget_models() -> None:
    """As in a new process."""
    for kept in (loaded._body, loaded.loaded, loaded._model_digest):
        kept.cache_clear()
