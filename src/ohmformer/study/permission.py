"""Whose code a study may run. Free of torch.

A study file can name a function of any installed module (`python:MODULE:FUNCTION`), as model or as data. Whoever got
the file from somebody else runs code of his choice with it, so the command line asks for each module.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ohmformer.errors import BadInput, shown
from ohmformer.study.spec import CostSettings, Settings, Whole
from ohmformer.workload.shapes import PREFIX

OPTION = "--allow-python"


def check_python(settings: Iterable[Settings | CostSettings | Whole], allowed: Collection[str], where: str) -> None:
    """Refuse studies that run code of modules that nobody allowed.

    Args:
        settings: of all points.
        allowed: modules; one stands for those below it as well.
        where: how the message begins, such as the file.

    Raises:
        BadInput: it says what would run, and how to allow it.
    """
    wanted = dict.fromkeys(source for point in settings for source in _sources(point))
    refused = [(field, source) for field, source in wanted if not _is_allowed(_module(source), allowed)]
    if not refused:
        return
    field, source = refused[0]
    more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    options = " ".join(dict.fromkeys(f"{OPTION} {_module(other)}" for _, other in refused))
    place = f"{where}: " if where else ""
    raise BadInput(
        f"{place}{field} = {shown(source)}{more}: would run code of the module {shown(_module(source))} on this "
        f"machine; if you trust it, add {options}"
    )


def _sources(point: Settings | CostSettings | Whole) -> list[tuple[str, str]]:
    """Fields and sources that are functions; nothing is called for a table of dimensions."""
    if point.model.source.startswith(PREFIX):
        return []
    named = [("model.source", point.model.source)]
    if point.task is not None:
        named.append(("task.source", point.task.source))
    return [(field, source) for field, source in named if source.partition(":")[0] == "python" and _module(source)]


def _module(source: str) -> str:
    return source.split(":")[1]


def _is_allowed(module: str, allowed: Collection[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)
