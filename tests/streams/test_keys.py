"""The same thing draws the same numbers, whatever else happens."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from ohmformer.errors import BadInput
from ohmformer.streams import (
    PaddedStreams,
    SampleStreams,
    Stream,
    TokenStreams,
    UnnamedSamples,
    sample_streams,
    samples,
)
from ohmformer.streams.sources import BLOCK

LIKE = torch.empty(0)
CHIP = Stream(0, "chip", 3)


def drawn(ids: list[Any], *shape: int) -> dict[Any, torch.Tensor]:
    with samples(ids):
        noise = sample_streams(CHIP, len(ids)).child("write").normal(len(ids), *shape, like=LIKE)
    return dict(zip(ids, noise, strict=True))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 7, 32])
def test_batch_size_order_and_threads_change_nothing(batch: int, threads: int) -> None:
    before = torch.get_num_threads()
    whole = drawn(list(range(64)), 6, 197, 5)
    torch.set_num_threads(threads)
    try:
        order = np.random.default_rng(batch).permutation(64).tolist()
        for start in range(0, 64, batch):
            for name, noise in drawn(order[start : start + batch], 6, 197, 5).items():
                assert torch.equal(noise, whole[name])
    finally:
        torch.set_num_threads(before)


def test_streams_are_what_they_belong_to() -> None:
    a = CHIP.child("layer", 1).normal(5, like=LIKE)
    assert torch.equal(a, Stream(0, "chip", 3, "layer", 1).normal(5, like=LIKE))
    others = [Stream(0, "chip", 3, "layer", "1"), Stream(0, "chip", 4, "layer", 1), Stream(1, "chip", 3, "layer", 1)]
    assert not any(torch.equal(a, other.normal(5, like=LIKE)) for other in others)


def test_seeds_are_the_same_on_every_machine() -> None:
    assert Stream(0).seed == 6197007067532723406
    assert Stream(0, "chip", 1, "blocks.0.attn", "write").seed == 7119915145542658707


def test_numbers_follow_one_another() -> None:
    source = CHIP.open()
    first, second = source.normal(40, like=LIKE), source.normal(40, like=LIKE)
    assert torch.equal(first, CHIP.normal(40, like=LIKE))
    assert not torch.equal(first, second)


def test_dtypes_draw_the_same_numbers() -> None:
    single, double = (CHIP.normal(50, like=LIKE.to(dtype)) for dtype in (torch.float32, torch.float64))
    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)
    uniform = CHIP.uniform(1000, like=LIKE)
    assert 0 <= float(uniform.min()) < float(uniform.max()) < 1


def test_integers_of_any_library_name_the_same_sample() -> None:
    streams = []
    for ids in ([3, 4], np.array([3, 4]), torch.tensor([3, 4]), range(3, 5), (n for n in (3, 4))):
        with samples(ids):  # type: ignore[arg-type]
            streams.append(sample_streams(CHIP, 2))
    assert all(one == streams[0] for one in streams)
    with samples(["3", "4"]):
        assert sample_streams(CHIP, 2) != streams[0]


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        (32, "is not a list of ids"),
        ("abc", "is not a list of ids"),
        ([1.5], "the id 1.5 is neither an integer nor a string"),
        ([None], "the id None is neither"),
        (torch.rand(2), "is neither an integer nor a string"),
        (torch.zeros(2, 2, dtype=torch.int64), "is neither an integer nor a string"),
        ([], "names no sample"),
    ],
)
def test_ids_that_name_no_samples_are_refused(ids: Any, reason: str) -> None:
    with pytest.raises(BadInput, match=reason), samples(ids):
        pass


def test_one_name_for_every_row() -> None:
    with samples(range(3)), pytest.raises(BadInput, match="names 3 samples but the batch has 2 rows; name one per row"):
        sample_streams(CHIP, 2)
    streams = SampleStreams((Stream(0), Stream(1)))
    with pytest.raises(BadInput, match="a batch of 3 rows for 2 samples"):
        streams.normal(3, 4, like=LIKE)


def test_names_end_with_the_block_and_inner_ones_win() -> None:
    with samples([1]):
        with samples([2]):
            inner = sample_streams(CHIP, 1)
        outer = sample_streams(CHIP, 1)
    assert inner == SampleStreams((CHIP.child("sample", 2),))
    assert outer == SampleStreams((CHIP.child("sample", 1),))
    with pytest.raises(RuntimeError), samples([1]):
        raise RuntimeError
    with pytest.warns(UnnamedSamples):
        sample_streams(CHIP, 1)


def test_a_plain_call_says_once_that_its_rows_are_samples_0_to_b() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            streams = sample_streams(CHIP, 2)
    assert [warning.category for warning in caught] == [UnnamedSamples]
    assert streams == SampleStreams((CHIP.child("sample", 0), CHIP.child("sample", 1)))


TWO = (CHIP.child("a"), CHIP.child("b"))


def test_samples_of_fewer_places_draw_what_they_draw_alone() -> None:
    noise = SampleStreams(TWO, lengths=(5, 3)).normal(2, 4, 5, 7, like=LIKE)
    assert torch.equal(noise[0], SampleStreams(TWO[:1]).normal(1, 4, 5, 7, like=LIKE)[0])
    assert torch.equal(noise[1, :, :3], SampleStreams(TWO[1:]).normal(1, 4, 3, 7, like=LIKE)[0])
    assert not noise[1, :, 3:].any()


def test_padded_samples_draw_what_they_draw_without_padding() -> None:
    padded = PaddedStreams(TWO, places=4, rows=((0, 1, 2, 3), (2, 3)), columns=(6, 5))
    noise = padded.normal(2, 3, 4, 6, like=LIKE)
    assert torch.equal(noise[0], SampleStreams(TWO[:1]).normal(1, 3, 4, 6, like=LIKE)[0])
    assert torch.equal(noise[1, :, 2:, :5], SampleStreams(TWO[1:]).normal(1, 3, 2, 5, like=LIKE)[0])
    assert not noise[1, :, :2].any()
    assert not noise[1, :, :, 5:].any()
    for shape in ((2, 3, 9, 6), (2, 3, 4, 9)):
        assert torch.equal(padded.normal(*shape, like=LIKE), SampleStreams(TWO).normal(*shape, like=LIKE))


@pytest.mark.parametrize("growing", [False, True])
def test_a_token_draws_the_same_numbers_wherever_it_stands(growing: bool) -> None:
    noise = TokenStreams(TWO, numbers=((0, 1, 2), (-1, 0, 1)), growing=growing).normal(2, 3, 3, 20, like=LIKE)
    later = TokenStreams(TWO, numbers=((2, 3), (1, -1)), growing=growing).normal(2, 3, 2, 20, like=LIKE)
    assert torch.equal(noise[0, :, 2], later[0, :, 0])
    assert torch.equal(noise[1, :, 2], later[1, :, 0])
    assert not noise[1, :, 0].any()
    assert not later[1, :, 1].any()
    if not growing:
        assert torch.equal(noise[0, :, 1], TWO[0].child("token", 1).normal(3, 20, like=LIKE))


def test_places_that_are_no_tokens_draw_numbers_that_follow_one_another() -> None:
    source = TokenStreams(TWO, numbers=((0, 1, 2), (0, 1, 2))).open()
    first, second = (source.normal(2, 1, 4, 5, like=LIKE) for _ in range(2))
    alone = TokenStreams(SampleStreams(TWO).child("place").streams, numbers=((0, 1, 2, 3),) * 2).open()
    assert torch.equal(first, alone.normal(2, 1, 4, 5, like=LIKE))
    assert torch.equal(second, alone.normal(2, 1, 4, 5, like=LIKE))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("blocks", [1, 2, 3, 7, 64])
def test_torch_fills_normals_in_blocks_of_16_on_the_cpu(blocks: int) -> None:
    """What `TokenStreams.growing` relies on: a tensor starts with the numbers of any shorter one of whole blocks."""
    longest = torch.empty(100 * BLOCK).normal_(generator=torch.Generator().manual_seed(3))
    shorter = torch.empty(blocks * BLOCK).normal_(generator=torch.Generator().manual_seed(3))
    assert torch.equal(longest[: blocks * BLOCK], shorter)


@pytest.mark.parametrize("heads", [1, 3])
def test_growing_tensors_start_with_the_numbers_of_shorter_ones(heads: int) -> None:
    streams = TokenStreams(TWO, numbers=((0, 1), (4, 5)), growing=True)
    longest = streams.normal(2, heads, 2, 100, like=LIKE)
    for length in (1, 5, 15, 16, 17, 31, 48, 99):
        assert torch.equal(streams.normal(2, heads, 2, length, like=LIKE), longest[..., :length])
