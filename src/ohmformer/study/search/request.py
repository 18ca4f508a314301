"""Reads the study of a search, and checks every value of every choice before the first design is tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from ohmformer.errors import BadInput, check_type, cut, shown
from ohmformer.study.overwriting import overwrites, overwritten
from ohmformer.study.read_study import locate_study, read_document, whole_settings
from ohmformer.study.search.goals import needs_accuracy
from ohmformer.study.search.read_search import check_trials, read_search
from ohmformer.study.search.spec import Choice, Design, Range, SearchTable, Space, Value, same
from ohmformer.study.spec import Whole
from ohmformer.study.sweep import Document, opened, parse_sets, put

TRIES = 16
"""Designs with a value that are tried before the value is refused."""


@dataclass(frozen=True)
class Request:
    """A search that a user asks for, checked as far as that needs no model.

    Attributes:
        name: name of the study.
        where: its file, for messages.
        document: the study without its name and its search.
        folder: the folder of the file.
        table: the search.
        seed: seed of the proposals.
        checked: settings of designs in which every value of every choice occurs.
    """

    name: str
    where: str
    document: Document
    folder: Path
    table: SearchTable
    seed: int = 0
    checked: tuple[Whole, ...] = ()

    def settings_of(self, design: Design) -> tuple[dict[str, Any], Whole]:
        """What a design sets, by path, and all its settings.

        Raises:
            BadInput: the settings do not fit together.
        """
        changes = self.table.space.changes(design)
        document = self.document
        for path, value in changes.items():
            document = put(document, path, value)
        return changes, whole_settings(document, self.folder)


def read_request(study: str | Mapping[str, Any], sets: Sequence[str] = (), *, trials: Any = None) -> Request:
    """The search of a study.

    Args:
        study: name or file of the study, or its content.
        sets: changes 'PATH=VALUE' of the study.
        trials: number of designs, in place of that of the study; None for that.

    Raises:
        BadInput: one line with the file, the key, its value and the remedy.
    """
    for change in sets:
        check_type("search", "sets", change, str, "changes such as ['trials.chips=3']")
    if isinstance(study, Mapping):
        return request_of(dict(study), sets, trials=trials)
    file = locate_study(study)
    return request_of(read_document(file), sets, where=str(file), folder=file.parent, trials=trials)


def request_of(
    document: Document,
    sets: Sequence[str] = (),
    *,
    where: str = "study",
    folder: Path | None = None,
    trials: Any = None,
) -> Request:
    """The search of a document; see `read_request`.

    Args:
        document: the content of a study.
        sets: changes 'PATH=VALUE' of the study.
        where: names it in messages.
        folder: where files of hardware are looked up first.
        trials: number of designs, in place of that of the study; None for that.

    Raises:
        BadInput: one line with `where`, the key, its value and the remedy.
    """
    try:
        return _checked(where, document, folder or Path(), sets, trials)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error.__cause__


def _checked(where: str, document: Document, folder: Path, sets: Sequence[str], trials: Any) -> Request:
    content = document.get("search")
    name, _ = opened(dict(document))
    plain = {key: value for key, value in document.items() if key not in ("name", "search")}
    table = read_search(content)
    if trials is not None:
        table = replace(table, trials=check_trials(trials, "trials"))
    _check_paths(table.space)
    for path, value in parse_sets(sets):
        _check_free(path, table.space)
        plain = put(plain, path, value)
    request = Request(name, where, plain, folder, table)
    checked = tuple(_valid_designs(request))
    seed = checked[0].seed if table.seed is None else table.seed
    if needs_accuracy(table.objectives, table.constraints):
        checked[0].accuracy()
    return replace(request, checked=checked, seed=seed)


def _check_paths(space: Space) -> None:
    """Refuse choices of which one overwrites another that is made together with it."""
    for number, choice in enumerate(space.choices):
        for earlier in space.choices[:number]:
            if _exclude(choice, earlier):
                continue
            for mine in _paths(choice):
                if clash := next((other for other in _paths(earlier) if overwrites(mine, other)), ""):
                    raise BadInput(
                        f"{choice.where}: sets {cut(mine)}, which overwrites {cut(clash)} of {earlier.where}; make one "
                        "choice of them, or keep them apart with `when`"
                    )
        for changes in _value_sets(choice):
            if fault := overwritten([path for path, _ in changes]):
                raise BadInput(
                    f"{choice.where}: {cut(fault[0])} is overwritten by {cut(fault[1])}; leave one of them out"
                )


def _exclude(choice: Choice, earlier: Choice) -> bool:
    """True if two choices are never made together, by their conditions on a third one."""
    shared = choice.when.keys() & earlier.when.keys()
    return any(
        not {repr(each) for each in choice.when[name]} & {repr(each) for each in earlier.when[name]} for name in shared
    )


def _value_sets(choice: Choice) -> Iterator[tuple[tuple[str, Any], ...]]:
    domain = choice.domain
    yield from [domain.changes(domain.low)] if isinstance(domain, Range) else domain.sets


def _paths(choice: Choice) -> list[str]:
    return list(dict.fromkeys(path for changes in _value_sets(choice) for path, _ in changes))


def _check_free(path: str, space: Space) -> None:
    """Refuse --set for a path that a choice sets."""
    for choice in space.choices:
        for chosen in _paths(choice):
            if overwrites(chosen, path):
                raise BadInput(
                    f"--set {cut(path)}: {choice.where} sets {cut(chosen)}, so it has no effect; leave it out"
                )


def _valid_designs(request: Request) -> Iterator[Whole]:
    """Settings of valid designs in which every listed value, and both ends of every range, occur.

    Raises:
        BadInput: none of the designs with a value is valid.
    """
    space, tried = request.table.space, dict[str, Whole | BadInput]()
    for choice in space.choices:
        domain = choice.domain
        for value in (domain.low, domain.high) if isinstance(domain, Range) else domain.values:
            yield _valid_design(request, choice, value, tried)


def _valid_design(request: Request, choice: Choice, value: Value, tried: dict[str, Whole | BadInput]) -> Whole:
    """Settings of a valid design with this value."""
    first: BadInput | None = None
    for design in _designs_with(request.table.space, choice, value):
        if (key := same(design)) not in tried:
            try:
                tried[key] = request.settings_of(design)[1]
            except BadInput as error:
                tried[key] = error
        found = tried[key]
        if not isinstance(found, BadInput):
            return found
        first = first or found
    raise BadInput(f"{choice.where} = {shown(value)}: {first}") from first


def _designs_with(space: Space, choice: Choice, value: Value) -> Iterator[Design]:
    """Designs in which a choice has a value: first that with the first values of all others, then random ones."""
    needed: dict[str, Value] = {choice.name: value}
    by_name = {each.name: each for each in space.choices}
    waiting = [choice]
    while waiting:
        for name, values in waiting.pop().when.items():
            needed.setdefault(name, values[0])
            waiting.append(by_name[name])
    yield space.design(lambda each: needed.get(each.name, next(_ends(each))))
    random = Random(0)
    for _ in range(TRIES - 1):
        yield space.design(lambda each: needed.get(each.name, random.choice(list(_ends(each)))))


def _ends(choice: Choice) -> Iterator[Value]:
    """The listed values of a choice, or both ends of its range."""
    domain = choice.domain
    yield from (domain.low, domain.high) if isinstance(domain, Range) else domain.values
