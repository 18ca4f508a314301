"""Evaluates what searches ask for, several searches at once, through the store of the study.

Every evaluated point is stored under the key of its settings. A search that was stopped asks for the same points again
and finds them there.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ohmformer.errors import BadInput
from ohmformer.study.executors.spec import Workers
from ohmformer.study.pricing.evaluate import evaluate_with_cost_half
from ohmformer.study.requirements.conditions import as_run
from ohmformer.study.requirements.loss import LossBound, loss_of
from ohmformer.study.results.requirements import MeasuredLoss
from ohmformer.study.results.spec import Accuracy
from ohmformer.study.run import Evaluate, run_study
from ohmformer.study.spec import Point, Settings, Study, Whole
from ohmformer.terminal.progress import bar
from ohmformer.terminal.signals import Stopped

K = TypeVar("K")
R = TypeVar("R")


class Asked(NamedTuple):
    """A point that a search asks for: what is set, for messages, and all settings as a file states them."""

    set: dict[str, Any]
    whole: Whole

    @property
    def settings(self) -> Settings:
        """The settings that are evaluated, as `ohmformer run` evaluates a file with this content.

        Raises:
            BadInput: the point is refused.
        """
        return as_run(self.whole)

    def __str__(self) -> str:
        return ", ".join(f"{name} = {value}" for name, value in self.set.items())


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
        workers: number of processes, or workers of `study.executors`.
        fresh: True to compute points anew that are stored.
        progress: True to show each loss and a progress bar on standard error.
        evaluate: function from settings to result.
        known: point -> loss, for all points so far.
    """

    name: str
    where: str
    software: Accuracy
    bound: LossBound
    folder: Path
    workers: int | Workers = 1
    fresh: bool = False
    progress: bool = True
    evaluate: Evaluate = evaluate_with_cost_half
    known: dict[Whole, MeasuredLoss] = field(default_factory=dict)

    def losses(self, asked: Sequence[Asked]) -> list[MeasuredLoss]:
        """The losses of points, in order.

        Raises:
            BadInput: a point fails, or has too few chips or samples.
            Stopped: Ctrl-C was pressed, or a signal ended the process.
        """
        new = {each.whole: each for each in asked if each.whole not in self.known}
        if new:
            points = tuple(Point(each.set, "", self._settings(each)) for each in new.values())
            study = Study(self.name, points, self.where)
            options: dict[str, Any] = {
                "fresh": self.fresh,
                "further": True,
                "progress": self.progress,
                "evaluate": self.evaluate,
            }
            try:
                results = run_study(study, self.folder, workers=self.workers, **options)
            except Stopped:
                raise Stopped(f"stopped: {len(self.known)} points are evaluated; run again to go on") from None
            for each, result in zip(new.values(), results, strict=True):
                loss = self.known[each.whole] = loss_of(result.accuracy, self.software)
                self._tell(each, loss)
        return [self.known[each.whole] for each in asked]

    def _settings(self, asked: Asked) -> Settings:
        try:
            return asked.settings
        except BadInput as error:
            raise BadInput(f"{self.where}: {error} (at {asked})") from error

    def _tell(self, asked: Asked, loss: MeasuredLoss) -> None:
        with bar("points", 1, show=self.progress) as display:
            display.say(f"{asked}: loss {self.bound.text(loss)}")

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
