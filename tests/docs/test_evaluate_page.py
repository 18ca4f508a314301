"""The page on libraries that evaluate models runs, on tiny models in place of those that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.docs.run_page import blocks
from tests.tasks import tiny

PAGE = Path(__file__).parents[2] / "docs" / "evaluate.md"
LANGUAGE_MODEL, CLASSIFIER, EMBEDDER = (
    "HuggingFaceTB/SmolLM2-135M",
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
    "sentence-transformers/all-MiniLM-L6-v2",
)
"""The models that the page names."""

pytestmark = [
    pytest.mark.slow,  # the import of lm_eval alone takes most of a minute
    *(
        pytest.mark.filterwarnings(f"default::{kind}")  # of those libraries; ours are of other kinds, and stay errors
        for kind in ("DeprecationWarning", "FutureWarning", "ResourceWarning", "PendingDeprecationWarning")
    ),
]


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network, in a folder of its own."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.chdir(tmp_path)


def run(named: str, folder: Path, *numbers: int) -> dict[str, Any]:
    """What names hold after blocks of the page, with a folder in place of the model that they name."""
    code = [text for language, text in blocks(PAGE) if language == "python"]
    assert named in code[numbers[0]]
    names: dict[str, Any] = {"__name__": "page"}
    for number in numbers:
        exec(compile(code[number].replace(named, str(folder)), f"block {number}", "exec"), names)
    return names


def test_lm_evaluation_harness(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    names = run(LANGUAGE_MODEL, tiny.llama(tmp_path / "llama"), 0, 1, 2)
    assert len(names["stats"].chips) == 3


def test_requests_draw_the_same_noise_whatever_the_size_of_batches(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    names = run(LANGUAGE_MODEL, tiny.llama(tmp_path / "llama"), 0, 1)

    def answers(model: Any, batch: int) -> list[float]:
        lm = names["HFLM"](pretrained=model, tokenizer=names["tokenizer"], batch_size=batch, max_length=32)
        with names["of"].numbered_samples():
            found = names["simple_evaluate"](lm, tasks=[names["task"]], bootstrap_iters=0)["samples"]["reviews"]
        return [likelihood for sample in found for [(likelihood, _)] in sample["resps"]]

    single = answers(names["converted"], 1)
    # Batches of other sizes are summed in another order; noise changes the answers by more than 1e-3.
    assert answers(names["converted"], 3) == pytest.approx(single, abs=1e-5)
    assert max(abs(a - b) for a, b in zip(single, answers(names["model"], 1), strict=True)) > 1e-3


def test_the_trainer_evaluates_and_trains(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    folder = tiny.bert(tmp_path / "bert", "BertForSequenceClassification", num_labels=2)
    names = run(CLASSIFIER, folder, 3)
    assert (tmp_path / "trained" / "model.safetensors").is_file()
    after = names["trainer"].state.log_history[-1]["eval_loss"]
    assert after != names["before"]


def test_evaluators_of_sentence_transformers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    names = run(EMBEDDER, tiny.bert(tmp_path / "bert"), 4)
    software, noisy = map(float, capsys.readouterr().out.split()[-2:])
    assert software == names["software"]
    assert software != noisy
