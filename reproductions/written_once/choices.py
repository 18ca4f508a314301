"""What calibration chose, in words: recipes, and how settings differ between layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from common.curves import Curves
from common.pages import NOTHING
from judging import Found
from methods import SAME, TWICE, title

from ohmformer.mitigation.spec import Conditioning, WeightMitigation
from ohmformer.study.results.spec import Chosen

TOLD = {
    "vit_s_kv": (SAME, TWICE),
    "vit_s_all": (SAME, TWICE),
    "smollm2_news": (SAME, SAME + ", 4 first tokens"),
    "fashion_vit": (SAME,),
    "minilm_tweets": (SAME,),
}
"""Study -> methods whose choices are told."""

FIELDS = (
    *("mean", "basis", "rotate", "scaling", "scale", "percentile", "radix", "range", "unbiased", "residual"),
    *("redundancy", "first_tokens", "last_tokens"),
)
"""Fields in the order of the sentences."""

NAMES = {"mean": "mean removed", "rotate": "rotated", "residual": "read back", "scale": "range per"}
"""Fields whose names in sentences differ from those in files."""


def choices_block(found: Found) -> str:
    """One paragraph for each method and noise."""
    lines = [line for name, methods in TOLD.items() for line in _study_lines(found.get(name), methods)]
    return "\n".join(lines) if lines else NOTHING


def _study_lines(found: Curves | None, methods: Iterable[str]) -> list[str]:
    if found is None:
        return []
    points = [(method, gamma, point) for method in methods for gamma, point in found.found.get(method, {}).items()]
    return [
        f"- **{found.title}; {title(method)}**, γσ = {found.sigma * gamma:.2g}: {words(point.accuracy.chosen)}."
        for method, gamma, point in points
        if point.accuracy.chosen is not None and gamma > 0
    ]


def words(chosen: Chosen) -> str:
    """The recipes of a choice, and what their numbers are in K, in V and in static weights."""
    groups: dict[str, list[Conditioning | WeightMitigation]] = {"K": [], "V": []}
    for operand, spec in chosen.kv.items():
        groups.setdefault(operand.rsplit(".", 1)[-1], []).append(spec)
    if chosen.weights is not None:
        groups["static weights"] = list(chosen.weights.weights.values())
    told = [f"{name}: {_settings(specs)}" for name, specs in groups.items() if specs]
    return "; ".join([f"`{chosen.words}`", *told])


def _settings(specs: list[Any]) -> str:
    """How the fields of several operands are set: those that all share, and those that differ with their counts."""
    parts = [part for field in FIELDS if hasattr(specs[0], field) and (part := _field(field, specs))]
    return ", ".join(parts) or "left alone"


def _field(field: str, specs: list[Any]) -> str:
    usual = type(specs[0]).model_fields[field].default
    values = [getattr(spec, field) for spec in specs]
    counts = Counter(map(_value, values))
    if set(values) == {usual}:
        return ""
    name = NAMES.get(field, field.replace("_", " "))
    if field == "range":
        low, high = min(values), max(values)
        return f"range {low:g}" if low == high else f"range {low:g} to {high:g}"
    if len(counts) == 1:
        return _named(name, next(iter(counts)))
    return " or ".join(f"{_named(name, value)} in {count}" for value, count in counts.most_common() if value)


def _named(name: str, value: str) -> str:
    return name if value == "yes" else f"{value}" if name == "basis" else f"{name} {value}"


def _value(value: Any) -> str:
    """A value in a word; empty for one that does nothing."""
    if value is None or value is False:
        return ""
    if value is True:
        return "yes"
    if isinstance(value, Mapping) or hasattr(value, "model_dump"):
        bits = getattr(value, "bits", "ideal")
        return "yes" if bits == "ideal" else f"{bits} bits"
    return f"{value:g}" if isinstance(value, float) else str(value)
