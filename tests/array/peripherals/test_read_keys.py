"""What parts of a read draw beside padding: the same as without it."""

from __future__ import annotations

import torch

from ohmformer.array.peripherals.read_keys import (
    QueryStreams,
    of_devices,
    of_inputs,
    of_one_input,
    of_one_result,
    of_references,
    of_vector,
)
from ohmformer.streams import PaddedStreams, SampleStreams, Stream

TWO = (Stream("a"), Stream("b"))
LIKE = torch.empty(0)
PADDED = PaddedStreams(TWO, places=4, rows=((0, 1, 2, 3), (2, 3)), columns=(6, 5), inputs=(7, 5))


def test_devices_of_a_padded_sample_draw_what_they_draw_alone() -> None:
    vector = of_vector(PADDED, 3, 4)
    devices = of_devices(vector, 4, 4).normal(2, 3, 6, 3, like=LIKE)
    alone = of_vector(SampleStreams(TWO[1:]), 1, 2)
    assert torch.equal(devices[1, :, :5, :1], of_devices(alone, 4, 4).normal(1, 3, 5, 1, like=LIKE)[0])
    assert not bool(devices[1, :, 5:].any() or devices[1, :, :, 1:].any())
    assert bool((devices[0] != 0).all())


def test_as_many_vectors_as_devices_are_told_apart() -> None:
    """Four vectors and four outputs: the padding of the vectors is not that of the devices."""
    square = PaddedStreams(TWO, places=4, rows=((0, 1, 2, 3), (2, 3)))
    assert bool((of_devices(of_vector(square, 2, 4), 0, 8).normal(2, 4, 5, like=LIKE) != 0).all())


def test_inputs_results_and_references_have_their_own_sizes() -> None:
    vector = of_vector(PADDED, 2, 4)
    assert of_one_input(vector).normal(2, 1, 7, like=LIKE)[1, 0].count_nonzero() == 5
    assert of_one_result(vector).normal(2, 1, 6, like=LIKE)[1, 0].count_nonzero() == 5
    assert of_one_result(vector, reference=5).normal(2, 1, 2, like=LIKE)[1, 0].count_nonzero() == 1
    assert of_devices(vector, 0, 7, reference=5).normal(2, 2, 7, like=LIKE)[1].count_nonzero() == 5
    assert of_references(PADDED, 5).normal(2, 4, 2, like=LIKE)[1].count_nonzero() == 2
    shown = of_inputs(PADDED)
    assert shown is not None
    assert shown.normal(2, 4, 7, like=LIKE)[1].count_nonzero() == 10


def test_streams_without_padding_draw_as_before() -> None:
    for stream in (Stream("a"), SampleStreams(TWO)):
        vector = of_vector(stream, 2, 4)
        assert vector == stream.child(2)
        assert of_devices(vector, 0, 4) == of_one_input(vector) == of_one_result(vector) == vector
        assert of_references(stream, 4) == stream


def test_queries_draw_by_their_numbers() -> None:
    together = QueryStreams(TWO, queries=(((3, 0), (4, 0)), ((1, 0), (2, 0))))
    alone = QueryStreams(TWO, queries=(((4, 0),), ((2, 0),)))
    found, expected = (
        of_devices(of_vector(s, m, m + 1), 0, 4).normal(2, 3, 4, like=LIKE) for s, m in ((together, 1), (alone, 0))
    )
    assert torch.equal(found, expected)
