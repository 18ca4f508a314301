"""A recipe is chosen only where it is better than nothing by more than chance over inputs."""

import math

import pytest
import torch
from torch import Tensor

from ohmformer.nn.calibration.comparison import Answer, best_recipe, chance_gain, input_numbers
from ohmformer.stats.intervals import student_errors


def test_what_is_done_must_be_better_than_nothing_by_more_than_chance() -> None:
    none = torch.linspace(1, 2, 50)
    wavering = none - 0.01 + 0.2 * torch.linspace(-1, 1, 50).sin()
    assert best_recipe({"none": none, "clip": wavering}) == "none"
    assert best_recipe({"none": none, "clip": none - 0.005, "hadamard": wavering}) == "clip", "little, but certain"
    assert best_recipe({"none": none, "clip": none - 0.4, "hadamard": none - 0.5}) == "hadamard"
    assert best_recipe({"none": none, "clip": none}) == "none", "of equals the first"
    assert best_recipe({"none": none[:1], "clip": none[:1] - 1e-3}) == "none", "one input tells no chance"
    assert best_recipe({"none": none[:1], "clip": none[:1] - 1e3}) == "none", "however much it is"


def test_tokens_of_one_input_are_one_difference() -> None:
    none, gains = torch.ones(40), torch.tensor([0.5, -0.3, 0.4, 0.0]).repeat_interleave(10)
    inputs = torch.arange(4).repeat_interleave(10)
    assert best_recipe({"none": none, "clip": none - gains}) == "clip"
    assert best_recipe({"none": none, "clip": none - gains}, inputs_of=inputs) == "none"
    assert chance_gain(gains, inputs) == pytest.approx(chance_gain(gains[::10], None))
    assert chance_gain(gains, torch.zeros(40, dtype=torch.long)) == math.inf


def test_each_input_alone_is_the_plain_standard_error() -> None:
    gain = torch.randn(30, generator=torch.Generator().manual_seed(0)).double()
    assert chance_gain(gain, torch.arange(30)) == chance_gain(gain, None)
    assert chance_gain(gain, None) == pytest.approx(student_errors(1.0, 30) * float(gain.std()) / 30**0.5)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_chance_passes_as_rarely_with_few_inputs(n: int) -> None:
    """A gain of nothing but noise passes in 15.9 % of all cases, whatever the number of inputs.

    20,000 cases: the bound of five standard errors of a share raises a false alarm in 6e-7 of all runs.
    """
    gains = torch.randn(20_000, n, generator=torch.Generator().manual_seed(n)).double()
    passed = gains.mean(1) > student_errors(1.0, n) * gains.std(1) / n**0.5
    share = 0.5 * math.erfc(1 / math.sqrt(2))
    assert abs(float(passed.double().mean()) - share) < 5 * math.sqrt(share * (1 - share) / 20_000)


def said(shape: tuple[int, ...], rows: int) -> Answer:
    return Answer(torch.zeros(*shape, 7), True, rows)


@pytest.mark.parametrize(
    ("answers", "axis", "expected"),
    [
        ([said((3,), 3), said((2,), 2)], 0, [0, 1, 2, 3, 4]),
        ([said((2, 3), 2)], 0, [0, 0, 0, 1, 1, 1]),
        ([said((3, 2), 2), said((3, 1), 1)], 0, [0, 1, 0, 1, 0, 1, 2, 2, 2]),
        ([said((2, 2), 2)], 1, [0, 1, 0, 1]),
        ([said((6,), 2)], 0, [0, 0, 0, 1, 1, 1]),
        ([said((5,), 2), said((1,), 3)], 0, [0, 0, 0, 0, 0, 1]),
        ([said((), 2)], 0, [0]),
    ],
)
def test_answers_belong_to_inputs(answers: list[Answer], axis: int, expected: list[int]) -> None:
    found = input_numbers(answers, axis)
    assert isinstance(found, Tensor)
    assert found.tolist() == expected
