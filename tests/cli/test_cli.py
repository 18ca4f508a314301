"""The command line: what it writes where, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ohmformer import cli
from ohmformer.study.store.store import Store
from tests.study.processes import ROOT, wait_until
from tests.study.small import GAMMA, document

Run = Callable[..., tuple[int, str, str]]
ALLOWED = tuple(
    part for module in ("tests.study.small", "sys", "torch.nn", "interrupted") for part in ("--allow-python", module)
)
"""Modules that the studies here name."""


@pytest.fixture
def ohmformer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command line in a fresh folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        allowed = ALLOWED if arguments[0] in ("run", "accuracy", "cost", "compare") else ()
        monkeypatch.setattr(sys, "argv", ["ohmformer", *arguments, *allowed])
        code = cli.main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {toml(inner)}' for key, inner in value.items()) + " }"
    return json.dumps(value)


def write_study(file: Path, **changes: Any) -> Path:
    file.write_text("\n".join(f"{key} = {toml(value)}" for key, value in document(**changes).items()))
    return file


def test_a_study_writes_results_and_figures_and_says_where(ohmformer: Run, tmp_path: Path) -> None:
    write_study(tmp_path / "study.toml", name="A small study", sweep={GAMMA: [0, 6]})
    code, out, err = ohmformer("run", "study.toml", "--workers", "1", "--json", "copy.json")
    assert (code, err) == (0, "")
    folder = tmp_path / "ohmformer-runs" / "a-small-study"
    assert {file.name for file in folder.iterdir()} >= {"results.sqlite", "results.json", "figure.svg", "figure.png"}
    assert "write noise γ" in out
    assert "a-small-study" in out
    found = json.loads((folder / "results.json").read_text())
    assert (tmp_path / "copy.json").read_text() == (folder / "results.json").read_text()
    assert found["schema"] == 1
    assert found["study"] == "A small study"
    assert len(found["key"]) == 64
    assert set(found["versions"]) >= {"ohmformer", "torch"}
    assert [point["set"] for point in found["points"]] == [{GAMMA: 0}, {GAMMA: 6}]
    accuracy = found["points"][1]["accuracy"]
    assert set(accuracy) == {"metric", "level", "software", "mean", "ci95", "chips", "samples"}
    assert (accuracy["software"], accuracy["samples"], len(accuracy["chips"])) == (1.0, 16, 2)


def test_run_does_both_halves_and_each_verb_its_own(ohmformer: Run, tmp_path: Path) -> None:
    write_study(tmp_path / "study.toml", dataflow={"kind": "sequence_blocking", "block": 5})
    sets = ("--set", f"{GAMMA}=3", "--set", "dataflow.block=2")
    code, out, err = ohmformer("run", "study.toml", "--workers", "1", *sets, "--json", "-")
    assert code == 0
    (point,) = json.loads(out)["points"]
    assert "cost of one pass" in err
    assert json.loads((tmp_path / "ohmformer-runs" / "small" / "results.json").read_text())["points"] == [point]
    (alone,) = json.loads(ohmformer("accuracy", "study.toml", "--workers", "1", *sets, "--json", "-")[1])["points"]
    assert alone == {name: value for name, value in point.items() if name != "cost"}
    (alone,) = json.loads(ohmformer("cost", "study.toml", *sets, "--json", "-")[1])["points"]
    assert alone["cost"] == point["cost"]
    code, out, err = ohmformer("run", "bert_base", "--out", "here", "--json", "-")
    assert code == 0
    assert json.loads(out)["points"] == json.loads((tmp_path / "here" / "results.json").read_text())["points"]
    assert "1.541 ms" in err
    assert "no accuracy" not in err, "nobody asked for it"
    (tmp_path / "bare.toml").write_text((tmp_path / "study.toml").read_text().replace("task = ", "# "))
    assert "no accuracy: the study has no [task]; add one" in ohmformer("run", "bare.toml")[1]


def test_json_to_standard_output_is_nothing_but_json(ohmformer: Run, tmp_path: Path) -> None:
    write_study(tmp_path / "study.toml")
    arguments = ("accuracy", "study.toml", "--workers", "1", "--set", f"{GAMMA}=3", "--out", "here", "--json", "-")
    code, out, err = ohmformer(*arguments)
    assert code == 0
    assert json.loads(out)["points"][0]["write_noise"]["key"]["gamma"] == 3
    assert "software: 100.0 %" in err
    again = ohmformer(*arguments)
    assert again[1] == out, "a stored result reads otherwise than a fresh one"


@pytest.mark.parametrize(
    ("arguments", "said"),
    {
        "missing file": (("run", "nowhere.toml"), "nowhere.toml: no such file"),
        "unknown study": (("run", "nothing"), "nothing: is not a study of the library"),
        "unknown preset": (("run", "study.toml", "--set", "hardware.base=x"), "hardware.base = 'x'"),
        "wrong unit": (("run", "study.toml", "--set", "hardware.attention.array.cell.g_max=2 V"), "S is expected"),
        "negative sigma": (
            ("run", "study.toml", "--set", "hardware.attention.array.cell.write_noise.sigma=-1"),
            "write_noise.sigma = -1: must be >= 0",
        ),
        "no bits": (("run", "study.toml", "--set", "hardware.attention.array.bits=0"), "bits = 0: must be >= 1"),
        "unknown model": (("run", "study.toml", "--set", "model.source=bundled:x"), "known: bundled:fashion-vit"),
        "too few samples": (("run", "study.toml", "--set", "task.limit=99"), "has only 16 samples"),
        "a source that leaves": (
            ("run", "study.toml", "--set", "model.source=python:sys:exit"),
            "study.toml: model.source = 'python:sys:exit': fails (SystemExit)",
        ),
        "points that all fail": (
            ("run", "study.toml", "--workers", "1", "--set", "model.source=python:torch.nn:Identity"),
            "the only point failed",
        ),
        "no workers": (("run", "study.toml", "--workers", "0"), "workers = 0: must be 1 or more"),
        "workers of a study of cost": (
            ("run", "bert_base", "--workers", "0"),
            "bert_base.toml: --workers 0: has no effect, since the study has no accuracy, and costs are computed in",
        ),
        "cluster of a study of cost": (
            ("run", "bert_base", "--cluster", "ray"),
            "bert_base.toml: --cluster ray: has no effect, since the study has no accuracy, and costs are computed in",
        ),
        "no such cluster": (
            ("accuracy", "study.toml", "--cluster", "slurm"),
            "--cluster 'slurm': must be local, ray or the address of a Dask scheduler, such as tcp://host:8786",
        ),
        "workers of a comparison of cost": (
            ("compare", "bert_base", "--platforms", "nvm_ideal", "--workers", "2"),
            "bert_base.toml: --workers 2: has no effect, since the study has no accuracy, and costs are computed in",
        ),
        "a folder of a comparison of cost": (
            ("compare", "bert_base", "--platforms", "nvm_ideal", "--out", "here"),
            "bert_base.toml: --out here: has no effect, since the study has no accuracy, whose results it keeps",
        ),
        "a dataflow that is none": (
            ("run", "study.toml", "--set", "dataflow.kind=x"),
            "dataflow.kind = 'x': is not a kind",
        ),
        "nowhere to write": (("run", "study.toml", "--json", "no/such/folder.json"), "--json no/such/folder.json"),
        "a file where results should go": (
            ("run", "study.toml", "--out", "study.toml"),
            "--out study.toml: is a file, not a folder",
        ),
        "cost of tokens that an image does not have": (
            ("cost", "study.toml", "--set", "model.seq_len=9"),
            "study.toml: model.seq_len = 9: the model makes 5 tokens of one input",
        ),
        "what the sweep would overwrite": (
            ("cost", "bert_base", "--set", "dataflow.block=0"),
            "--set dataflow.block: the study sweeps dataflow, which would overwrite it; set dataflow as a whole",
        ),
        "unknown study of cost": (("cost", "bert"), "bert: is not a study of the library; did you mean 'bert_base'"),
        "accuracy of a table": (("accuracy", "bert_base"), "bert_base: is a study of cost alone; take `ohmformer cost"),
        "no platforms": (("compare", "platforms", "--platforms", ","), "--platforms: is missing or empty; name some"),
        "platforms left out": (
            ("compare", "platforms"),
            "--platforms: is missing or empty; name some of: a100_sxm_40gb",
        ),
        "unknown platform": (
            ("compare", "bert_base", "--platforms", "xformer_tvlsi_2023,tpu"),
            "hardware.base = 'tpu': is not among the accelerators of the library",
        ),
        "unknown paper": (
            ("validate", "xformer"),
            "'xformer' is not a paper in the library; did you mean 'xformer_tvlsi",
        ),
        "unknown entry": (("show", "nothing"), "'nothing' is not in the library"),
        "unknown kind": (("list", "things"), "'things' is not a kind"),
        "unknown kind of file": (("schema", "things"), "'things' is not a kind of file"),
    }.values(),
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(
    ohmformer: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    write_study(tmp_path / "study.toml")
    code, out, err = ohmformer(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("ohmformer: ")
    assert said in err
    assert err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["study.toml"]


def test_costs_platforms_and_claims(ohmformer: Run, tmp_path: Path) -> None:
    code, out, err = ohmformer("cost", "bert_base", "--json", "cost.json", "--trace", "trace.json")
    assert (code, err) == (0, "")
    assert "1.541 ms" in out
    assert "sequence blocking, block 64, dependencies exact" in out
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    points = json.loads((tmp_path / "cost.json").read_text())["points"]
    assert len(points) == 3
    assert {"latency_s", "energy_J", "area_m2", "lifetime_s", "counts"} <= set(points[0]["cost"])
    code, out, err = ohmformer("compare", "bert_base", "--platforms", "gtx_1060,xformer_tvlsi_2023", "--json", "-")
    assert code == 0
    assert json.loads(out)["points"][1]["set"] == {"hardware.base": "xformer_tvlsi_2023"}
    assert "51.48 ms (1x)" in err


@pytest.mark.slow
def test_claims_and_where_their_page_goes(ohmformer: Run, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "validation.md"
    missed, out, _ = ohmformer("validate", "clipformer_tcad_2024")
    said = " ".join(out.split())
    assert "free claims are met" in said
    assert missed == int("hence exit code 1" in said)
    code, out, _ = ohmformer("validate", "--json", "claims.json")
    assert code == 1, "a missed claim is an exit code of 1"
    assert "checked claims are missed, hence exit code 1" in out
    assert [file.name for file in tmp_path.iterdir()] == ["claims.json"], "there is no folder for the page"
    every = [found["paper"] for found in json.loads((tmp_path / "claims.json").read_text())["papers"]]
    page.parent.mkdir()
    assert ohmformer("validate", "clipformer_tcad_2024")[0] == missed
    assert not page.exists(), "the page is that of all papers"
    code, out, err = ohmformer("validate", "--json", "-")
    assert [found["paper"] for found in json.loads(out)["papers"]] == every
    assert "written to docs/validation.md" in err
    text = page.read_text()
    assert text == (ROOT / "docs" / "validation.md").read_text()
    assert "written to docs/validation.md" in ohmformer("validate")[1], "a page of ours is written again"
    page.write_text("# What I validate")
    assert "is not a page of this command and is left unchanged" in ohmformer("validate")[1]
    assert page.read_text() == "# What I validate"
    assert ohmformer("validate", "clipformer_tcad_2024", "--page", "one.md")[0] == missed
    assert (tmp_path / "one.md").read_text().startswith("# Validation")


def test_an_unknown_option_is_exit_code_2(ohmformer: Run) -> None:
    code, _, err = ohmformer("run", "demo", "--sett", "x")
    assert code == 2
    assert "--set" in err


def test_help_version_and_library(ohmformer: Run) -> None:
    code, out, _ = ohmformer("--help")
    assert code == 0
    assert all(verb in out for verb in ("demo", "run", "accuracy", "list", "show", "schema"))
    assert ohmformer("--version")[1].startswith("ohmformer ")
    assert "clipformer_tcad_2024" in ohmformer("list", "accelerator")[1]
    assert "10 uS" in ohmformer("show", "clipformer_tcad_2024")[1]
    assert json.loads(ohmformer("schema")[1])["title"] == "Ohmformer study"


@pytest.mark.parametrize("arguments", [["list"], ["show", "demo"], ["show", "rram_clipformer_2024"], ["schema"]])
def test_looking_things_up_needs_no_torch(arguments: list[str]) -> None:
    code = "import sys; from ohmformer.cli import main; main(); print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "False"


def test_ctrl_c_keeps_what_is_stored_and_says_how_to_go_on(tmp_path: Path) -> None:
    long = {"trials.chips": [1, 1_000_000]}
    study = write_study(tmp_path / "study.toml", sweep=long)
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{code}; from ohmformer.cli import main; sys.exit(main())"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    out = tmp_path / "out"

    def stored() -> bool:
        if not (out / "results.sqlite").exists():
            return False
        with Store(out / "results.sqlite") as store:
            return len(store) == 1

    with subprocess.Popen(
        [*command, "run", str(study), "--out", str(out), "--workers", "1", *ALLOWED],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        assert wait_until(stored, 60)
        driver.send_signal(signal.SIGINT)
        said = driver.communicate(timeout=60)
    assert said == ("", "stopped: 1 of 2 points stored; run again to go on\n")
    assert driver.returncode == 130


INTERRUPTED = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


@pytest.mark.parametrize(
    "module",
    [
        f"{INTERRUPTED}while True: pass",
        "try:\n    import os, signal; os.kill(os.getpid(), signal.SIGINT)\n    while True: pass\n"
        "except KeyboardInterrupt:\n    raise RecursionError from None",
    ],
    ids=["as it is", "in disguise"],
)
def test_ctrl_c_during_an_import_is_one_line(ohmformer: Run, tmp_path: Path, module: str) -> None:
    name = f"interrupted.of_{len(module)}"
    (tmp_path / "interrupted").mkdir()
    (tmp_path / "interrupted" / f"of_{len(module)}.py").write_text(module)
    write_study(tmp_path / "study.toml", model={"source": f"python:{name}:make"})
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert ohmformer("run", "study.toml") == (130, "", "stopped; run again to go on\n")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert {file.name for file in tmp_path.iterdir()} == {"study.toml", "interrupted"}


def test_limits_of_a_run_are_printed(ohmformer: Run, tmp_path: Path) -> None:
    write_study(tmp_path / "study.toml", trials={"chips": 1}, simulation={"level": "noise"})
    code, out, _ = ohmformer("run", "study.toml", "--workers", "1", "--set", f"{GAMMA}=3")
    said = " ".join(out.split())
    assert code == 0
    assert "one chip: intervals cover samples only" in said
    assert "1 of 1 points lie there (γσ up to 0.6 in K, 0.6 in V)" in said
    assert "Level noise leaves converters and read noise out." in said


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "ohmformer", "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tokens_of_a_study_are_called_seq_len(ohmformer: Run) -> None:
    code, _, said = ohmformer("cost", "bert_base", "--set", "model.tokens=8")
    assert code == 2
    assert "model.tokens: is called seq_len here; write seq_len" in said
