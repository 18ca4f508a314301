"""The counter-based generator gives the published words, standard normals and uniform numbers."""

import numpy as np
import pytest
import torch
from scipy import stats

from ohmformer.streams.philox import NORMAL, UNIFORM, draw, normals, philox, uniforms
from ohmformer.streams.places import Places, whole_rows

# Random123 1.14 (D. E. Shaw Research), examples/kat_vectors: counter, key and words of philox4x32 with 10 rounds.
PUBLISHED = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
ALARM = 1e-6
"""Probability that a test of a distribution fails by chance."""


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def drawn(places: Places, nth: int = 0, kind: int = NORMAL) -> torch.Tensor:
    out = torch.zeros(places.size)
    draw(out, places, nth, kind)
    return out


@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED)
def test_published_words(counter: str, key: str, expected: str) -> None:
    c0, c1, c2, c3, k0, k1 = (torch.tensor(word) for word in (*words(counter), *words(key)))
    assert [int(word) for word in philox((c0, c1, c2, c3), (k0, k1))] == words(expected)


def test_numbers_have_their_distributions() -> None:
    places = whole_rows(range(100, 300), (200, 2_000))
    normal, uniform = drawn(places).numpy(), drawn(places, kind=UNIFORM).numpy()
    assert stats.kstest(normal, "norm").pvalue > ALARM
    assert stats.kstest(uniform, "uniform").pvalue > ALARM
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(np.corrcoef(normal[:-1], normal[1:])[0, 1]) < 0.01


def test_keys_tensors_and_tokens_draw_numbers_of_their_own() -> None:
    rows = whole_rows((1, 2, 1 + (1 << 32)), (3, 4_000))
    first, second, third = drawn(rows).view(3, -1)
    others = [second, third, drawn(rows, nth=1)[:4_000]]
    rows.rows[:, 1] = 1
    others.append(drawn(rows)[:4_000])
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 0.08


def test_words_at_the_ends_give_finite_numbers() -> None:
    ends = tuple(torch.tensor(word) for word in (0, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    assert torch.isfinite(normals(ends)).all()
    assert float(normals(ends).abs().max()) == pytest.approx(6.764, abs=1e-3)
    assert uniforms(ends).tolist() == [0.0, 1 - 2.0**-24, 1 - 2.0**-24, 0.0]
