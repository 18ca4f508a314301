"""Permission to run the code that a study names. Free of torch.

A study file can name a function of any installed module (`python:MODULE:FUNCTION`) as model or data. So a file from
somebody else can run any code, and the command line asks the user to allow each module.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ohmformer.errors import BadInput, shown
from ohmformer.study.spec import CostSettings, Settings, Whole
from ohmformer.workload.shapes import PREFIX

OPTION = "--allow-python"

_MODULE = r"\w[\w.-]*"
"""A dotted module name. No path, and nothing that a shell would run if a user copies the option from a message."""


def check_python(settings: Iterable[Settings | CostSettings | Whole], allowed: Collection[str], where: str) -> None:
    """Refuse studies that run code of modules that the user did not allow.

    Args:
        settings: settings of all points.
        allowed: allowed modules; each includes its submodules.
        where: beginning of the message, such as the file.

    Raises:
        BadInput: code of another module would run; the message names it and the option that allows it. Or a source
            has another form, or an allowed module is not the name of one.
    """
    wanted = dict.fromkeys(source for point in settings for source in _sources(point))
    for field, source in wanted:
        if not re.fullmatch(rf"python:{_MODULE}:\w[\w.]*", source):
            raise BadInput(f"{f'{where}: ' if where else ''}{field} = {shown(source)}: write python:MODULE:FUNCTION")
    for name in allowed:
        if not re.fullmatch(_MODULE, name):
            raise BadInput(f"{OPTION} {shown(name)}: is not the name of a module; write it without path and .py")
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
    """(field, source) of each function; none for a table of dimensions, which calls none."""
    if point.model.source.startswith(PREFIX):
        return []
    named = [("model.source", point.model.source)]
    if point.task is not None:
        named.append(("task.source", point.task.source))
    return [(field, source) for field, source in named if source.partition(":")[0] == "python"]


def _module(source: str) -> str:
    return source.split(":")[1]


def _is_allowed(module: str, allowed: Collection[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)
