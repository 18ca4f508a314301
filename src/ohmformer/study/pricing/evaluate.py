"""Evaluates a point with what its accuracy takes from the cost half: ages of K and V, and prices for a budget."""

from __future__ import annotations

from ohmformer.study.evaluate_point import evaluate_point
from ohmformer.study.pricing.kv_prices import price_of
from ohmformer.study.results.spec import PointResult
from ohmformer.study.spec import Settings
from ohmformer.study.timing.ages import ages_of


def evaluate_with_cost_half(settings: Settings) -> PointResult:
    """`evaluate_point` with the ages and the prices of the point.

    Raises:
        BadInput: as `ages_of`, `price_of` and `evaluate_point`.
    """
    return evaluate_point(settings, ages_of(settings), price_of(settings))
