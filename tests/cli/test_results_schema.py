"""What every verb writes as JSON is what `ohmformer schema results` says."""

from __future__ import annotations

import json
from pathlib import Path

from ohmformer.study.results.requirements import Requirements
from ohmformer.study.results.search import SearchResults
from ohmformer.study.results.spec import DOCUMENTS, ClaimResults
from tests.cli.test_cli import Run, ohmformer, write_study

__all__ = ["ohmformer"]  # the fixture


def test_every_verb_writes_what_the_schema_says(ohmformer: Run, tmp_path: Path) -> None:
    write_study(tmp_path / "study.toml", hardware={"base": "clipformer_tcad_2024_adc8"}, simulation={"level": "noise"})
    (tmp_path / "gpt2.toml").write_text('name = "gpt2"\nmodel.source = "shapes:gpt2"\nhardware.base = "nvm_ideal"\n')
    for arguments in (
        ("run", "study.toml", "--workers", "1", "--set", "mitigation.clip=calibrated"),
        ("accuracy", "study.toml", "--workers", "1", "--set", "mitigation.clip=calibrated"),
        ("run", "study.toml", "--workers", "1", "--set", 'mitigation.kv={ auto = true, latency = "+10 %", cells = 1 }'),
        ("cost", "study.toml"),
        ("serve", "gpt2.toml", "--prompt", "20", "--generate", "5", "--batch", "2"),
        ("compare", "study.toml", "--platforms", "clipformer_tcad_2024_adc8,gtx_1060", "--workers", "1"),
        ("run", "bert_base"),
        ("validate", "xformer_tvlsi_2023"),
    ):
        _, out, _ = ohmformer(*arguments, "--json", "-")
        found = DOCUMENTS.validate_json(out)
        if arguments[0] in ("cost", "serve", "compare"):
            assert not isinstance(found, ClaimResults | Requirements | SearchResults)
            assert found.record is not None
            assert found.record.command.startswith(f"ohmformer {arguments[0]} {arguments[1]}")
            assert found.record.hardware
    assert json.loads(ohmformer("schema", "results")[1])["title"] == "Ohmformer results"
