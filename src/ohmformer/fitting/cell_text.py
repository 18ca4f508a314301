"""A fitted cell as the text of a TOML file, and as rows of a table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ohmformer import units

if TYPE_CHECKING:
    from ohmformer.fitting.fit import CellFit

UNITS = {"g_min": "S", "g_max": "S", "g_ref": "S", "coefficients": "S", "targets": "S", "std": "S", "mean": "S"}
UNITS |= {"t0": "s", "tau": "s", "g_rest": "S"}
"""Field -> its unit; all others are plain numbers."""


def cell_text(fit: CellFit) -> str:
    """The cell as a file: every number with how it was derived."""
    return "\n".join(_lines(fit)) + "\n"


def _lines(fit: CellFit) -> Iterator[str]:
    where = fit.measured.where
    count = f"{len(fit.measured.target)} measurements of {where}"
    yield f"# Fitted to {' '.join(count.split())}."
    yield f"# Write noise: {fit.chosen.label}; normal residuals lie as far from normal with {fit.normality}."
    yield from (f"# {line}" for line in (_others(fit), _left_out(fit)) if line)
    yield "[cell]"
    for name in ("g_min", "g_max"):
        yield _line(name, getattr(fit.cell, name), f"{'smallest' if name == 'g_min' else 'largest'} target of {where}")
    if fit.endurance is not None:
        how = "cycle at which the window is half of the first one" if fit.endurance[1] else "last cycle; not worn out"
        yield _line("endurance", fit.endurance[0], f"{how}, in {where}")
    yield from ("", "[cell.write_noise]", f"kind = {json.dumps(fit.chosen.kind)}")
    noise = fit.cell.write_noise
    for name in ("gamma", "sigma", "g_ref", "targets", "std", "mean", "coefficients"):
        if name in type(noise).model_fields and getattr(noise, name) != ():
            yield _line(name, getattr(noise, name), f"{_how(fit, name)}fitted to {count}")
    if fit.drift is not None and fit.drift.kind:
        yield from ("", "[cell.drift]", f"kind = {json.dumps(fit.drift.kind)}")
        for name, value in fit.drift.values.items():
            error = fit.drift.errors.get(name, math.nan)
            plus = f"standard error {_number(error, name)}; " if math.isfinite(error) else ""
            yield _line(name, value, f"{plus}fitted to the measurements over time of {where}")


def _how(fit: CellFit, name: str) -> str:
    """The standard errors of a field of the write noise, in words."""
    errors = fit.chosen.errors.get(name)
    if errors is None:
        return ""
    scale = fit.scale if name in UNITS else 1.0
    values = errors if isinstance(errors, tuple) else (errors,)
    texts = [_number(scale * value, name) if math.isfinite(value) else "unknown" for value in values]
    return f"standard error {', '.join(texts)}; "


def _others(fit: CellFit) -> str:
    """How much worse the next best candidate is."""
    if len(fit.candidates) < 2:
        return ""
    second = next(each for each in fit.candidates if each is not fit.chosen)
    more = second.bic - fit.chosen.bic
    return f"Other candidate: {second.label}, information criterion {more:+.1f}, {second.count} parameters."


def _left_out(fit: CellFit) -> str:
    rows = "1 row has" if fit.left_out == 1 else f"{fit.left_out} rows have"
    return f"{rows} no target or no measured value." if fit.left_out else ""


def _line(name: str, value: Any, how: str) -> str:
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], tuple):
        value = value[0]  # a single list needs no outer brackets
    text = json.dumps(how, ensure_ascii=False)
    return f'{name} = {{ value = {_value(value, name)}, kind = "derived", how = {text} }}'


def _value(value: Any, name: str) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_value(item, name) for item in value)}]"
    if name not in UNITS:
        return "inf" if value == math.inf else f"{value:.10g}" if "." in f"{value:.10g}" else f"{float(value)!r}"
    unit = UNITS[name]
    factor, prefix = (1e6, "u") if unit == "S" else (1.0, "")
    return json.dumps(f"{factor * value:.10g} {prefix}{unit}")


def _number(value: float, name: str) -> str:
    return units.show(value, UNITS[name]) if name in UNITS else f"{value:.2g}"
