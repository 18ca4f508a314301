"""Evaluates what searches ask for, several searches at once, through the store of the study.

Every evaluated point is stored under the key of its settings. A search that was stopped asks for the same points again
and finds them there.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ohmformer.study.evaluate_point import evaluate_point
from ohmformer.study.requirements.loss import LossBound, loss_of
from ohmformer.study.results.requirements import MeasuredLoss
from ohmformer.study.results.spec import Accuracy
from ohmformer.study.run import Evaluate, run_study
from ohmformer.study.spec import Point, Settings, Study
from ohmformer.terminal.progress import bar
from ohmformer.terminal.signals import Stopped

K = TypeVar("K")
R = TypeVar("R")


class Asked(NamedTuple):
    """A point that a search asks for: what is set, for messages, and the settings."""

    set: dict[str, Any]
    settings: Settings


Search = Generator[Asked, MeasuredLoss, R]
"""Yields points, is sent the loss of each, and returns what it found."""


@dataclass
class Evaluations:
    """Measures the losses of points, each once.

    Attributes:
        name: name of the study.
        where: its file, for messages.
        software: the metric of the software model.
        bound: the loss of the user, for messages.
        folder: of the store.
        workers: number of processes.
        fresh: True to compute points anew that are stored.
        progress: True to show each loss and a progress bar on standard error.
        evaluate: function from settings to result.
        known: settings -> loss, for all points so far.
    """

    name: str
    where: str
    software: Accuracy
    bound: LossBound
    folder: Path
    workers: int = 1
    fresh: bool = False
    progress: bool = True
    evaluate: Evaluate = evaluate_point
    known: dict[Settings, MeasuredLoss] = field(default_factory=dict)

    def losses(self, asked: Sequence[Asked]) -> list[MeasuredLoss]:
        """The losses of points, in order.

        Raises:
            BadInput: a point fails, or has too few chips or samples.
            Stopped: Ctrl-C was pressed, or a signal ended the process.
        """
        new = {each.settings: each for each in asked if each.settings not in self.known}
        if new:
            points = tuple(Point(each.set, "", each.settings) for each in new.values())
            study = Study(self.name, points, self.where)
            options: dict[str, Any] = {"fresh": self.fresh, "progress": self.progress, "evaluate": self.evaluate}
            try:
                results = run_study(study, self.folder, workers=min(self.workers, len(points)), **options)
            except Stopped:
                raise Stopped(f"stopped: {len(self.known)} points are evaluated; run again to go on") from None
            for point, result in zip(points, results, strict=True):
                loss = self.known[point.settings] = loss_of(result.accuracy, self.software)
                self._tell(point, loss)
        return [self.known[each.settings] for each in asked]

    def _tell(self, point: Point[Settings], loss: MeasuredLoss) -> None:
        with bar("points", 1, show=self.progress) as display:
            what = ", ".join(f"{name} = {value}" for name, value in point.set.items())
            display.say(f"{what}: loss {self.bound.text(loss)}")

    def of(self, asked: Asked) -> MeasuredLoss:
        """The loss of one point."""
        return self.losses([asked])[0]

    def run(self, searches: Mapping[K, Search[R]]) -> dict[K, R]:
        """Run searches together: in each round, the points that all of them ask for are evaluated at once.

        Returns:
            What each search found.
        """
        found: dict[K, R] = {}
        answers: dict[K, MeasuredLoss | None] = dict.fromkeys(searches)
        while answers:
            asked: dict[K, Asked] = {}
            for key, answer in answers.items():
                try:
                    asked[key] = next(searches[key]) if answer is None else searches[key].send(answer)
                except StopIteration as stop:
                    found[key] = stop.value
            answers = dict(zip(asked, self.losses(list(asked.values())), strict=True))
        return {key: found[key] for key in searches}
