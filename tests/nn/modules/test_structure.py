"""A converted model whose modules are changed afterward is refused, since new modules would run digitally."""

import copy
import io
import pickle
import threading
from collections.abc import Callable
from functools import partial, update_wrapper
from tempfile import TemporaryDirectory
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


def other_forward(x: Tensor) -> Tensor:
    return x @ torch.ones(8, 4)


def own_forward_of_module(model: Any) -> None:
    model.head.forward = other_forward


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


def pickled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


def torch_saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def own_saved(model: Any) -> Any:
    with TemporaryDirectory() as folder:
        of.save(model, f"{folder}/model.safetensors")
        return of.restore(Model().eval(), f"{folder}/model.safetensors")


@pytest.mark.parametrize("read", [pickled, torch_saved, own_saved, lambda model: pickled(copy.deepcopy(model))])
def test_read_model_is_watched_before_its_first_call(read: Callable[[Any], Any]) -> None:
    """What was put into a model between reading and its first call ran digitally, in silence."""
    model, expected = converted(), converted()(X)
    torch.testing.assert_close(read(model)(X), expected, rtol=0, atol=0)
    for change in CHANGES:
        changed = read(model)
        change(changed)
        with pytest.raises(of.BadInput, match="since the model was converted"):
            changed(X)


@pytest.mark.parametrize("change", [set_head, append, wrap, own_forward_of_module])
def test_model_that_was_changed_before_it_was_pickled(change: Callable[[Any], None]) -> None:
    model = converted()
    change(model)
    with pytest.raises(of.BadInput, match="since the model was converted"):
        pickled(model)(X)


class QuickGelu(nn.Module):
    """An activation as libraries have their own."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Scores(nn.Module):
    """A module without parameters that multiplies."""

    def forward(self, x: Tensor) -> Tensor:
        return (x @ x.transpose(-2, -1)).softmax(-1) @ x


class Activated(nn.Module):
    """Layers with modules between them that multiply nothing, and one that does."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.drop, self.own = nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.5), QuickGelu()
        self.scores, self.down, self.norm = Scores(), nn.Linear(16, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.down(self.scores(self.own(self.drop(self.act(self.up(x)))))))  # type: ignore[no-any-return]


def activated(**rules: None) -> Any:
    torch.manual_seed(0)
    return of.convert(Activated().eval(), HARDWARE, sample=X, rules=rules)


HARMLESS = [("drop", nn.Identity), ("act", nn.ReLU), ("own", nn.Dropout), ("act", nn.Identity), ("own", nn.SiLU)]


@pytest.mark.filterwarnings("ignore:called outside")
@pytest.mark.parametrize(("name", "new"), HARMLESS)
@pytest.mark.parametrize("read", [lambda model: model, copy.deepcopy, pickled])
def test_modules_without_products_may_be_exchanged(name: str, new: type[nn.Module], read: Any) -> None:
    """The table stays right, so the model computes as the changed original does on crossbars."""
    model = read(activated())
    setattr(model, name, new())
    digital = of.revert(model)
    again = of.convert(digital, HARDWARE, sample=X, rules={})
    tables = [[(row.module, row.engine) for row in of.capture_table(each).rows] for each in (model, again)]
    assert tables[0] == tables[1]
    assert model(X).isfinite().all()
    setattr(model, name, nn.Identity())  # and again, also back
    setattr(model, name, new())
    model(X)
    assert read(model)(X).isfinite().all()
    getattr(model, name).forward = lambda x: x @ torch.eye(x.shape[-1])
    with pytest.raises(of.BadInput, match="another forward"):
        model(X)


class Multiplies(nn.Identity):
    """Looks like `nn.Identity`."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.eye(x.shape[-1])


def patched() -> nn.Module:
    module = nn.Identity()
    module.forward = lambda x: x @ torch.eye(x.shape[-1])  # type: ignore[method-assign]
    return module


OTHERS: list[tuple[str, Callable[[], nn.Module | None]]] = [
    ("drop", lambda: nn.Linear(16, 16)),
    ("drop", lambda: nn.Sequential(nn.Linear(16, 16))),
    ("drop", Multiplies),
    ("drop", patched),
    ("drop", lambda: nn.PReLU()),
    ("drop", lambda: nn.MultiheadAttention(16, 2)),
    ("drop", QuickGelu),
    ("drop", lambda: None),
    ("scores", nn.Identity),
    ("norm", nn.Identity),
    ("down", nn.Identity),
]


@pytest.mark.parametrize(("name", "new"), OTHERS)
def test_other_exchanges_are_refused(name: str, new: Callable[[], nn.Module | None]) -> None:
    for model in (activated(), pickled(activated()), activated(scores=None)):
        setattr(model, name, new())
        with pytest.raises(of.BadInput, match=f"another submodule '{name}' since the model was converted"):
            model(X)


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
