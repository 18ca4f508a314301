"""Reads `[search]` of a study file. Free of torch and of Optuna.

Messages name the table, the key, its value and the remedy; the caller adds the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from ohmformer.errors import BadInput, cut, given, shown, suggest
from ohmformer.study.search.goals import check_goals
from ohmformer.study.search.proposals import MOST_TRIALS
from ohmformer.study.search.spec import Choice, Design, Listed, Range, Sampler, SearchTable, Space, Value, key_of
from ohmformer.study.sweep import SECTIONS, Document, flatten

TRIALS, BATCH = 100, 8
"""Number of trials and designs of a batch, if the file gives no others."""

MOST_BATCH, MOST_CHOICES, MOST_VALUES = 1024, 100, 1000

LARGEST = 1e18
"""Largest end of a range, and largest step."""

KEYS = ("trials", "objectives", "constraints", "choose", "first", "batch", "sampler", "seed")
CHOICE_KEYS = ("name", "path", "paths", "values", "options", "low", "high", "step", "log", "unit", "when")
RANGE_KEYS = ("low", "high", "step", "log", "unit")

MEASURING = {
    "task": "metrics of different data cannot be compared",
    "trials": "it says how well a design is measured, not what it is",
    "seed": "it says how a design is measured, not what it is",
    "simulation.level": "it says how a design is measured, not what it is",
    "simulation.kernels": "it says how a design is measured, not what it is",
    "simulation.batch": "it says how a design is measured, not what it is",
}
"""Path -> why no choice may set it or what is below it."""


def read_search(table: Any) -> SearchTable:
    """The search of a file.

    Args:
        table: what the file has under `search`; None if there is nothing.

    Raises:
        BadInput: it cannot be used.
    """
    if table is None:
        raise BadInput(
            "search: is missing; add a table [search] with objectives, and choices as [[search.choose]] "
            "(docs/search.md has an example)"
        )
    if not isinstance(table, dict):
        raise BadInput(f"search = {shown(table)}: is not a table; write [search]")
    _check_keys(table, KEYS, "search")
    space = Space(_choices(table.get("choose")))
    objectives, constraints = (_texts(table.get(name, []), f"search.{name}") for name in ("objectives", "constraints"))
    check_goals(objectives, constraints)
    sampler = table.get("sampler", "tpe")
    if sampler not in get_args(Sampler):
        raise BadInput(
            f"search.sampler = {shown(sampler)}: is not known; {suggest(str(sampler), [*get_args(Sampler)])}"
        )
    seed = table.get("seed")
    return SearchTable(
        trials=_whole(table.get("trials", TRIALS), "search.trials", 1, MOST_TRIALS),
        objectives=objectives,
        constraints=constraints,
        space=space,
        first=_first(table.get("first", []), space),
        batch=_whole(table.get("batch", BATCH), "search.batch", 1, MOST_BATCH),
        sampler=sampler,
        seed=None if seed is None else _whole(seed, "search.seed", 0, 2**63 - 1),
    )


def check_trials(value: Any, where: str) -> int:
    """A number of trials.

    Raises:
        BadInput: it is none.
    """
    return _whole(value, where, 1, MOST_TRIALS)


def _check_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise BadInput(f"{where}: unknown key {shown(key)}; {suggest(str(key), list(known))}")


def _whole(value: Any, where: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadInput(f"{where} = {shown(value)}: must be a whole number from {low:,} to {high:,}; correct it")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise BadInput(f"{where} = {shown(value)}: is not a list of texts; write it as ['area', 'energy']")
    return tuple(value)


def _choices(tables: Any) -> tuple[Choice, ...]:
    if tables is None or tables == []:
        raise BadInput("search.choose: is missing; add at least one choice as [[search.choose]] with path and values")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise BadInput(
            f"search.choose = {shown(tables)}: is not a list of tables; write [[search.choose]] for each choice"
        )
    if len(tables) > MOST_CHOICES:
        raise BadInput(f"search.choose: has {len(tables):,} choices; {MOST_CHOICES} at most, leave some out")
    choices: list[Choice] = []
    for number, table in enumerate(tables, start=1):
        choices.append(_choice(table, f"search.choose {number}", choices))
    return tuple(choices)


def _choice(table: Document, where: str, before: Sequence[Choice]) -> Choice:
    _check_keys(table, CHOICE_KEYS, where)
    name = table.get("name", table.get("path", (table.get("paths") or [""])[0] if _is_list(table.get("paths")) else ""))
    if not isinstance(name, str) or not name.strip():
        raise BadInput(f"{where}: has no name; add name = 'placement', or a path")
    where = f"{where} ({cut(name)})"
    if name in {choice.name for choice in before}:
        raise BadInput(f"{where}.name: two choices have this name; rename one of them")
    kinds = [key for key in ("values", "options", "low") if key in table]
    if len(kinds) != 1:
        listed = " and ".join(kinds) or "no values"
        raise BadInput(f"{where}: has {listed}; give one of: values = [...], options.NAME = {{...}}, or low and high")
    if kinds != ["low"] and (extra := next((key for key in RANGE_KEYS if key in table), "")):
        raise BadInput(f"{where}.{extra}: is for a range of numbers from low to high; leave it out")
    when = _conditions(table.get("when", {}), where, before)
    if kinds == ["options"]:
        return Choice(name, where, _options(table, where), when)
    paths = _paths(table, where)
    domain = _range(table, paths, where) if kinds == ["low"] else _listed(table["values"], paths, where)
    return Choice(name, where, domain, when)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _paths(table: Document, where: str) -> tuple[str, ...]:
    """The paths that move together."""
    if ("path" in table) == ("paths" in table):
        both = "path and paths" if "path" in table else "no path"
        raise BadInput(
            f"{where}: has {both}; give path = '...', or paths = ['...', '...'] for paths that move together"
        )
    paths = [table["path"]] if "path" in table else table["paths"]
    if not _is_list(paths):
        raise BadInput(f"{where}.paths = {shown(paths)}: is not a list of paths; write ['hardware...', 'hardware...']")
    for path in paths:
        _check_path(path, where)
    if len(set(paths)) < len(paths):
        raise BadInput(f"{where}.paths = {shown(paths)}: names a path twice; leave one out")
    return tuple(paths)


def _check_path(path: Any, where: str) -> None:
    if not isinstance(path, str):
        raise BadInput(f"{where}: {shown(path)} is not a path of a study; put it in quotes")
    section = path.split(".")[0]
    if section not in SECTIONS:
        raise BadInput(f"{where}: {shown(path)} begins with no section of a study; {suggest(section, SECTIONS)}")
    if reason := next((MEASURING[key] for key in MEASURING if f"{path}.".startswith(f"{key}.")), ""):
        raise BadInput(f"{where}: {shown(path)} cannot be chosen, since {reason}; leave it out")


def _listed(values: Any, paths: tuple[str, ...], where: str) -> Listed:
    if not _is_list(values):
        raise BadInput(f"{where}.values = {shown(values)}: is not a list of values; write [64, 128]")
    names = tuple(_as_value(value) for value in values)
    _check_values(names, f"{where}.values")
    return Listed(names, tuple(tuple((path, value) for path in paths) for value in values))


def _as_value(value: Any) -> Value:
    """A value as a design holds it: tables and lists as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float)) else json.dumps(value, default=str)


def _check_values(names: Sequence[Value], where: str) -> None:
    if len(names) > MOST_VALUES:
        raise BadInput(f"{where}: has {len(names):,} values; {MOST_VALUES:,} at most, leave some out")
    keys = [key_of(name) for name in names]
    if twice := next((name for name, key in zip(names, keys, strict=True) if keys.count(key) > 1), None):
        raise BadInput(f"{where}: has {shown(twice)} twice; leave one out")


def _options(table: Document, where: str) -> Listed:
    """The options of a choice, each of which sets several paths."""
    if extra := next((key for key in ("path", "paths") if key in table), ""):
        raise BadInput(f"{where}.{extra}: stands beside options, which name their paths; leave it out")
    options = table["options"]
    if not isinstance(options, dict) or not options:
        raise BadInput(f"{where}.options = {shown(options)}: is not a table; write options.NAME = {{ 'PATH' = VALUE }}")
    _check_values(tuple(options), f"{where}.options")
    return Listed(tuple(options), tuple(_option(name, entry, where) for name, entry in options.items()))


def _option(name: str, entry: Any, where: str) -> tuple[tuple[str, Any], ...]:
    place = f"{where}.options.{cut(name)}"
    if not isinstance(entry, dict):
        raise BadInput(
            f"{place} = {shown(entry)}: is not a table; write {{ 'PATH' = VALUE }}, or {{}} to change nothing"
        )
    changes: list[tuple[str, Any]] = []
    for key, value in entry.items():
        # a key with dots is a path, and what it holds is one value; any other key is the table of a section
        changes += [(key, value)] if "." in key or not isinstance(value, dict) else flatten(value, f"{key}.")
    for path, _ in changes:
        _check_path(path, place)
    return tuple(changes)


def _range(table: Document, paths: tuple[str, ...], where: str) -> Range:
    low, high, step = (_number(table.get(key), f"{where}.{key}", key != "step") for key in ("low", "high", "step"))
    log, unit = table.get("log", False), table.get("unit", "")
    if not isinstance(log, bool):
        raise BadInput(f"{where}.log = {shown(log)}: must be true or false; correct it")
    if not isinstance(unit, str):
        raise BadInput(f"{where}.unit = {shown(unit)}: is not text; write it as 'ns'")
    assert low is not None
    assert high is not None
    if low >= high:
        raise BadInput(f"{where}.low = {low:g}: must be below high = {high:g}; correct one of them")
    whole = all(isinstance(each, int) for each in (low, high, 1 if step is None else step))
    if step is not None and (step <= 0 or step > high - low):
        raise BadInput(f"{where}.step = {step:g}: must be above 0 and at most high - low; correct it")
    if log and low <= 0:
        raise BadInput(f"{where}.low = {low:g}: must be above 0 where log = true; raise it")
    if log and step is not None:
        raise BadInput(f"{where}.step = {step:g}: has no effect where log = true; leave one of them out")
    if step is None and whole:
        step = 1
    return Range(paths, low, high, step, log, unit, whole)


def _number(value: Any, where: str, needed: bool) -> int | float | None:
    if value is None and not needed:
        return None
    if value is None:
        raise BadInput(f"{where}: is missing; a range has low and high")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(f"{where} = {shown(value)}: must be a number; write its unit as unit = 'ns'")
    if not abs(value) <= LARGEST:
        raise BadInput(f"{where} = {shown(value)}: must be a finite number, of at most 1e18; correct it")
    return value


def _conditions(table: Any, where: str, before: Sequence[Choice]) -> dict[str, tuple[Value, ...]]:
    """The values of earlier choices with which a choice is active."""
    if not isinstance(table, dict):
        raise BadInput(f"{where}.when = {shown(table)}: is not a table; write when = {{ placement = ['mixed'] }}")
    conditions: dict[str, tuple[Value, ...]] = {}
    for name, wanted in table.items():
        earlier = next((choice for choice in before if choice.name == name), None)
        if earlier is None:
            known = [choice.name for choice in before]
            remedy = suggest(name, known) if known else "no choice stands before this one"
            raise BadInput(f"{where}.when: no choice before this one is called {shown(name)}; {remedy}")
        values = tuple(_as_value(each) for each in (wanted if isinstance(wanted, list) else [wanted]))
        if not values:
            raise BadInput(f"{where}.when.{cut(name)} = []: is empty, so that the choice is never made; add a value")
        for value in values:
            check_value(earlier, value, f"{where}.when.{cut(name)}")
        conditions[name] = values
    return conditions


def check_value(choice: Choice, value: Any, where: str) -> None:
    """Refuse a value that a choice does not have.

    Raises:
        BadInput: it has no such value.
    """
    domain = choice.domain
    if isinstance(domain, Range):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not domain.low <= value <= domain.high:
            raise BadInput(
                f"{where} = {shown(value)}: must be a number from {domain.low:g} to {domain.high:g}; correct it"
            )
        if domain.step is not None and not any(value == each for each in domain.each()):
            raise BadInput(
                f"{where} = {shown(value)}: is none of the steps of {domain.step:g} from {domain.low:g}; correct it"
            )
    elif key_of(_as_value(value)) not in map(key_of, domain.values):
        raise BadInput(
            f"{where} = {shown(value)}: is no value of {cut(choice.name)}; "
            f"{suggest(str(value), [*map(str, domain.values)])}"
        )


def _first(tables: Any, space: Space) -> tuple[Design, ...]:
    """The designs that are tried before all others, each once."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise BadInput(
            f"search.first = {given(tables)}: is not a list of tables; write [[search.first]] for each design"
        )
    designs: dict[Design, None] = {}
    for number, table in enumerate(tables, start=1):
        where = f"search.first {number}"
        _check_keys(table, [choice.name for choice in space.choices], where)
        design = space.design(lambda choice, table=table, where=where: _given(choice, table, where))  # type: ignore[misc]
        if surplus := next((name for name in table if name not in dict(design)), ""):
            raise BadInput(f"{where}.{cut(surplus)}: this choice is not made here (see its `when`); leave it out")
        designs[design] = None
    return tuple(designs)


def _given(choice: Choice, table: Document, where: str) -> Value:
    if choice.name not in table:
        raise BadInput(f"{where}.{cut(choice.name)}: is missing; name a value for every choice of the design")
    value = _as_value(table[choice.name])
    check_value(choice, value, f"{where}.{cut(choice.name)}")
    if isinstance(choice.domain, Range) and not choice.domain.whole:
        return float(value)
    return value
