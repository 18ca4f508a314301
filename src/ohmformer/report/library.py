"""Tables of the entries of the library, and of the values of one entry. Free of torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.table import Table

from ohmformer import catalog, registry
from ohmformer.errors import BadInput, cut, shown, suggest
from ohmformer.hardware.entries import KINDS
from ohmformer.models.sources import FORMS, bundled
from ohmformer.report.array_prices import price_tables
from ohmformer.report.describe import spec_table
from ohmformer.report.full_load import full_load_tables
from ohmformer.schema import Spec, load
from ohmformer.study.join_cost import has_accuracy
from ohmformer.study.read_study import accuracy_half, locate_study, read_whole
from ohmformer.study.sweep import SECTIONS, flatten
from ohmformer.workload.shapes import Transformer

FAMILIES: dict[str, str] = {
    **dict.fromkeys(("write_noise", "read_noise", "drift", "faults", "wear"), "ohmformer.device.spec"),
    **dict.fromkeys(("array_law", "dac_law"), "ohmformer.array.prices.array_laws"),
    "adc_law": "ohmformer.array.prices.converter_laws",
    "engine": "ohmformer.hardware.spec",
    "dataflow": "ohmformer.dataflow.spec",
    "metric": "ohmformer.tasks.metric_kinds",
    "recipe": "ohmformer.nn.calibration.recipes",
}
"""Families of kinds, and the modules that define them; importing some of those takes time."""

SPECS: dict[str, type[Spec]] = {**KINDS, "shapes": Transformer}
"""Kinds of entry that are one specification."""

ALL = ("study", "costs", *SPECS, "model", "task")
"""Kinds of entry, in the order in which they are listed."""

ORIGINS = {
    "timm": "timm: pip install 'ohmformer[vision]'",
    "hf": "a folder, the local cache or the hub of Hugging Face: pip install 'ohmformer[hf]'",
    "python": "a function without arguments",
    "imagefolder": "a folder with one folder of images for each class",
    "csv": "a table with columns text,label or text_a,text_b,score",
    "text": "running text in UTF-8",
}
"""Prefix of a source -> where it comes from, in words."""


def names(kind: str) -> dict[str, Path]:
    """Name -> file of every entry of a kind, bundled models and tasks included."""
    return bundled(kind) if kind in ("model", "task") else catalog.entries(kind)


def list_table(kind: str = "") -> Table:
    """Kind, name and place of every entry, or of those of one kind; or the kinds of a family, such as `write_noise`.

    Raises:
        BadInput: there is no such kind.
    """
    if kind in FAMILIES:
        return _family_table(kind)
    if kind and kind not in ALL:
        raise BadInput(f"{shown(kind)} is not a kind of library entry; {suggest(kind, [*ALL, *FAMILIES])}")
    table = _table("kind", "name", "from")
    for each in [kind] if kind else ALL:
        for name, file in names(each).items():
            shipped = catalog.SHIPPED in file.parents
            table.add_row(each, name, "the package" if shipped else str(file.parent.parent))
        for form in FORMS.get(each, ()):
            table.add_row(each, form, ORIGINS[form.split(":")[0]])
    return table


def left_out(family: str) -> list[str]:
    """A message for each kind of a family that an installed package names but that cannot be loaded."""
    if family not in FAMILIES:
        return []
    import_module(FAMILIES[family])
    return registry.families()[family].failures()


def _family_table(family: str) -> Table:
    """The kinds of a family, those of other packages too."""
    import_module(FAMILIES[family])
    table = _table("family", "kind", "what it is", "from")
    for kind, cls in registry.families()[family].kinds().items():
        first = (cls.__doc__ or "").strip().split("\n")[0]
        table.add_row(family, kind, first, "the package" if registry.is_own(cls) else cls.__module__)
    return table


def show_tables(name: str, *, sources: bool = False) -> Iterator[Table]:
    """Tables of the entries of this name, or of a file: one for each kind that has one.

    Raises:
        BadInput: there is none, or it is wrong.
    """
    kinds = [_kind_of_file(name)] if name.endswith(".toml") else [kind for kind in ALL if name in names(kind)]
    if not kinds:
        if catalog.looks_like_path(name):
            raise BadInput(f"{cut(name)}: is not a .toml file; give a study or hardware file, or the name of an entry")
        entries = [entry for kind in ALL for entry in names(kind)]
        raise BadInput(f"{shown(name)} is not in the library; {suggest(name, entries)}")
    for kind in kinds:
        if kind in SPECS:
            spec = load(SPECS[kind], name)
            yield spec_table(spec, f"{kind} {name}", sources=sources)
            yield from price_tables(spec, sources=sources)
            yield from full_load_tables(spec)
        elif kind in ("study", "costs"):
            yield _study_table(name, kind)
        else:
            yield _bundled_table(kind, name)


def _kind_of_file(name: str) -> str:
    """The kind of a file: that of its table of hardware or shapes, or `study`.

    Raises:
        BadInput: the file cannot be read, or is of no kind that can be shown.
    """
    content = catalog.read(catalog.find("study", name))
    if kind := next((kind for kind in SPECS if kind in content), ""):
        return kind
    if not {"name", "sweep", *SECTIONS} & set(content):
        claims = "; `ohmformer validate` checks the claims of papers" if "claim" in content else ""
        tables = ", ".join(f"[{kind}]" for kind in SPECS)
        raise BadInput(f"{name}: cannot be shown; give a study, or a file with one of the tables {tables}{claims}")
    return "study"


def _study_table(name: str, kind: str) -> Table:
    """A checked study, of accuracy or of cost, as it is written."""
    study = read_whole(name)
    if has_accuracy(study):
        accuracy_half(study)
    points = f"{len(study.points)} point{'' if len(study.points) == 1 else 's'}"
    table = _table("path", "value", title=f"{kind} {name}: {points}")
    content = catalog.read(locate_study(name))
    sweeps = content.pop("sweep", [])
    hardware = content.pop("hardware", {})
    rows = [*flatten(content), *flatten({"": hardware} if isinstance(hardware, str) else hardware, "hardware.")]
    for sweep in sweeps if isinstance(sweeps, list) else [sweeps]:
        rows += flatten(sweep, "sweep.")
    for path, value in rows:
        table.add_row(path, _text(value))
    return table


def _table(*columns: str, title: str = "") -> Table:
    """A table that wraps long cells and loses nothing."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _bundled_table(kind: str, name: str) -> Table:
    """File and size, and the record that lies beside it."""
    file = bundled(kind)[name]
    table = _table("", "value", title=f"{kind} {name}")
    table.add_row("file", str(file))
    table.add_row("size", f"{file.stat().st_size / 1e6:.2g} MB")
    record = file.with_suffix(".json")
    for key, value in _record(record).items():
        table.add_row(key, _text(value))
    return table


def _record(file: Path) -> dict[str, Any]:
    """The record beside a bundled file; empty if there is none.

    Raises:
        BadInput: the record is not a JSON table.
    """
    if not os.path.isfile(file):
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file}: is not JSON ({error}); correct it, or move it away") from error
    if not isinstance(content, dict):
        raise BadInput(f"{file}: is not a table of names and values; correct it, or move it away")
    return content


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
