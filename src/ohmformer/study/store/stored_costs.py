"""Costs of points that are stored: each is computed once, and again when what decides it has changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.hardware.price_notes import arrays_of
from ohmformer.schema import load
from ohmformer.study.cost import price, table_name
from ohmformer.study.failures import EndsAll
from ohmformer.study.results.costs import CostResult
from ohmformer.study.results.key import (
    ANSWERING,
    PACKAGE,
    PRICING,
    Keys,
    PlainValues,
    as_json,
    code_digest,
    digest,
    digests_of,
    table_text,
    text_digest,
    versions,
)
from ohmformer.study.results.spec import Chosen
from ohmformer.study.spec import CostSettings, Study
from ohmformer.study.store.local_disk import network_file_system, one_driver
from ohmformer.study.store.store import Store, StoredPoint
from ohmformer.study.store.usable import why_empty
from ohmformer.terminal.console import tell
from ohmformer.terminal.files import make_folder
from ohmformer.terminal.signals import Stopped
from ohmformer.workload.shapes import Transformer
from ohmformer.workload.spec import Workload

CODE = (*ANSWERING, *PRICING, "units.py", "study/chips.py", "study/results/costs.py", "study/results/priced_choice.py")
"""The files whose code decides costs."""


COSTING = ("model", "hardware", "mitigation", "dataflow", "cost")
"""The sections that decide costs, beside rules and the products of the model."""


@contextmanager
def stored_prices(
    study: Study[CostSettings], folder: Path, *, fresh: bool = False, alone: bool = False
) -> Iterator[StoredPrices]:
    """A `Price` for the points of a study in their order, which reads and stores costs in the store of a folder.

    At the end, the store lists the points of the study with their costs. On a network file system, nothing is stored.

    Args:
        study: its points.
        folder: of results.sqlite; made if missing.
        fresh: True to compute stored costs again.
        alone: True if nothing was chosen for any point, so that all points are listed before the first is priced.

    Raises:
        BadInput: the store is damaged, or another run computes into the folder.
        Stopped: Ctrl-C was pressed, or a signal ended the process.
    """
    if network_file_system(folder):
        yield StoredPrices(None, folder, ExitStack(), fresh)
        return
    make_folder(folder)
    empty = why_empty(folder / "results.sqlite")
    with Store(folder / "results.sqlite") as store, ExitStack() as locks:
        if empty:
            tell(empty)
        prices = StoredPrices(store, folder, locks, fresh)
        if alone and (ahead := prices.keys_ahead(study)):
            store.note_points(study.name, _listed(study, store, ahead))
        try:
            yield prices
        except KeyboardInterrupt:
            total = len(study.points)
            raise Stopped(f"stopped: {prices.done} of {total} points stored; run again to go on") from None
        finally:
            if len(prices.keys) == len(study.points):
                store.note_points(study.name, _listed(study, store, prices.keys))


def _listed(study: Study[CostSettings], store: Store, costs: Sequence[str]) -> list[StoredPoint]:
    """The points of a study with their costs, and with the accuracies that the store lists for them."""
    points = [StoredPoint(study.name, point.set, point.label) for point in study.points]
    listed = [point for point in store.points() if point.study == study.name]
    if [point.name for point in listed] == [point.name for point in points]:
        points = listed
    return [replace(point, cost=cost) for point, cost in zip(points, costs, strict=True)]


class StoredPrices:
    """Prices points through a store.

    Attributes:
        keys: of the points so far, in their order; empty where nothing is stored.
        done: number of points that have a price so far.
        folder: where costs are stored; None where nothing is stored.
    """

    def __init__(self, store: Store | None, folder: Path, locks: ExitStack, fresh: bool) -> None:
        """Price points.

        Args:
            store: the store; None to store nothing.
            folder: its folder.
            locks: holds the lock of the folder from the first cost that is computed on.
            fresh: True to compute stored costs again.
        """
        self.keys: list[str] = []
        self.done = 0
        self.folder = None if store is None else folder
        self._ahead: list[Keys] = []
        self._store, self._folder, self._locks, self._fresh = store, folder, locks, fresh
        self._plain = PlainValues()
        self._locked = False

    def __call__(self, settings: CostSettings, chosen: Chosen | None) -> CostResult:
        """The cost of a point; see `ohmformer.study.cost.price`."""
        if self._store is None:
            return price(settings, chosen)
        keys = self._ahead[len(self.keys)] if self._ahead else cost_keys(settings, chosen, self._plain)
        self.keys.append(keys.key)
        found = None if self._fresh else self._store.cost(keys.key)
        if found is None:
            found = price(settings, chosen)
            if not self._store.readonly:
                self._keep(self._store, keys, found)
        self.done += 1
        return found

    def _keep(self, store: Store, keys: Keys, found: CostResult) -> None:
        """Store a cost.

        Raises:
            EndsAll: it cannot be stored, nor can those of further points.
        """
        try:
            if not self._locked:
                self._locks.enter_context(one_driver(self._folder))
                self._locked = True
            store.put_cost(keys, found)
        except BadInput as error:
            raise EndsAll(str(error)) from error

    def keys_ahead(self, study: Study[CostSettings]) -> list[str]:
        """The keys of all points of a study, for which nothing was chosen; empty if one of them has none."""
        try:
            self._ahead = [cost_keys(point.settings, None, self._plain) for point in study.points]
        except BadInput:  # which the point says when its turn comes
            self._ahead = []
        return [keys.key for keys in self._ahead]


def cost_keys(settings: CostSettings, chosen: Chosen | None, plain: PlainValues) -> Keys:
    """What names the cost of a point in the store. A real model is traced, since its products are part of the key.

    Args:
        settings: of the cost half.
        chosen: what calibration chose for K, V and weights.
        plain: values of the points of the same study so far.

    Raises:
        BadInput: the model or its table cannot be used.
    """
    asked = {
        "work": _work(settings, plain),
        "rules": plain.rules(settings),
        **{name: plain.whole(getattr(settings, name)) for name in COSTING},
        "endurance": as_json(_sources_of_endurance(settings, plain)),
        "chosen": as_json(None if chosen is None else chosen.model_dump(mode="json", by_alias=True)),
    }
    kinds = (settings.hardware, settings.rules, settings.mitigation, settings.dataflow)
    answering: dict[str, Any] = {
        "versions": {"ohmformer": versions()["ohmformer"]},
        "code": code_digest(PACKAGE, CODE),
        **digests_of(frozenset().union(*map(plain.outside, kinds))),
    }
    question = text_digest(table_text(asked))
    return Keys(key=digest(["cost", question, answering]), question=question, version=as_json(answering))


def _work(settings: CostSettings, plain: PlainValues) -> str:
    """What must be computed, as JSON: the table of dimensions, or the products of a real model."""
    name = table_name(settings)
    if name is not None:
        return plain.canonical(load(Transformer, name))
    from ohmformer.study.default_inputs import traced_steps

    works = traced_steps(settings.model, settings.task, settings.rules)
    return as_json([plain.once("work", work, partial(_digest_of, work)) for work in works])


def _digest_of(work: Workload) -> str:
    return digest(repr(work))


def _sources_of_endurance(settings: CostSettings, plain: PlainValues) -> list[str]:
    """Where endurances come from, which costs say."""
    arrays = [array for _, array in arrays_of(settings.hardware)]
    arrays += [rule.array for _, rule in settings.rules if rule.array is not None]
    return [plain.once("endurance", each.cell, partial(_source, each.cell)) for each in arrays]


def _source(cell: Cell) -> str:
    return repr(dict(cell.provenance).get("endurance"))
