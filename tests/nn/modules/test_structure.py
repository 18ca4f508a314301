"""A converted model whose modules are changed afterward is refused, since new modules would run digitally."""

import copy
import pickle
import threading
from collections.abc import Callable
from functools import partial, update_wrapper
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import ohmformer as of

HARDWARE = of.load("clipformer_tcad_2024")
X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A feed-forward block."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(8, 16), nn.Linear(16, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        """x[B, N, 8] -> [B, N, 8]."""
        return self.norm(x + self.down(self.up(x).relu()))  # type: ignore[no-any-return]


class Model(nn.Module):
    """Two blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList([Block(), Block()]), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """x[B, N, 8] -> [B, N, 4]."""
        for layer in self.layers:
            x = layer(x)
        return self.head(x)  # type: ignore[no-any-return]


def converted() -> Any:
    """A converted model, always the same one."""
    torch.manual_seed(0)
    return of.convert(Model().eval(), HARDWARE, sample=X)


def set_head(model: Any) -> None:
    model.head = nn.Linear(8, 4)


def set_nested(model: Any) -> None:
    model.layers[1].down = nn.Linear(16, 8)


def append(model: Any) -> None:
    model.layers.append(Block())


def delete(model: Any) -> None:
    del model.layers[1]


def swap(model: Any) -> None:
    model.layers[0], model.layers[1] = model.layers[1], model.layers[0]


def wrap(model: Any) -> None:
    model.head = nn.Sequential(model.head, nn.Linear(4, 4))


def add_module(model: Any) -> None:
    model.layers[0].add_module("adapter", nn.Linear(8, 8))


def identity(model: Any) -> None:
    model.layers[0].norm = nn.Identity()


def own_forward(model: Any) -> None:
    model.layers[0].forward = lambda x: x @ torch.eye(8)


def class_forward(model: Any) -> None:
    class Other(Model):
        def forward(self, x: Tensor) -> Tensor:
            return x @ torch.ones(8, 4)

    model.__class__ = Other


def plain_class(model: Any) -> None:
    model.head.__class__ = nn.Linear


CHANGES = [
    *(set_head, set_nested, append, delete, swap, wrap, add_module, identity, own_forward, class_forward, plain_class)
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("copied", [False, True])
def test_changed_model_is_refused(change: Callable[[Any], None], copied: bool) -> None:
    """Calls and verbs refuse it in one line with the remedy."""
    model = copy.deepcopy(converted()) if copied else converted()
    change(model)
    verbs: list[Callable[[], object]] = [
        lambda: model(X),
        lambda: of.capture_table(model),
        lambda: of.set_chip(model, 1),
        lambda: of.monte_carlo(model, lambda m: m(X).mean(), chips=1),
        lambda: of.save(model, "never-written.safetensors"),
    ]
    for verb in verbs:
        with pytest.raises(of.BadInput, match=r"since the model was converted.*revert") as error:
            verb()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", [set_head, append, wrap])
def test_remedy_of_the_message_works(change: Callable[[Any], None]) -> None:
    """The changed model can be reverted and converted again; the new layer is on crossbars then."""
    model = converted()
    change(model)
    again = of.convert(of.revert(model), HARDWARE, sample=X)
    linear = sum(isinstance(module, nn.Linear) for module in model.modules())
    assert sum(row.engine == "projection" for row in of.capture_table(again).rows) == linear


def test_harmless_changes() -> None:
    """What changes no product is accepted, and changes nothing."""
    model, expected = converted(), converted()(X)
    model.head.register_forward_hook(lambda *_: None)
    model.requires_grad_(False).train().eval()
    model.to("cpu").load_state_dict(model.state_dict())
    old = model.forward
    model.forward = update_wrapper(partial(lambda forward, x: forward(x), old), old)  # as offloading does
    torch.testing.assert_close(model(X), expected, rtol=0, atol=0)
    del model.forward

    def mixed(self: Any, x: Tensor) -> Tensor:
        return Model.forward(self, x)

    model.forward = MethodType(update_wrapper(mixed, Model.forward), model)  # as mixed precision does
    torch.testing.assert_close(model(X), expected, rtol=0, atol=0)


def test_parametrized_after_conversion() -> None:
    """Weights that are computed from others are programmed as they are computed."""
    model, expected = converted(), converted()(X)
    parametrizations.weight_norm(model.head)
    torch.testing.assert_close(model(X), expected, rtol=0, atol=1e-5)


def test_pickled_model_notes_its_parts_when_first_used() -> None:
    """A pickled model computes the same, and is watched from its first call on."""
    model = converted()
    read = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(read(X), model(X), rtol=0, atol=0)
    set_head(read)
    with pytest.raises(of.BadInput, match="'head'"):
        read(X)


def test_converted_part_of_a_digital_model() -> None:
    """The remedy that is named works."""
    whole = nn.Sequential(converted(), nn.Linear(4, 2))
    with pytest.raises(of.BadInput, match="only 0 of this model is on crossbars; pass that part"):
        of.capture_table(whole)
    assert of.capture_table(whole[0]).rows


def test_settings_do_not_change_under_another_thread() -> None:
    """A verb that changes settings is refused while another thread is inside a call, and works afterward."""
    model = converted()
    inside, leave = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        inside.set()
        leave.wait(10)

    hook = model.head.register_forward_pre_hook(wait)
    thread = threading.Thread(target=lambda: model(X))
    thread.start()
    assert inside.wait(10)
    hook.remove()
    verbs: list[Callable[[], object]] = [
        lambda: of.set_chip(model, 1),
        lambda: of.set_clip(model, None),
        lambda: of.calibrate_ranges(model),
        lambda: of.monte_carlo(model, lambda m: m(X).mean(), chips=2),
        lambda: of.without_quantizers(model).__enter__(),
    ]
    for verb in verbs:
        with pytest.raises(of.BadInput, match="another thread is calling this model"):
            verb()
    leave.set()
    thread.join()
    for verb in verbs[:-1]:
        verb()


def test_call_that_fails_is_over() -> None:
    """A call that ended in an error does not count as going on."""
    model = converted()
    with pytest.raises(RuntimeError):
        model(torch.randn(3, 5, 7))
    thread = threading.Thread(target=lambda: of.set_chip(model, 3))
    thread.start()
    thread.join()
    assert model.ohmformer_crossbars.state.chip == 3
