"""References of a study: sources of numbers, methods, data and the program, once each."""

from __future__ import annotations

import re
from pathlib import Path

from ohmformer.report.citations.bibliography import as_text, bibliography
from ohmformer.report.citations.cited import references

STUDY = """
name = "own"
[model]
source = "shapes:bert-base"
seq_len = 64
[hardware]
base = "clipformer_tcad_2024"
"attention.array.cell.write_noise.gamma" = { value = 2.0, source = "KEY" }
[mitigation]
clip = { alpha = 2.0, beta = 0.25 }
weights = { scaling = 0.5 }
"""


def keys(text: str) -> list[str]:
    return re.findall(r"^@\w+\{([^,]+),", text, re.MULTILINE)


def test_hardware_model_methods_and_the_program_are_named_once(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(STUDY.replace("KEY", "own2026"))
    (tmp_path / "sources.bib").write_text("@misc{own2026,\n  title = {Our {Cell}},\n  year = {2026},\n}\n")
    text, unknown = references(str(file), [], "bibtex")
    assert unknown == []
    found = keys(text)
    assert found[0] == "ohmformer"
    assert len(found) == len(set(found))
    assert {"own2026", "clipformer2024", "devlin2019", "smoothquant2023"} <= set(found)
    assert "gptq2023" not in found
    assert "[own2026] Our Cell. 2026.\n" in references(str(file), [], "text")[0]


def test_bundled_data_are_named(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    for source, key in (("fashion-mnist", "fashionmnist"), ("northanger-abbey", "austen1817")):
        file.write_text(f'name = "own"\nmodel.source = "shapes:gpt2"\ntask.source = "bundled:{source}"\n')
        assert key in keys(references(str(file), ["hardware.base=nvm_ideal"], "bibtex")[0])


def test_an_unknown_key_is_one_line_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(STUDY.replace("KEY", "nowhere"))
    text, (line,) = references(str(file), [], "bibtex")
    assert "nowhere" not in text
    assert line.startswith(f"{file}: hardware.attention.key.array.cell.write_noise.gamma: source = 'nowhere'")
    assert str(tmp_path / "sources.bib") in line


def test_the_program_is_cited_as_its_citation_file_says() -> None:
    cff = (Path(__file__).parents[3] / "CITATION.cff").read_text(encoding="utf-8")
    version, author = (re.search(rf'{field}: "?([^"\n]+)', cff).group(1) for field in ("\nversion", "- name"))
    line = as_text(bibliography()["ohmformer"])
    assert f"version {version}" in line
    assert line.startswith(author)


def test_what_a_search_may_choose_is_cited() -> None:
    """Only the study as it stands without its search used to be."""
    text, _ = references(str(Path(__file__).parents[3] / "examples" / "13_search.toml"), [], "bibtex")
    assert {"clipformer2024", "xformer2023", "itrs2011", "quarot2024"} <= set(keys(text))
