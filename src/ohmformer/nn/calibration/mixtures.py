"""Candidates that fill a budget: a remedy that is too expensive for all layers is used in the layers that gain most."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from ohmformer.mitigation.budget import KVBudget, PriceKV
from ohmformer.nn.calibration.candidates import TriedCandidates, checked_cost
from ohmformer.nn.calibration.operand_setting import OperandSetting

MOST = 3
"""Largest number of mixtures that the whole model is run with: those with the smallest expected error."""

BASES = 3
"""Number of candidates within the budget that are mixed with others: those with the smallest measured losses."""

SettingsByOperand = dict[str, OperandSetting]


def mixtures(compared: TriedCandidates, budget: KVBudget, price: PriceKV) -> dict[str, SettingsByOperand]:
    """Return mixtures of candidates within the budget with candidates beyond it, by name.

    For each pair, layers are ordered by what the candidate beyond the budget would gain there in expected error. It
    takes the place of the other one in the first layers, as many as the budget allows.

    Args:
        compared: the candidates so far.
        budget: the budget.
        price: the cost of a pass.
    """
    beyond = [name for name in compared.losses if not compared.holds(budget, name)]
    within = [name for name in compared.losses if name not in beyond]
    within.sort(key=lambda name: float(compared.losses[name].mean()))
    found: list[tuple[float, str, SettingsByOperand]] = []
    for pair in product(within[:BASES], beyond):
        layers = _layers_by_gain(compared, *pair)
        count = _most_layers(compared, budget, price, pair, layers)
        if count:
            base, other = pair
            label = f"{base}; {other} in {count} of {len(_layers(compared.settings[base]))} layers"
            taken = layers[:count]
            found.append((_expected(compared, pair, taken), label, _mixed(compared, pair, taken)))
    found.sort(key=lambda entry: entry[0])
    return {label: settings for _, label, settings in found[:MOST]}


def _layers(settings: Mapping[str, OperandSetting]) -> dict[str, list[str]]:
    """Place in the model -> the operands K and V of that place."""
    places: dict[str, list[str]] = {}
    for operand in settings:
        places.setdefault(operand.rpartition(".")[0], []).append(operand)
    return places


def _layers_by_gain(compared: TriedCandidates, base: str, other: str) -> list[list[str]]:
    """The operands of each layer in which another candidate is expected to gain something, the largest gain first."""
    ours, theirs = compared.error_shares(base), compared.error_shares(other)
    gains = [
        (sum(ours.get(name, 0.0) - theirs.get(name, 0.0) for name in names), names)
        for names in _layers(compared.settings[base]).values()
    ]
    return [names for gain, names in sorted(gains, key=lambda entry: -entry[0]) if gain > 0]


def _mixed(compared: TriedCandidates, pair: tuple[str, str], layers: list[list[str]]) -> SettingsByOperand:
    """The settings of the first candidate, with those of the second in some layers."""
    base, other = (compared.settings[name] for name in pair)
    return {**base, **{name: other[name] for names in layers for name in names}}


def _expected(compared: TriedCandidates, pair: tuple[str, str], layers: list[list[str]]) -> float:
    """Sum over operands of the expected errors of a mixture, as shares of those of doing nothing."""
    base, other = (compared.error_shares(name) for name in pair)
    return sum({**base, **{name: other[name] for names in layers for name in names if name in other}}.values())


def _most_layers(
    compared: TriedCandidates, budget: KVBudget, price: PriceKV, pair: tuple[str, str], layers: list[list[str]]
) -> int:
    """The largest number of layers in which the second candidate is within the budget, by bisection."""
    low, high = 0, len(layers)
    while low < high:
        middle = (low + high + 1) // 2
        cost = checked_cost(price, _mixed(compared, pair, layers[:middle]))
        if budget.holds(cost, compared.costs["none"]):
            low = middle
        else:
            high = middle - 1
    return low
