"""Transforms, tracers and tensors without values: a converted model works as in a plain call, or says one line."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import ohmformer as of
from ohmformer import BadInput
from tests.nn.models import Encoder, SelfAttention

HARDWARE = of.load("clipformer_tcad_2024")
X = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(2))
Use = Callable[[nn.Module], Any]


class Model(nn.Module):
    """Attention that is intercepted, and a layer with a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention, self.last = SelfAttention(), nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.attention(x)).tanh()


def dual(model: nn.Module) -> Any:
    with forward_ad.dual_level():
        return model(forward_ad.make_dual(X, torch.ones_like(X)))


def fake(model: nn.Module) -> Any:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return model(mode.from_tensor(X))


def fake_input(model: nn.Module) -> Any:
    return model(FakeTensorMode(allow_non_fake_inputs=True).from_tensor(X))


def weights_grad(model: nn.Module) -> Any:
    given = {name: p.detach() for name, p in model.named_parameters()}
    return torch.func.grad(lambda p: torch.func.functional_call(model, p, (X,)).sum())(given)


FUNC, TRACE, EXPORT = "transforms of torch.func", "torch.jit.trace or torch.onnx", "torch.export, make_fx and other"
REFUSED: dict[str, tuple[Use, str]] = {
    "grad": (lambda m: torch.func.grad(lambda x: m(x).sum())(X), FUNC),
    "grad of weights": (weights_grad, FUNC),
    "vjp": (lambda m: torch.func.vjp(m, X), FUNC),
    "jvp": (lambda m: torch.func.jvp(m, (X,), (X,)), FUNC),
    "jacrev": (lambda m: torch.func.jacrev(m)(X), FUNC),
    "jacfwd": (lambda m: torch.func.jacfwd(m)(X), FUNC),
    "hessian": (lambda m: torch.func.hessian(lambda x: m(x).sum())(X), FUNC),
    "vmap": (lambda m: torch.vmap(m)(X[:, None]), FUNC),
    "functionalize": (lambda m: torch.func.functionalize(m)(X), FUNC),
    "dual numbers": (dual, "forward-mode derivatives"),
    "jit.trace": (lambda m: torch.jit.trace(m, (X,), check_trace=False), TRACE),
    "onnx": (lambda m: torch.onnx.export(m, (X,), io.BytesIO(), dynamo=False), TRACE),
    "jit.script": (torch.jit.script, "torch.jit.script does not support Crossbar"),
    "fx": (torch.fx.symbolic_trace, "torch.fx.symbolic_trace"),
    "make_fx": (lambda m: make_fx(m)(X), EXPORT),
    "make_fx with fake tensors": (lambda m: make_fx(m, tracing_mode="fake")(X), EXPORT),
    "export": (lambda m: torch.export.export(m, (X,), strict=False), EXPORT),
    "fake mode": (fake, EXPORT),
    "fake input": (fake_input, r"no values \(meta or fake"),
    "meta input": (lambda m: m(X.to("meta")), r"no values \(meta or fake"),
    "sparse input": (lambda m: m(X.to_sparse()), "gets a sparse tensor"),
    "nested input": (lambda m: m(torch.nested.nested_tensor(list(X))), "gets a nested tensor"),
}


@pytest.fixture(scope="module")
def converted() -> nn.Module:
    return of.convert(Model().eval(), HARDWARE, sample=X)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_says_so_in_one_line_and_changes_nothing(converted: nn.Module, name: str) -> None:
    use, why = REFUSED[name]
    with torch.no_grad(), of.samples(range(3)):
        before = converted(X)
    with pytest.raises(BadInput, match=rf"{why}.*use the digital model, which revert\(\) returns$"):
        use(converted)
    with torch.no_grad(), of.samples(range(3)):
        assert torch.equal(converted(X), before)


PARTS: list[Use] = [
    lambda part: torch.jit.trace(part, (X,), check_trace=False),
    torch.jit.script,
    torch.fx.symbolic_trace,
    lambda part: torch.func.jvp(part, (X,), (X,)),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("use", PARTS)
@pytest.mark.parametrize("part", ["attention", "attention.q", "last"])
def test_parts_of_a_model_say_so_too(converted: nn.Module, part: str, use: Use) -> None:
    with pytest.raises(BadInput, match=r"use the digital model, which revert\(\) returns$"):
        use(converted.get_submodule(part))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("use", [PARTS[0], PARTS[1], PARTS[3]])
def test_multihead_attention_says_so_too(use: Use) -> None:
    converted = of.convert(Encoder().eval(), HARDWARE, sample=X)
    with pytest.raises(BadInput, match=r"use the digital model, which revert\(\) returns$"):
        use(converted)


def test_export_of_a_compiler_gives_the_reason(converted: nn.Module) -> None:
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"export the digital model, which revert\(\) returns"):
        torch.export.export(converted, (X,), strict=True)


def inference(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        return model(X)


def functional(model: nn.Module) -> Tensor:
    given = {name: p.detach().clone() for name, p in model.named_parameters()}
    found: Tensor = torch.func.functional_call(model, given, (X,))
    return found


@pytest.mark.parametrize("use", [inference, functional, lambda m: nn.DataParallel(m)(X), lambda m: m(X)])
def test_what_works_gives_the_same_bits_as_a_plain_call(converted: nn.Module, use: Use) -> None:
    with torch.no_grad(), of.samples(range(3)):
        expected = converted(X)
    with of.samples(range(3)):
        assert torch.equal(use(converted), expected)


def test_autocast_stays_near_the_plain_call(converted: nn.Module) -> None:
    with torch.no_grad(), of.samples(range(3)):
        expected = converted(X)
        with torch.autocast("cpu", torch.bfloat16):
            found = converted(X)
    assert float((found - expected).norm() / expected.norm()) < 0.02


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_reverted_model_is_transformed_again() -> None:
    model = of.revert(of.convert(Model().eval(), HARDWARE, sample=X))
    found = torch.func.grad(lambda x: model(x).sum())(X)
    x = X.clone().requires_grad_()
    torch.testing.assert_close(found, torch.autograd.grad(model(x).sum(), x)[0])
    assert torch.jit.script(model.last)(X).shape == X.shape


def test_a_default_device_without_values_is_refused_in_one_line(converted: nn.Module) -> None:
    with (
        torch.device("meta"),
        pytest.raises(of.BadInput, match=r"torch\.device\('meta'\).*; convert and call it outside"),
    ):
        converted(X)
    model = Model().eval()
    with torch.device("meta"), pytest.raises(of.BadInput, match="convert and call it outside"):
        of.convert(model, HARDWARE, sample=X)


def test_another_default_type_changes_no_bit() -> None:
    model, hardware = Model().eval(), of.load("generic_amplitude")
    with torch.no_grad(), of.samples(range(3)):
        expected = of.convert(model, hardware, sample=X)(X)
        try:
            torch.set_default_dtype(torch.float64)
            found = of.convert(model, hardware, sample=X)(X)
        finally:
            torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
