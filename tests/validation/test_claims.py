"""Claims of papers: roles and verdicts, and what the page in the documentation says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ohmformer.errors import BadInput
from ohmformer.validation import claims
from ohmformer.validation.claim_runs import Evaluator
from ohmformer.validation.claims import Checked, Claim, Paper, check, check_claim, papers
from ohmformer.validation.page import page, summary

ROOT = Path(__file__).parents[2]
FOUND = {name: check(name) for name in papers()}
BY_ID = {entry.claim.id: entry for paper in FOUND.values() for entry in paper.claims}


def test_the_papers_that_ship() -> None:
    assert set(FOUND) == {
        *("xformer_tvlsi_2023", "clipformer_tcad_2024", "gpu_references", "device_models"),
        *("neurram_nature_2022", "chips_and_macros", "gain_cell_leroux_2025", "digital_attention_3dsim"),
    }


@pytest.mark.parametrize(
    "name", ["latency", "gpu_latency", "speedup", "efficiency", "share_attention", "share_qkv", "nvm_ideal", "area"]
)
def test_what_fixed_a_parameter_is_met_and_does_not_count(name: str) -> None:
    assert BY_ID[name].verdict == "calibrated"


@pytest.mark.parametrize(
    "name",
    [
        *("glue", "squad", "puma", "puma_share", "falls", "arrays", "puma_energy", "share_rest", "adc_projection"),
        "energy",
    ],
)
def test_free_claims_that_are_met(name: str) -> None:
    assert BY_ID[name].verdict == "met"


@pytest.mark.parametrize(
    "name",
    [
        *("unblocked", "efficiency_sources", "power_512_smallest", "power_384_largest", "power_384_smallest"),
        "adc_attention",
    ],
)
def test_free_claims_that_are_missed_say_so(name: str) -> None:
    """A change that meets one of them is welcome: then it moves up."""
    assert BY_ID[name].verdict == "missed"
    assert len(BY_ID[name].claim.why) > 40


def test_what_no_source_settles_is_not_judged() -> None:
    names = ("sram_base", "sram_large", "revised_gpu", "sram_area")
    assert {BY_ID[name].verdict for name in names} == {"not checkable"}
    assert not any(BY_ID[name].failed for name in names)
    names = ("gpu_energy_glue", "encoder_energy", "sram_energy_base", "sram_energy_large")
    assert {BY_ID[name].verdict for name in names} == {"contradicts others"}


def test_crossbars_of_an_attention_block() -> None:
    assert (BY_ID["plain"].modeled, BY_ID["clipped"].modeled) == (624, 576)


def test_the_page_in_the_documentation_is_what_the_model_gives() -> None:
    written = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    assert written == page(list(FOUND.values())), "run: ohmformer validate"


def test_claims_that_follow_one_another_share_a_reason() -> None:
    def checked(name: str, modeled: float, why: str) -> Checked:
        claim = Claim(id=name, claim=name, reported=1.0, where="-", role="validation", quantity="q", why=why)
        return Checked(claim, 1.0, modeled, "")

    found = (
        *(checked(name, 1.0, "Sums.") for name in "abc"),
        checked("d", 1.0, "As above."),
        checked("e", 9.0, "As above."),
        checked("f", 9.0, "Sizes."),
        checked("g", 9.0, "As above."),
        checked("h", 1.0, "Sizes."),
    )
    written = page([Paper("p", "p", "", found)])
    assert written.split("differ:\n\n")[1].splitlines() == [
        "- **a** to **d** (4 claims, all met): Sums.",
        "- **e** (missed): As above.",
        "- **f** and **g** (both missed): Sizes.",
        "- **h** (met): Sizes.",
    ]


def test_verdicts() -> None:
    claim = Claim(id="x", claim="x", reported=10.0, where="-", role="validation", tolerance=0.1, quantity="q", why="-")
    verdicts = {
        role: [Checked(claim.model_copy(update={"role": role}), 10.0, value, "").verdict for value in (10.9, 11.1)]
        for role in ("validation", "calibration", "shown", "not_checkable", "contradicted")
    }
    assert verdicts == {
        "validation": ["met", "missed"],
        "calibration": ["calibrated", "not met by its own calibration"],
        "shown": ["shown", "shown"],
        "not_checkable": ["not checkable", "not checkable"],
        "contradicted": ["contradicts others", "contradicts others"],
    }


def test_what_is_not_measured_yet_is_neither_met_nor_missed() -> None:
    claim = Claim(id="x", claim="x", reported=10.0, where="-", role="validation", quantity="accuracy", why="-")
    waiting = Checked(claim, 10.0, None, "%")
    assert (waiting.verdict, waiting.failed) == ("not measured yet", False)
    paper = claims.Paper("mine", "Mine", "", (waiting,))
    assert (
        summary(paper) == "0 of 0 free claims are met; 0 fixed parameters, or follow from those, and do not count; "
        "0 cannot be checked; 1 are not measured yet"
    )


def test_every_run_is_used_and_every_claim_says_why() -> None:
    for name, file in papers().items():
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        used = {run for table in content["claim"] for run in (*table.get("runs", []), *table.get("against", []))}
        assert used == set(content.get("runs", {})), name
        assert all(table["why"] and table["where"] for table in content["claim"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("runs = ['nowhere']", "run 'nowhere': is not in this file; known: a"),
        ("quantity = 'latence'\nruns = ['a']", "quantity = 'latence': did you mean 'latency'"),
        ("role = 'proof'", "x: role = 'proof': must be"),
        ("quantity = 'speedup'\nruns = ['a']", "runs and against have different numbers of names; pair them"),
        ("quantity = 'sigma'", "x: quantity = 'sigma': needs measured accuracies; add [measured]"),
        ("runs = []", "x: runs: is missing or empty; name a run"),
        ("quantity = 'speedup'\nruns = []", "x: runs and against have different numbers of names; pair them"),
        ("quantity = 'energy_share'\nruns = ['a']\nof = ['nothing']", "x: quantity = 'energy_share'"),
        ("runs = ['a']\n[paper]\ntitle = 3", "claims.toml: paper.title = 3: must be text"),
        ("runs = ['a']\n[measured]\nreference = 'a'", "claims.toml: measured.software: is missing"),
        ("runs = ['a']\n[pepar]\ntitle = 'x'", "claims.toml: pepar: "),
    ],
)
def test_bad_claims_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    folder = tmp_path / "papers" / "mine"
    folder.mkdir(parents=True)
    run = '[runs.a]\nmodel = { source = "shapes:deit-small" }\nhardware = "xformer_tvlsi_2023"\n'
    role = "" if "role" in text else 'role = "shown"\n'
    quantity = "" if "quantity" in text else 'quantity = "latency"\n'
    claim = f'[[claim]]\nid = "x"\nclaim = "x"\nwhere = "-"\nwhy = "-"\n{role}{quantity}{text}\n'
    (folder / "claims.toml").write_text(f"{run}{claim}")
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(tmp_path))
    with pytest.raises(BadInput) as caught:
        claims.check("mine")
    assert said in str(caught.value)
    with pytest.raises(BadInput, match="'none' is not a paper in the library"):
        claims.check("none")


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (("prompt", "first"), "runs: has 2 names; give the prompts, the first and the last token"),
        (("prompt", "last", "first"), "the last token has a shorter context than the first; exchange them"),
    ],
)
def test_a_rate_needs_the_prompts_and_two_tokens(runs: tuple[str, ...], said: str) -> None:
    model = {"source": "shapes:gpt2", "batch": 2}
    passes = {
        "prompt": {**model, "seq_len": 8},
        "first": {**model, "phase": "decode", "context": 8},
        "last": {**model, "phase": "decode", "context": 11},
    }
    evaluator = Evaluator({name: {"model": each, "hardware": "t4"} for name, each in passes.items()})
    claim = Claim(id="x", claim="x", where="-", role="shown", quantity="tokens_per_second", runs=runs, why="-")
    with pytest.raises(BadInput, match=said):
        check_claim(evaluator, claim)
    times = [evaluator.run(name).run.latency for name in ("prompt", "first", "last")]
    whole = claim.model_copy(update={"runs": ("prompt", "first", "last")})
    assert check_claim(evaluator, whole).modeled == pytest.approx(2 * 4 / (times[0] + 2 * (times[1] + times[2])))
