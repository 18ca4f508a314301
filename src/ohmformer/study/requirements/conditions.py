"""What the arrays of a study go through before they are read: their ages, and the writes that their cells have seen."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ohmformer.hardware.use import KV_ROLES
from ohmformer.study.requirements.arrays import RULE, Arrays, array_of, with_array
from ohmformer.study.spec import Point, Settings, Study, Whole

KEPT = 16
"""Studies whose conditions a process keeps."""


def as_run(whole: Whole) -> Settings:
    """The settings that `ohmformer run` evaluates for a point, with hours of use and the settings of its timeline.

    Raises:
        BadInput: the halves of the study do not accept the point, or writes of its cells cannot be counted.
    """
    settings = whole.accuracy()
    if not settings.simulation.hours:
        return settings
    from ohmformer.study.use.hours import in_use

    costs = Study("", (Point({}, "", whole.costs()),))
    return in_use(Study("", (Point({}, "", settings),)), costs).points[0].settings


class Conditions(NamedTuple):
    """Ages and writes of the arrays of a study, by role.

    Attributes:
        ages: role -> age at which its arrays are read [s]; the longest one of all tokens.
        writes: role -> writes that every cell has seen.
    """

    ages: dict[str, float]
    writes: dict[str, float]


@lru_cache(maxsize=KEPT)
def conditions_of(whole: Whole) -> Conditions:
    """The conditions in which a study reads its arrays.

    Raises:
        BadInput: as `as_run`; or the timeline has no times for the study.
    """
    settings = as_run(whole)
    ages, writes = dict[str, float](), dict[str, float]()
    tokens = _token_ages(settings)
    for role in settings.hardware.engines:
        if (array := array_of(settings.hardware, role)) is not None:
            ages[role] = max(array.age, tokens.get(role, 0.0))
            writes[role] = array.writes
    return Conditions(ages, writes)


def _token_ages(settings: Settings) -> dict[str, float]:
    """The longest age of a token, for each role of attention; empty if tokens have that of their array."""
    age = settings.simulation.age
    if age is None:
        return {}
    if settings.timing is None:
        assert isinstance(age, float)
        return dict.fromkeys(KV_ROLES, age)
    from ohmformer.study.timing.ages import ages_of

    ages = ages_of(settings)
    assert ages is not None
    longest = dict[str, float]()
    for operand in ages.operands:
        longest[operand.role] = max(longest.get(operand.role, 0.0), operand.longest)
    return longest


def as_read(arrays: Arrays, whole: Whole) -> Arrays:
    """Arrays of a study with the age and the writes that they have when the study reads them.

    An array of a rule may hold tokens, whose longest age it gets then.

    Raises:
        BadInput: as `conditions_of`.
    """
    found = conditions_of(whole)
    tokens = max((found.ages[role] for role in KV_ROLES if role in found.ages), default=0.0)
    here = {}
    for place, array in arrays.by_role.items():
        if place.startswith(RULE):
            age = max(array.age, tokens) if whole.simulation.age is not None else array.age
            here[place] = with_array(array, age=age) if age != array.age else array
        else:
            values = {"age": found.ages[place], "writes": found.writes[place]}
            new = {name: value for name, value in values.items() if value != getattr(array, name)}
            here[place] = with_array(array, **new) if new else array
    return Arrays(here)
