"""The numbers of a run as rows of text, which `print` and notebooks show."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from ohmformer import units
from ohmformer.dataflow.timeline import Timeline
from ohmformer.terminal.plain import clean


def run_rows(timeline: Timeline) -> list[tuple[str, str]]:
    """Return (quantity, value with unit) of a timeline: latency, energy, power, area, utilization, energies, notes."""
    placement = timeline.placement
    work = placement.workload
    size = f"{work.title}: {work.phase}, {_counted(work.tokens, 'token')}, {_counted(work.batch, 'sample')}"
    return [
        ("workload", clean(size + (f", {work.context} cached tokens" if work.context else ""))),
        ("accelerator", clean(placement.hardware.title) or "(without a title)"),
        ("dataflow", timeline.dataflow.kind),
        ("latency", units.show(timeline.latency, "s")),
        ("energy", units.show(timeline.energy, "J")),
        ("power", units.show(timeline.power, "W")),
        ("area", units.show(placement.area, "m^2")),
        ("utilization", _listed({engine: units.show(share, "%") for engine, share in timeline.utilization.items()})),
        *((f"energy by {kind}", _energies(timeline.energy_by(kind))) for kind in ("component", "engine")),
        *(("note", note) for note in placement.notes),
    ]


def as_text(rows: list[tuple[str, str]]) -> str:
    """Return rows as lines of text, their values in one column."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def as_html(rows: list[tuple[str, str]]) -> str:
    """Return rows as an HTML table."""
    lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{lines}</table>"


def _energies(parts: Mapping[str, float]) -> str:
    """Return energies as text, the largest first."""
    largest_first = sorted(parts.items(), key=lambda part: -part[1])
    return _listed({name: units.show(energy, "J") for name, energy in largest_first if energy})


def _listed(parts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in parts.items())


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
