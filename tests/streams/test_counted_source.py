"""By the counter-based generator, too, the same thing draws the same numbers, whatever else happens."""

import numpy as np
import pytest
import torch

from ohmformer.errors import BadInput
from ohmformer.streams import PaddedStreams, SampleStreams, Stream, TokenStreams, backends, sample_streams, samples
from ohmformer.streams.counted_source import CountedSource
from tests.gpu.kernels import KERNEL_DEVICE, needs_numba, needs_triton

CHIP = Stream(0, "chip", 3)
TWO = (CHIP.child("a"), CHIP.child("b"))


BACKENDS = [
    "philox",
    pytest.param("philox_kernel", marks=needs_triton),
    pytest.param("philox_compiled", marks=needs_numba),
]


@pytest.fixture(params=BACKENDS)
def like(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """A tensor of a device that draws by the counter-based generator."""
    monkeypatch.setattr(backends, "backend_of", lambda *_: request.param)
    return torch.empty(0, device=KERNEL_DEVICE if request.param == "philox_kernel" else "cpu")


@pytest.mark.parametrize("batch", [1, 3])
def test_batch_size_and_order_change_nothing(like: torch.Tensor, batch: int) -> None:
    def drawn(ids: list[int]) -> dict[int, torch.Tensor]:
        with samples(ids):
            noise = sample_streams(CHIP, len(ids)).child("write").normal(len(ids), 2, 11, 5, like=like)
        return dict(zip(ids, noise, strict=True))

    whole, order = drawn(list(range(6))), np.random.default_rng(batch).permutation(6).tolist()
    for start in range(0, 6, batch):
        for name, noise in drawn(order[start : start + batch]).items():
            assert torch.equal(noise, whole[name])


def test_a_stream_alone_draws_what_it_draws_in_a_batch(like: torch.Tensor) -> None:
    both = SampleStreams(TWO).normal(2, 3, 5, like=like)
    assert torch.equal(both[1], TWO[1].normal(3, 5, like=like))
    assert torch.equal(both[1].flatten()[:7], TWO[1].normal(7, like=like))


def test_numbers_follow_one_another(like: torch.Tensor) -> None:
    for stream in (CHIP, SampleStreams(TWO)):
        source = stream.open(like.device)
        first, second = (source.normal(2, 40, like=like) for _ in range(2))
        assert torch.equal(first, stream.normal(2, 40, like=like))
        assert not torch.isclose(first, second).any()


def test_dtypes_draw_the_same_numbers(like: torch.Tensor) -> None:
    single, double = (CHIP.normal(50, like=like.to(dtype)) for dtype in (torch.float32, torch.float64))
    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)
    uniform = CHIP.uniform(1000, like=like)
    assert 0 <= float(uniform.min()) < float(uniform.max()) < 1
    assert torch.equal(uniform, SampleStreams((CHIP,)).uniform(1, 1000, like=like)[0])


def test_batches_of_another_size_are_refused(like: torch.Tensor) -> None:
    for streams in (SampleStreams(TWO), PaddedStreams(TWO, places=4)):
        with pytest.raises(BadInput, match="a batch of 3 rows for 2 samples"):
            streams.normal(3, 4, 5, like=like)


def test_samples_of_fewer_places_draw_what_they_draw_alone(like: torch.Tensor) -> None:
    noise = SampleStreams(TWO, lengths=(5, 3)).normal(2, 4, 5, 7, like=like)
    assert torch.equal(noise[0], SampleStreams(TWO[:1]).normal(1, 4, 5, 7, like=like)[0])
    assert torch.equal(noise[1, :, :3], SampleStreams(TWO[1:]).normal(1, 4, 3, 7, like=like)[0])
    assert not noise[1, :, 3:].any()


def test_padded_samples_draw_what_they_draw_without_padding(like: torch.Tensor) -> None:
    padded = PaddedStreams(TWO, places=4, rows=((0, 1, 2, 3), (1, 3)), columns=(6, 5))
    noise = padded.normal(2, 3, 4, 6, like=like)
    assert torch.equal(noise[0], SampleStreams(TWO[:1]).normal(1, 3, 4, 6, like=like)[0])
    assert torch.equal(noise[1][:, [1, 3], :5], SampleStreams(TWO[1:]).normal(1, 3, 2, 5, like=like)[0])
    assert not noise[1, :, [0, 2]].any()
    assert not noise[1, :, :, 5:].any()
    for shape in ((2, 3, 9, 6), (2, 3, 4, 9)):
        assert torch.equal(padded.normal(*shape, like=like), SampleStreams(TWO).normal(*shape, like=like))


@pytest.mark.parametrize("growing", [False, True])
def test_a_token_draws_the_same_numbers_wherever_it_stands(like: torch.Tensor, growing: bool) -> None:
    noise = TokenStreams(TWO, numbers=((0, 1, 2), (-1, 0, 1)), growing=growing).normal(2, 3, 3, 20, like=like)
    later = TokenStreams(TWO, numbers=((2, 3), (1, -1)), growing=growing).normal(2, 3, 2, 20, like=like)
    assert torch.equal(noise[0, :, 2], later[0, :, 0])
    assert torch.equal(noise[1, :, 2], later[1, :, 0])
    assert not noise[1, :, 0].any()
    assert not later[1, :, 1].any()
    assert len(noise[noise != 0].unique()) == 5 * 3 * 20


def test_growing_tensors_start_with_the_numbers_of_shorter_ones(like: torch.Tensor) -> None:
    streams = TokenStreams(TWO, numbers=((0, 1), (4, 5)), growing=True)
    longest = streams.normal(2, 3, 2, 40, like=like)
    for length in (1, 5, 16, 39):
        assert torch.equal(streams.normal(2, 3, 2, length, like=like), longest[..., :length])


def test_places_that_are_no_tokens_draw_numbers_that_follow_one_another(like: torch.Tensor) -> None:
    streams = TokenStreams(TWO, numbers=((0, 1, 2), (0, 1, 2)))
    source = streams.open(like.device)
    source.normal(2, 1, 3, 5, like=like)
    first, second = (source.normal(2, 1, 4, 5, like=like) for _ in range(2))
    assert torch.equal(first, streams.normal(2, 1, 4, 5, like=like))
    assert not torch.isclose(first, second).any()


def test_no_values_need_no_numbers(like: torch.Tensor) -> None:
    assert SampleStreams(TWO).normal(2, 0, 5, like=like).shape == (2, 0, 5)
    assert PaddedStreams(TWO, places=2, rows=((), ())).normal(2, 2, 5, like=like).count_nonzero() == 0


def test_several_tensors_at_once_are_those_drawn_one_after_another(like: torch.Tensor) -> None:
    for streams in (SampleStreams(TWO), TokenStreams(TWO, numbers=((0, 1, 2), (-1, 0, 1))), SampleStreams(TWO, (3, 1))):
        one, other = streams.open(like.device), streams.open(like.device)
        assert isinstance(other, CountedSource)
        singly = [one.normal(2, 2, 3, 5, like=like) for _ in range(4)]
        together = torch.cat([other.normals(3, 2, 2, 3, 5, like=like), other.normals(1, 2, 2, 3, 5, like=like)])
        assert torch.equal(together, torch.stack(singly))
