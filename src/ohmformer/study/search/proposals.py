"""Designs that Optuna proposes, kept in a journal file. Optuna is imported here, and only when a search runs.

The file holds one Optuna study for each search, under the key of the search. A proposal depends on the seed, on its
place and on the results so far, and on nothing else. So a search that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from ohmformer.errors import BadInput
from ohmformer.study.search.spec import Choice, Design, Listed, Sampler, Space, Value, key_of, same

REPEATS = 10
"""Proposals of known designs after which a new design is drawn at random."""

DRAWS = 1000
"""Random draws after which a new design is looked for among all."""

MOST_TRIALS = 100_000
"""Maximum number of designs that a search tries."""

BATCH, OUTCOME, AGAIN, VIOLATIONS = "batch", "outcome", "again", "violations"
"""User attributes of trials: the number of the batch; what became of the design; the number of the interrupted trial
that this one takes the place of; violations of constraints."""


def check_optuna() -> None:
    """Refuse to search without Optuna.

    Raises:
        BadInput: it is not installed, or too old.
    """
    try:
        import optuna
    except ImportError as error:
        raise BadInput(f"search: needs Optuna ({error}); install it: pip install 'ohmformer[search]'") from None
    if int(optuna.__version__.split(".")[0]) < 4:
        raise BadInput(f"search: needs Optuna 4 or newer, not {optuna.__version__}; pip install 'ohmformer[search]'")


class Asked:
    """A design that waits for its results.

    Attributes:
        design: the design.
        trial: Optuna's trial.
    """

    def __init__(self, design: Design, trial: Any) -> None:
        self.design, self.trial = design, trial


class Proposals:
    """Proposes designs and learns from their results.

    Attributes:
        done: the designs with results, in their order, each with what was kept of it.
    """

    def __init__(
        self, file: Path, key: str, space: Space, *, directions: int, sampler: Sampler, seed: int, fresh: bool = False
    ) -> None:
        """Open the file, or make it, and mend what a killed search left behind.

        Args:
            file: the journal.
            key: name of the Optuna study.
            space: all designs.
            directions: number of objectives; all are minimized.
            sampler: how designs are proposed.
            seed: of the proposals.
            fresh: True to forget what is known of this search.

        Raises:
            BadInput: the file cannot be used, or another search uses it.
        """
        import optuna

        from ohmformer.study.search.journal import Journal

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.file, self.space, self.sampler, self.seed = file, space, sampler, seed
        self.journal = Journal(file)
        try:
            self._open(key, directions, fresh)
        except BaseException:
            self.journal.close()
            raise
        self._known = {same(design) for design, _ in self.done}
        self._size = space.size(MOST_TRIALS)

    def _open(self, key: str, directions: int, fresh: bool) -> None:
        """Open the Optuna study of the search, and read what is done.

        Raises:
            BadInput: the file cannot be used.
        """
        import optuna

        with self._in_one_line():
            self._storage = optuna.storages.JournalStorage(self.journal.backend)
            if fresh and key in {each.study_name for each in optuna.get_all_study_summaries(self._storage)}:
                optuna.delete_study(study_name=key, storage=self._storage)
            self._study = optuna.create_study(
                study_name=key, storage=self._storage, directions=["minimize"] * directions, load_if_exists=True
            )
            self._mend()
            self.done = [
                (self._design(each.params), dict(each.user_attrs[OUTCOME])) for each in self._in_state("COMPLETE")
            ]
            self._next = self._resumed_batch()

    def close(self) -> None:
        """Let go of the file."""
        self.journal.close()

    def batch(self, size: int, most: int, first: Sequence[Design]) -> list[Asked]:
        """The next designs; none if all designs are known.

        Args:
            size: number of designs.
            most: number of designs after which the search ends.
            first: designs that come before all others.

        Raises:
            BadInput: the file cannot be written.
        """
        if self.journal.readonly:
            raise BadInput(
                f"{self.file}: may only be read, and {most - len(self.done)} of {most} designs are missing; choose "
                "another folder with --out"
            )
        asked: list[Asked] = []
        closed = any(each.user_attrs.get(BATCH) == self._next for each in self._in_state("COMPLETE"))
        with self._in_one_line():
            while len(asked) < min(size, most - len(self.done)):
                if closed and not self._in_state("WAITING"):
                    break  # a search was killed while it kept the results of this batch
                one = self._ask(first)
                if one is None:
                    break
                asked.append(one)
            self.journal.sync()
        return asked

    def tell(self, asked: Asked, objectives: Sequence[float], violations: Sequence[float], outcome: Any) -> None:
        """Keep the results of a design.

        Args:
            asked: the design.
            objectives: of which lower ones are better.
            violations: above 0 for a constraint that is violated.
            outcome: what is kept beside them, as plain JSON values.
        """
        with self._in_one_line():
            asked.trial.set_user_attr(OUTCOME, outcome)
            asked.trial.set_user_attr(VIOLATIONS, list(violations))
            if hasattr(asked.trial, "set_constraint"):
                for number, value in enumerate(violations):
                    asked.trial.set_constraint(str(number), value)
            self._study.tell(asked.trial, list(objectives))
        self.done.append((asked.design, outcome))

    def end_batch(self) -> None:
        """All results of the batch are kept."""
        self._next += 1
        with self._in_one_line():
            self.journal.sync()

    def exhausted(self) -> bool:
        """True if all designs are known."""
        return len(self.done) >= self._size

    def _in_state(self, *names: str) -> list[Any]:
        from optuna.trial import TrialState

        return self._study.get_trials(deepcopy=False, states=tuple(TrialState[name] for name in names))

    def _mend(self) -> None:
        """Put designs whose results a killed search did not keep in line again."""
        from optuna.trial import TrialState

        replaced = {each.user_attrs.get(AGAIN) for each in self._in_state("WAITING")}
        for each in self._in_state("RUNNING"):
            if BATCH in each.user_attrs and each.number not in replaced:
                attributes = {BATCH: each.user_attrs[BATCH], AGAIN: each.number}
                self._study.enqueue_trial(each.params, user_attrs=attributes)
            self._study.tell(each.number, state=TrialState.FAIL)

    def _resumed_batch(self) -> int:
        """Number of the batch that is next: that of interrupted designs, or the one after all that are done."""
        waiting = [int(each.user_attrs[BATCH]) for each in self._in_state("WAITING") if BATCH in each.user_attrs]
        done = [int(each.user_attrs[BATCH]) for each in self._in_state("COMPLETE")]
        return waiting[0] if waiting else max(done, default=-1) + 1

    def _ask(self, first: Sequence[Design]) -> Asked | None:
        """The next design; None if all designs are known."""
        from optuna.trial import TrialState

        place = len(self._known)
        if place >= self._size:
            return None
        if place < len(first) and not self._in_state("WAITING") and same(first[place]) not in self._known:
            self._study.enqueue_trial(dict(first[place]))
        for attempt in range(REPEATS + 1):
            if attempt == REPEATS:
                self._study.enqueue_trial(dict(self._unknown(Random(_number(self.seed, place, "draw")))))
            self._study.sampler = _sampler(self.sampler, _number(self.seed, place, attempt))
            trial = self._study.ask()
            design = self.space.design(_suggested(trial))
            if same(design) not in self._known:
                break
            self._study.tell(trial, state=TrialState.FAIL)
        self._known.add(same(design))
        trial.set_user_attr(BATCH, self._next)
        return Asked(design, trial)

    def _unknown(self, random: Random) -> Design:
        """A random design that is not known yet; there is one."""
        for _ in range(DRAWS):
            design = self.space.design(lambda choice: _drawn(choice, random))
            if same(design) not in self._known:
                return design
        return random.choice([each for each in self.space.each() if same(each) not in self._known])

    def _design(self, parameters: dict[str, Any]) -> Design:
        return self.space.design(lambda choice: parameters[choice.name])

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """Raise what a damaged or unwritable file leads to as `BadInput`."""
        import optuna

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna marks parts of its interface as experimental
                yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise BadInput(
                f"{self.file}: cannot hold the trials ({reason}); make room, or choose another --out"
            ) from error
        except (ValueError, KeyError, TypeError, AssertionError, optuna.exceptions.OptunaError) as error:
            raise BadInput(
                f"{self.file}: is damaged or was not written by this program ({type(error).__name__}: {error}); move "
                "it away and search again, measured accuracies stay stored"
            ) from error


def _number(*parts: Any) -> int:
    """A seed of 32 bits from its parts."""
    return int.from_bytes(sha256(json.dumps(parts).encode()).digest()[:4], "big")


def _sampler(name: Sampler, seed: int) -> Any:
    """A sampler whose random numbers start at a seed."""
    from optuna import samplers, trial

    if name == "random":
        return samplers.RandomSampler(seed=seed)
    options: dict[str, Any] = {} if hasattr(trial.Trial, "set_constraint") else {"constraints_func": _violations}
    if name == "nsga2":
        return samplers.NSGAIISampler(seed=seed, **options)
    return samplers.TPESampler(seed=seed, constant_liar=True, **options)


def _violations(trial: Any) -> tuple[float, ...]:
    """The violations of a trial, for versions of Optuna that ask for them."""
    return tuple(trial.user_attrs.get(VIOLATIONS, ()))


def _suggested(trial: Any) -> Callable[[Choice], Value]:
    """What a trial proposes for a choice."""

    def pick(choice: Choice) -> Value:
        domain = choice.domain
        if isinstance(domain, Listed):
            return _exact(domain, trial.suggest_categorical(choice.name, domain.values))
        if domain.whole:
            step = {} if domain.log else {"step": int(domain.step or 1)}
            return int(trial.suggest_int(choice.name, int(domain.low), int(domain.high), log=domain.log, **step))
        return float(trial.suggest_float(choice.name, domain.low, domain.high, step=domain.step, log=domain.log))

    return pick


def _exact(domain: Listed, value: Any) -> Value:
    """A listed value as the file has it: a journal may hold it as another type of number."""
    return next((each for each in domain.values if key_of(each) == key_of(value)), value)


def _drawn(choice: Choice, random: Random) -> Value:
    """A random value of a choice."""
    domain = choice.domain
    if isinstance(domain, Listed):
        return random.choice(domain.values)
    if domain.step is not None and domain.size <= DRAWS:
        return random.choice(list(domain.each()))
    value = random.uniform(domain.low, domain.high)
    if domain.step is None:
        return value
    steps = round((value - domain.low) / domain.step)
    return int(domain.low + steps * domain.step) if domain.whole else domain.low + steps * domain.step
