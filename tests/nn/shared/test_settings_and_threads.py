"""Settings of a converted model hold for all threads: while one changes them for a while, others cannot call it."""

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import ohmformer as of
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.shared.state import State
from tests.nn.models import vit

HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 4.0)
IMAGES = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(1))
CHANGED = r"another thread is inside .*settings hold for all threads; wait until it is done"


@pytest.fixture(scope="module")
def original() -> nn.Module:
    return of.convert(vit(), HARDWARE, sample=IMAGES)


@pytest.fixture
def model(original: nn.Module) -> Any:
    return copy.deepcopy(original)


def answer(model: Any) -> Tensor:
    with torch.no_grad(), of.samples(range(2)):
        found = model(IMAGES)
    assert isinstance(found, Tensor)
    return found


def elsewhere(work: Callable[[], Any]) -> Any:
    """What another thread gets; its errors are raised here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def refused(work: Callable[[], Any]) -> str:
    with pytest.raises(of.BadInput) as error:
        elsewhere(work)
    assert "\n" not in str(error.value)
    return str(error.value)


class InMonteCarlo(AbstractContextManager[None]):
    """The inside of `monte_carlo`, on chip 7, as a block."""

    def __init__(self, model: nn.Module) -> None:
        self.block = crossbars(model).state.changing("monte_carlo")
        self.model = model

    def __enter__(self) -> None:
        self.block.__enter__()
        self.before = crossbars(self.model).state.chip
        of.set_chip(self.model, 7)

    def __exit__(self, *error: Any) -> None:
        of.set_chip(self.model, self.before)
        self.block.__exit__(*error)


BLOCKS: list[Callable[[Any], AbstractContextManager[Any]]] = [
    *(of.without_quantizers, lambda model: of.variation(model, gamma=1.0), InMonteCarlo)
]


@pytest.mark.filterwarnings("ignore:variation")
@pytest.mark.parametrize("block", BLOCKS)
def test_other_threads_cannot_use_a_model_inside_a_block(model: Any, block: Any) -> None:
    """Calls of the model and of its parts, and verbs, were computed with the settings of the block, in silence."""
    tokens = torch.randn(2, 9, 24)
    works: list[Callable[[], Any]] = [
        *(lambda: answer(model), lambda: model.train(False)(IMAGES), lambda: model.blocks[0].mlp(tokens)),
        *(lambda: of.set_chip(model, 1), lambda: of.set_clip(model, None), lambda: of.set_kv(model, None)),
        *(lambda: of.calibrate(model, IMAGES), lambda: of.calibrate_ranges(model)),
        *(lambda: of.save(model, "never-written.safetensors"), lambda: of.variation(model).__enter__()),
        *(lambda: of.monte_carlo(model, answer, chips=1), lambda: of.without_quantizers(model).__enter__()),
    ]
    expected = answer(model)
    with block(model):
        inside = answer(model)
        for work in works:
            message = refused(work)
            assert "inside" in message
            assert "wait" in message
            assert "copy.deepcopy" in message
        assert torch.equal(answer(model), inside)
    assert torch.equal(elsewhere(lambda: answer(model)), expected)


def test_a_call_during_monte_carlo_is_refused(model: Any) -> None:
    seen: list[str] = []

    def evaluate(model: Any) -> Tensor:
        seen.append(refused(lambda: answer(model)))
        return answer(model).sum(1)

    of.monte_carlo(model, evaluate, chips=2, progress=False)
    assert len(seen) == 2
    assert "inside monte_carlo" in seen[0]


def test_a_call_during_calibrate_is_refused(model: Any) -> None:
    seen: list[str] = []

    def look(*_: Any) -> None:
        if not seen:
            seen.append(refused(lambda: answer(model)))
            seen.append(refused(lambda: copy.deepcopy(model)))

    hook = model.head.register_forward_pre_hook(look)
    of.calibrate(model, IMAGES, remedy="clip")
    hook.remove()
    assert "inside calibrate" in seen[0]
    assert "deepcopy" not in seen[0]
    assert "cannot be copied" in seen[1]


@pytest.mark.filterwarnings("ignore:variation")
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_made_inside_a_block_are_free(model: Any, block: Any, copied: Any) -> None:
    """The remedy of the message works in the thread that reads it: such a copy has the settings of before."""
    expected = answer(model)
    with block(model):
        inside = answer(model)
        mine, theirs = copied(model), elsewhere(lambda: copied(model))
        assert torch.equal(elsewhere(lambda: answer(mine)), inside)
        assert torch.equal(elsewhere(lambda: answer(theirs)), expected)
        of.set_chip(mine, 3)
    assert crossbars(mine).state.training is None
    with of.variation(mine.train()):
        mine(IMAGES)


@pytest.mark.filterwarnings("ignore:variation")
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_cannot_begin_while_another_thread_calls(model: Any, block: Any) -> None:
    said: list[str] = []
    hook = model.head.register_forward_pre_hook(lambda *_: said.append(refused(lambda: block(model).__enter__())))
    before = answer(model)
    hook.remove()
    assert "another thread is calling this model" in said[0]
    assert "\n" not in said[0]
    assert torch.equal(elsewhere(lambda: answer(model)), before)


@pytest.mark.filterwarnings("ignore:variation")
def test_blocks_of_one_thread_nest(model: Any) -> None:
    expected = answer(model)
    with of.variation(model, gamma=1.0), of.without_quantizers(model):
        of.monte_carlo(model, lambda m: answer(m).sum(1), chips=2, progress=False)
        of.calibrate_ranges(model)
        assert "inside variation" in refused(lambda: answer(model))
    assert torch.equal(elsewhere(lambda: answer(model)), expected)


@pytest.mark.filterwarnings("ignore:variation")
@pytest.mark.parametrize("block", BLOCKS)
def test_an_exception_ends_a_block(model: Any, block: Any) -> None:
    expected = answer(model)
    with pytest.raises(KeyError), block(model):
        raise KeyError
    assert torch.equal(elsewhere(lambda: answer(model)), expected)


@pytest.mark.parametrize("block", [of.without_quantizers, lambda model: of.variation(model, gamma=1.0), InMonteCarlo])
def test_a_thread_that_ended_inside_a_block_locks_nothing(model: Any, block: Any) -> None:
    """The settings are then those of before the block."""
    expected, left = answer(model), block(model)
    thread = threading.Thread(target=left.__enter__)
    thread.start()
    thread.join()
    assert torch.equal(answer(model), expected)
    with of.variation(model.train()):
        model(IMAGES)
    of.set_chip(model, 1)


def test_a_call_that_was_interrupted_locks_nothing(model: Any) -> None:
    """PyTorch calls no hooks after an interrupt; a pool keeps the thread alive."""
    expected = answer(model)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    hook = model.head.register_forward_pre_hook(interrupt)
    with ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(lambda: answer(model)).exception(), KeyboardInterrupt)
        hook.remove()
        of.set_chip(model, 5)
        of.set_chip(model, 0)
    assert torch.equal(answer(model), expected)


def test_replicas_of_data_parallel_are_called_inside_a_block(model: Any) -> None:
    """Its threads work for the one that waits for them."""

    def replica() -> Any:
        modules = list(model.modules())
        copies = {module: module._replicate_for_data_parallel() for module in modules}
        for module, made in copies.items():
            for name, child in module._modules.items():
                setattr(made, name, copies[child])
            for name, parameter in module._parameters.items():
                setattr(made, name, None if parameter is None else parameter.detach())
        return copies[model]

    with of.without_quantizers(model):
        expected, made = answer(model), replica()
        assert torch.equal(elsewhere(lambda: answer(made)), expected)


def test_recomputed_calls_are_those_of_their_thread(model: Any) -> None:
    """Checkpointing calls the model again for its gradients."""
    with of.variation(model.train(), gamma=1.0), of.samples(range(2)):
        x = IMAGES.clone().requires_grad_()
        checkpoint(model, x, use_reentrant=False).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.any())


def test_users_take_no_time() -> None:
    """What a call does for threads is a few operations on sets: at most 20 us, where it takes about 0.3 us."""
    import timeit

    users = State().users

    def call() -> None:
        users.begin_call()
        users.end_call()

    assert min(timeit.repeat(call, number=100, repeat=5)) / 100 < 20e-6
