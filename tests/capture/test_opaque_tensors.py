"""Products that PyTorch hides are reported, refused with the rule that helps, or run in another thread by name."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

import ohmformer as of
from ohmformer import BadInput
from ohmformer.nn.convert.convert import StaysDigital
from tests.nn.models import SelfAttention

HARDWARE = of.load("clipformer_tcad_2024")
TOKENS = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(2))
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-2, -1), -1) @ v


@torch.library.custom_op("ohmformer_tests::attention", mutates_args=())
def own_kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return plain(q, k, v)


@torch.library.custom_op("ohmformer_tests::linear", mutates_args=())
def own_linear(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


@torch.library.custom_op("ohmformer_tests::scale", mutates_args=())
def own_scale(x: Tensor, w: Tensor) -> Tensor:
    return x * w


def complex_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k = (torch.complex(t, t.flip(-1)) for t in (q, k))
    return torch.softmax((q @ k.conj().transpose(-2, -1)).real, -1) @ v


def nested(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    parts = [torch.nested.nested_tensor(list(t), layout=torch.jagged) for t in (q, k, v)]
    heads = [t.view(3, -1, 2, 12).transpose(1, 2) for t in parts]
    return torch.stack(list(F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(3, -1, 24).unbind()))


class Attends(nn.Module):
    def __init__(self, attention: Attention, parameter: Tensor | None = None) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(24, 24) for _ in range(3))
        self.inner = _Inner(attention)
        if parameter is not None:
            self.inner.register_buffer("weight", parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.q(x), self.k(x), self.v(x))


class _Inner(nn.Module):
    weight: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.attention(q, k, v)


REFUSED: dict[str, tuple[Attention, str]] = {
    "vmap": (lambda q, k, v: torch.vmap(lambda *t: plain(*t))(q, k, v), "matmul has a tensor inside torch.vmap"),
    "jvp": (lambda q, k, v: torch.func.jvp(lambda t: plain(t, k, v), (q,), (k,))[0], "matmul has a tensor inside"),
    "flex": (lambda q, k, v: flex_attention(q[:, None], k[:, None], v[:, None])[:, 0], "flex_attention is not"),
    "complex": (complex_attention, "complex values, and cells hold real ones"),
    "nested": (nested, "scaled_dot_product_attention has a nested tensor"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")
@pytest.mark.parametrize("name", REFUSED)
def test_hidden_attention_is_refused_with_the_rule_that_works(name: str) -> None:
    attention, why = REFUSED[name]
    model = Attends(attention).eval()
    with pytest.raises(BadInput, match=f"^inner: multiplies two activations by .*{why}.*rules={{'inner': None}}$"):
        of.convert(model, HARDWARE, sample=TOKENS)
    converted = of.convert(model, HARDWARE, sample=TOKENS, rules={"inner": None})
    assert of.capture_table(converted).summary()["crossbars"] == {"x W": 3}
    with torch.no_grad():
        assert bool(converted(TOKENS).isfinite().all())


def scripted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.jit.script(plain)(q, k, v)  # type: ignore[no-any-return]


REPORTED: dict[str, tuple[Attention, str]] = {
    "two activations": (lambda q, k, v: own_kernel(q, k, v), "ohmformer_tests::attention is not understood"),
    "weights": (lambda q, k, v: own_linear(q, torch.ones(24, 24)) + k + v, "ohmformer_tests::linear is not"),
    "scripted": (scripted, "bmm is not understood"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", REPORTED)
def test_operations_of_others_are_reported(name: str) -> None:
    attention, why = REPORTED[name]
    with pytest.warns(StaysDigital, match=f"in inner: {why}"):
        of.convert(Attends(attention).eval(), HARDWARE, sample=TOKENS)
    of.convert(Attends(attention).eval(), HARDWARE, sample=TOKENS, rules={"inner": None})


def test_operations_of_others_that_take_one_activation_and_a_vector_say_nothing() -> None:
    model = Attends(lambda q, k, v: own_scale(q, torch.ones(24)) + k + v).eval()
    assert of.capture_table(of.convert(model, HARDWARE, sample=TOKENS)).digital == ()


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_weights_stay_digital_and_say_so(layout: torch.layout) -> None:
    weight = torch.eye(24).to_sparse(layout=layout)
    model = Attends(
        lambda q, k, v: (model.inner.weight @ q.reshape(-1, 24).T).T.reshape(q.shape) + k + v, weight
    ).eval()
    with pytest.warns(StaysDigital, match="in inner: matmul has a sparse tensor"):
        of.convert(model, HARDWARE, sample=TOKENS)


class Threaded(nn.Module):
    """An attention that runs in another thread, or in both."""

    def __init__(self, *, both: bool = False) -> None:
        super().__init__()
        self.first, self.inner, self.both = nn.Linear(24, 24), SelfAttention(), both

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(self.first(x)) if self.both else self.first(x)
        with ThreadPoolExecutor(1) as pool:
            found: Tensor = pool.submit(self.inner, x).result()
        return found


def test_layers_of_another_thread_are_named() -> None:
    with pytest.warns(StaysDigital, match="3 products .* in inner.q: runs in another thread"):
        of.convert(Threaded().eval(), HARDWARE, sample=TOKENS)


def test_a_trace_does_not_leave_out_layers_of_another_thread_in_silence() -> None:
    with pytest.raises(BadInput, match=r"^inner.k: runs in another thread.*rules={'inner.k': None, 'inner.q': None, "):
        of.trace(Threaded().eval(), TOKENS)
    assert [op.name for op in of.trace(Threaded().eval(), TOKENS, rules={"inner*": None}).ops] == ["first"]


def test_a_layer_on_crossbars_runs_in_one_thread() -> None:
    """Otherwise the other thread would be refused by the settings that calibration changes, or draw other noise."""
    model = Threaded(both=True).eval()
    with pytest.raises(BadInput, match=r"^inner.q: runs in another thread.* keep it digital with rules={'inner.q': "):
        of.convert(model, HARDWARE, sample=TOKENS)
    converted = of.convert(model, HARDWARE, sample=TOKENS, rules={"inner*": None})
    assert converted(TOKENS).shape == TOKENS.shape


def test_a_model_that_runs_but_cannot_be_recorded_is_not_said_to_fail() -> None:
    class Shy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(24, 24)

        def forward(self, x: Tensor) -> Tensor:
            if torch._C._len_torch_function_stack():
                raise RuntimeError("somebody is watching")
            return self.layer(x)

    with pytest.raises(BadInput, match=r"the model runs, but not while its products are recorded .*somebody"):
        of.convert(Shy(), HARDWARE, sample=TOKENS)


def test_complex_matrices_are_refused_where_they_are_written() -> None:
    array = HARDWARE.projection.array  # type: ignore[union-attr]
    with pytest.raises(BadInput, match="is complex, and cells hold real values"):
        of.array.crossbar.program(torch.ones(4, 4, dtype=torch.complex64), array, stream=0)
