"""What is fuzzed: each kind of input, a few good ones, and what the package does with one.

To add a kind, add an `Input` to `INPUTS`: its good texts, and a function that writes a text into a folder and reads it
in the way that a user would. It returns plain numbers, which have to be finite and of a magnitude that occurs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ohmformer import catalog, units
from ohmformer.array.spec import Crossbar
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import Spec, load
from ohmformer.study.cost import read_costs, study_costs
from ohmformer.study.read_study import read_study
from ohmformer.study.results.document import to_json
from ohmformer.study.results.key import digest
from ohmformer.validation.claims import check, claims_document
from ohmformer.workload.shapes import Transformer, shapes

Run = Callable[[Path, bytes], Any]

COST = """name = "cost"
hardware = "clipformer_tcad_2024_adc8"
[model]
source = "shapes:deit-small"
seq_len = 32
batch = 2
[dataflow]
kind = "sequence_blocking"
block = 16
[cost]
rate = "20 Hz"
spare = 0.1
[sweep]
"hardware.attention.array.adc.bits" = [6, 8]
"""

DECODING = """name = "decoding"
[model]
source = "shapes:gpt2"
phase = "decode"
context = 16
steps = 3
[hardware]
base = "puma_asplos_2019"
chip.clock = "1 GHz"
[mitigation]
kv = { mean = true, basis = "hadamard" }
[simulation]
level = "noise"
"""

ACCURACY = """name = "accuracy"
seed = 3
[model]
source = "bundled:vit_digits"
[task]
source = "bundled:digits"
limit = 24
[hardware]
base = "clipformer_tcad_2024"
"attention.array.cell.write_noise.gamma" = 3.0
[rules]
"head" = "digital"
"blocks.0.*" = { array = "generic_amplitude", scale = "column" }
[mitigation]
clip = { alpha = 2.0, beta = 0.25 }
[simulation]
level = "noise"
batch = 50
[trials]
chips = 2
[cost]
rate = "20 Hz"
[[sweep]]
label = "noise {noise}"
"hardware.attention.array.cell.write_noise.sigma" = [0.1, 0.2]
"""

SETS = (
    "model.batch=4", "model.seq_len=16", "hardware.attention.array.adc.bits=6",
    'hardware.base="clipformer_tcad_2024_adc6"',
    'hardware.chip.clock="1 GHz"', 'hardware.projection.kind="digital"', "mitigation.clip={ alpha = 2.0, beta = 0.5 }",
    'mitigation.kv="none"', 'dataflow={ kind = "layer_serial" }', "trials.chips=2", "seed=1", "simulation.level=noise",
    'hardware.attention.key.array.cell.write_noise={ kind = "uniform", sigma = 0.1 }',
)  # fmt: skip

QUANTITIES = (
    "10 uS",
    "2.5 pJ",
    "1e-3 s",
    "3 %",
    "-.5e1 mV",
    "26.2 um^2",
    "4 TB/s",
    "3 days",
    "10 \u00b5S",
    "1.5 Top/s",
)


@dataclass(frozen=True)
class Input:
    """A kind of input: its name, good texts, how one is read, and what a refusal has to name."""

    name: str
    good: tuple[str, ...]
    run: Run
    names: str = "mine"


def _file(folder: Path, content: bytes, name: str = "mine.toml") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def _entry(kind: type[Spec]) -> Run:
    def run(folder: Path, content: bytes) -> Any:
        spec = load(kind, str(_file(folder, content)))
        return json.loads(json.dumps(spec.canonical(), allow_nan=False))

    return run


def _dimensions(folder: Path, content: bytes) -> Any:
    table = load(Transformer, str(_file(folder, content)))
    return shapes(table).operations


def _cost(folder: Path, content: bytes) -> Any:
    study = read_costs(str(_file(folder, content)))
    return json.loads(to_json(study_costs(study)))["points"]


def _accuracy(folder: Path, content: bytes) -> Any:
    study = read_study(str(_file(folder, content)))
    return len([digest(point.settings.canonical()) for point in study.points])


def _library(folder: Path, content: bytes) -> Any:
    """An accelerator of a user's library, by name, and everything that the library holds."""
    _file(folder, content, "accelerators/mine.toml")
    names = [name for kind in catalog.KINDS for name in catalog.entries(kind)]
    return len(names), load(Accelerator, "mine").canonical()


def _set(study: str, read: Callable[[str, list[str]], Any]) -> Run:
    def run(folder: Path, content: bytes) -> Any:
        file = _file(folder, study.encode())
        return len(read(str(file), [content.decode("utf-8", "surrogateescape")]).points)

    return run


def _quantity(folder: Path, content: bytes) -> Any:
    text = content.decode("utf-8", "surrogateescape")
    found = []
    for unit in (*units.LIMITS, "%"):
        try:
            found.append(units.check_magnitude(units.parse(text, unit), unit) if unit in units.LIMITS else 0.0)
        except ValueError as error:
            last = BadInput(f"mine: {error}")
    if not found:
        raise last
    return found


def _paper(claims: str | None, record: str | None) -> Run:
    def run(folder: Path, content: bytes) -> Any:
        paper = folder / "papers" / "mine"
        _file(paper, content if claims is None else claims.encode(), "claims.toml")
        _file(paper, content if record is None else record.encode(), "accuracy.json")
        return json.loads(to_json(claims_document([check("mine")])))["papers"][0]["claims"]

    return run


def _shipped(kind: str, *names: str) -> tuple[str, ...]:
    return tuple(catalog.entries(kind)[name].read_text(encoding="utf-8") for name in names)


_PAPER = catalog.SHIPPED / "papers" / "clipformer_tcad_2024"
_CLAIMS, _RECORD = ((_PAPER / name).read_text(encoding="utf-8") for name in ("claims.toml", "accuracy.json"))

INPUTS: tuple[Input, ...] = (
    Input("cell", _shipped("cell", *catalog.entries("cell")), _entry(Cell)),
    Input("array", _shipped("array", "clipformer_2024", "generic_amplitude"), _entry(Crossbar)),
    Input("accelerator", _shipped("accelerator", *catalog.entries("accelerator")), _entry(Accelerator)),
    Input("shapes", _shipped("shapes", *catalog.entries("shapes")), _dimensions, names=""),
    Input("cost", (COST, DECODING), _cost),
    Input("accuracy", (ACCURACY,), _accuracy),
    Input("library", _shipped("accelerator", *catalog.entries("accelerator")), _library),
    Input("set of cost", SETS, _set(COST, read_costs)),
    Input("set of accuracy", SETS, _set(ACCURACY, read_study)),
    Input("quantity", QUANTITIES, _quantity),
    Input("claims", (_CLAIMS,), _paper(None, _RECORD)),
    Input("accuracy.json", (_RECORD,), _paper(_CLAIMS, None)),
)
