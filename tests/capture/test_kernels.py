"""No product vanishes: each is captured, or listed as digital, or refused, by `convert` and by `trace`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ohmformer as of
from ohmformer import BadInput
from ohmformer.nn.convert.convert import StaysDigital
from ohmformer.tracing.operations import LeftOut
from ohmformer.workload.spec import Elementwise, Lookup, StaticMatMul

HARDWARE = of.load("clipformer_tcad_2024")
X = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
EYE = torch.eye(8)
WORDS = torch.arange(24).reshape(3, 8)
Body = Callable[["Inner", Tensor, Tensor], Tensor]


class Inner(nn.Module):
    """Anything that may be done with two activations, a matrix w[8, 8], a bank of them, and a layer."""

    def __init__(self, body: Body, layer: nn.Module | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.body, self.layer = body, layer
        self.w = nn.Parameter(torch.randn(8, 8, generator=generator))
        self.bank = nn.Parameter(torch.randn(3, 8, 8, generator=generator))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.body(self, a, b)


class Model(nn.Module):
    def __init__(self, inner: Inner) -> None:
        super().__init__()
        self.q, self.k, self.inner = nn.Linear(8, 8), nn.Linear(8, 8), inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.q(x), self.k(x))


def model(body: Body, layer: nn.Module | None = None) -> Model:
    torch.manual_seed(2)
    return Model(Inner(body, layer)).eval()


def each(body: Callable[..., Tensor]) -> Body:
    """A function of two matrices, for one sample after another."""
    return lambda s, a, b: torch.stack([body(p, q) for p, q in zip(a, b, strict=True)])


def weighted(body: Callable[..., Tensor]) -> Body:
    """A function of an activation and the matrix w, for one sample after another."""
    return lambda s, a, b: torch.stack([body(p, s.w) for p in a])


REFUSED: dict[str, Body] = {
    "multi_dot": each(lambda p, q: torch.linalg.multi_dot([p, q, p])),
    "chain_matmul": each(lambda p, q: torch.chain_matmul(p, q, p)),
    "vecdot": lambda s, a, b: torch.linalg.vecdot(a, b),
    "einsum of three": lambda s, a, b: torch.einsum("bij,bjk,bkl->bil", a, b, a),
    "einsum of a diagonal": lambda s, a, b: torch.einsum("bii,bij->bj", a, b),
    "einsum by value": lambda s, a, b: torch.einsum("bij,bij->bij", a, b),
    "einsum with lists": lambda s, a, b: torch.einsum(a, [0, 1, 2], b, [0, 2, 3], [0, 1, 3]),
    "einsum of a sum": lambda s, a, b: torch.einsum("bij,bkl->bik", a, b),
    "einsum with w": lambda s, a, b: torch.einsum("bnd,de,bne->bn", a, s.w, b),
    "tensordot": lambda s, a, b: torch.tensordot(a, b, dims=([2], [2])).sum(2),
    "kron": lambda s, a, b: torch.kron(a[:, :1], b[:, :1]),
    "baddbmm": lambda s, a, b: torch.baddbmm(a, a, b),
    "addbmm": lambda s, a, b: torch.addbmm(a[0], a, b),
    "addr": each(lambda p, q: torch.addr(p, p[0], q[0])),
    "Tensor.addr": each(lambda p, q: p.addr(p[0], q[0])),
    "outer": each(lambda p, q: torch.outer(p[0], q[0])),
    "Tensor.outer": each(lambda p, q: p[0].outer(q[0])),
    "ger": each(lambda p, q: torch.ger(p[0], q[0])),
    "inner": lambda s, a, b: torch.inner(a, b).sum(2),
    "dot": each(lambda p, q: torch.dot(p[0], q[0])[None]),
    "Tensor.vdot": each(lambda p, q: p[0].vdot(q[0])[None]),
    "__rmatmul__": lambda s, a, b: a.__rmatmul__(b),
    "matmul with out": lambda s, a, b: torch.matmul(a, b, out=torch.empty(3, 8, 8)),
    "bmm with out": lambda s, a, b: torch.bmm(a, b, out=torch.empty(3, 8, 8)),
    "whole numbers": lambda s, a, b: ((a * 10).long() @ (b * 10).long()).float(),
    "sparse @": each(lambda p, q: p.to_sparse_csr() @ q),
    "bilinear": lambda s, a, b: F.bilinear(a, b, s.bank),
    "conv_transpose1d": lambda s, a, b: torch.cat(
        [F.conv_transpose1d(p[None], q[..., None]) for p, q in zip(a, b, strict=True)]
    ),
    "multi_head_attention_forward": lambda s, a, b: F.multi_head_attention_forward(
        a, a, a, 8, 2, torch.ones(24, 8), None, None, None, False, 0.0, s.w, None
    )[0],
}
"""Two activations meet: only their user knows what that is."""

DIGITAL: dict[str, Body] = {
    "solve": lambda s, a, b: torch.linalg.solve(a + 9 * EYE, b),
    "solve_ex": lambda s, a, b: torch.linalg.solve_ex(a + 9 * EYE, b)[0],
    "solve with w": lambda s, a, b: torch.linalg.solve(s.w, a),
    "aten.linalg_solve": lambda s, a, b: torch.ops.aten.linalg_solve(a + 9 * EYE, b),
    "inv": lambda s, a, b: torch.linalg.inv(a + 9 * EYE) + b,
    "Tensor.inverse": lambda s, a, b: (a + 9 * EYE).inverse() + b,
    "pinv": lambda s, a, b: torch.linalg.pinv(a) + b,
    "lstsq": lambda s, a, b: torch.linalg.lstsq(a, b).solution,
    "cholesky": lambda s, a, b: torch.linalg.cholesky(EYE * 90 + (a + a.mT) * 0.01) + b,
    "cholesky_solve": lambda s, a, b: torch.cholesky_solve(b, EYE * 9 + a.tril()),
    "cholesky_inverse": lambda s, a, b: torch.cholesky_inverse(EYE * 9 + a.tril()) + b,
    "qr": lambda s, a, b: torch.linalg.qr(a)[0] + b,
    "lu": lambda s, a, b: torch.linalg.lu(a)[2] + b,
    "lu_solve": lambda s, a, b: torch.linalg.lu_solve(*torch.linalg.lu_factor(a + 9 * EYE), b),
    "ldl": lambda s, a, b: torch.linalg.ldl_factor(a + a.mT)[0] + b,
    "svd": lambda s, a, b: torch.linalg.svdvals(a)[..., None] + b,
    "matrix_norm": lambda s, a, b: torch.linalg.matrix_norm(a, 2)[..., None, None] + b,
    "eigh": lambda s, a, b: torch.linalg.eigvalsh(a + a.mT)[..., None] + b,
    "eig": lambda s, a, b: torch.linalg.eigvals(a).real[..., None] + b,
    "det": lambda s, a, b: torch.linalg.det(a)[:, None, None] + b,
    "slogdet": lambda s, a, b: torch.linalg.slogdet(a)[1][:, None, None] + b,
    "matrix_power": lambda s, a, b: torch.linalg.matrix_power(a, 3) + b,
    "matrix_exp": lambda s, a, b: torch.matrix_exp(a * 0.1) + b,
    "solve_triangular": lambda s, a, b: torch.linalg.solve_triangular(a.triu() + 9 * EYE, b, upper=True),
    "triangular_solve": lambda s, a, b: torch.triangular_solve(b, a + 9 * EYE)[0],
    "householder_product": lambda s, a, b: torch.linalg.householder_product(a, b[:, 0]) + b,
    "ormqr": lambda s, a, b: torch.ormqr(*torch.geqrf(a), b),
    "tensorsolve": each(lambda p, q: torch.linalg.tensorsolve(p + 9 * EYE, q[:, 0])),
    "tensorinv": each(lambda p, q: torch.linalg.tensorinv(p + 9 * EYE, ind=1) + q),
    "fft": lambda s, a, b: torch.fft.fft(a).real + b,
    "rfft, irfft": lambda s, a, b: torch.fft.irfft(torch.fft.rfft(a) * torch.fft.rfft(b)),
    "fft2": lambda s, a, b: torch.fft.fft2(a).real + b,
    "stft": lambda s, a, b: torch.stft(a.flatten(1), 16, window=torch.ones(16), return_complex=True).real.mean() + b,
    "cdist": lambda s, a, b: torch.cdist(a, b),
    "cdist with w": lambda s, a, b: torch.cdist(a, s.w.expand(3, -1, -1)),
    "pdist": each(lambda p, q: F.pdist(p)),
    "baddbmm_": lambda s, a, b: a.clone().baddbmm_(a, b),
    "addmm_": each(lambda p, q: p.clone().addmm_(p, q)),
    "addmm_ with w": weighted(lambda p, w: p.clone().addmm_(p, w)),
    "addmv_": each(lambda p, q: q[0].clone().addmv_(p, q[0])),
    "addr_": each(lambda p, q: p.clone().addr_(p[0], q[0])),
    "sparse.mm": each(lambda p, q: torch.sparse.mm(p.to_sparse(), q)),
    "sparse.addmm": each(lambda p, q: torch.sparse.addmm(q, p.to_sparse(), q)),
    "sampled_addmm": each(lambda p, q: torch.sparse.sampled_addmm(EYE.to_sparse_csr(), p, q).to_dense()),
    "smm": each(lambda p, q: torch.smm(p.to_sparse(), q).to_dense()),
    "hspmm": each(lambda p, q: torch.hspmm(p.to_sparse(), q).to_dense()),
    "embedding_bag of w": lambda s, a, b: F.embedding_bag(WORDS % 8, s.w, per_sample_weights=a[:, 0], mode="sum"),
    "embedding_bag of activations": lambda s, a, b: F.embedding_bag(
        WORDS, a.flatten(0, 1), per_sample_weights=b[:, 0].contiguous(), mode="sum"
    ),
    "fused attention below": lambda s, a, b: torch.ops.aten._scaled_dot_product_attention_math(a, b, b)[0],
    "aten.mm": each(lambda p, q: torch.ops.aten.mm(p, q)),
    "aten.einsum": lambda s, a, b: torch.ops.aten.einsum("bij,bjk->bik", [a, b]),
    "_int_mm": each(lambda p, q: torch._int_mm(F.pad(p, (0, 0, 0, 16)).to(torch.int8), q.to(torch.int8)).float()),
    "cov": each(lambda p, q: torch.cov(p) + q),
    "corrcoef": each(lambda p, q: torch.corrcoef(p) + q),
    "tensordot with w": lambda s, a, b: torch.tensordot(a, s.w, dims=1),
    "inner with w": lambda s, a, b: torch.inner(a, s.w),
    "kron with w": weighted(torch.kron),
    "outer with w": weighted(lambda p, w: p[0].outer(w[0])),
    "addr with w": weighted(lambda p, w: torch.addr(p, p[0], w[0])),
    "dot with w": weighted(lambda p, w: torch.dot(w[0], p[0])[None]),
    "chain_matmul with w": weighted(lambda p, w: torch.chain_matmul(p, w, w)),
    "multi_dot with w": weighted(lambda p, w: torch.linalg.multi_dot([p, w, w])),
    "addbmm with a bank": lambda s, a, b: torch.addbmm(b[0], a, s.bank),
    "matmul with w, out": lambda s, a, b: torch.matmul(a, s.w.detach(), out=torch.empty(3, 8, 8)),
    "sparse.mm with w": weighted(lambda p, w: torch.sparse.mm(w.to_sparse(), p)),
    "conv3d": lambda s, a, b: F.conv3d(a[..., None, None], s.w[..., None, None, None])[..., 0, 0] + b,
    "conv_tbc": lambda s, a, b: (
        torch.conv_tbc(a.transpose(0, 1).contiguous(), s.w[None], torch.zeros(8)).transpose(0, 1) + b
    ),
    "conv_transpose1d with w": lambda s, a, b: F.conv_transpose1d(a, s.w[..., None]) + b,
    "convolution": lambda s, a, b: torch.convolution(a, s.w[..., None], None, (1,), (0,), (1,), False, (0,), 1) + b,
    "NumPy": lambda s, a, b: torch.from_numpy(a.detach().numpy() @ b.detach().numpy()),
    "DLPack": lambda s, a, b: torch.from_dlpack(a.detach()) + b,
}
"""No known function multiplies, or what it multiplies by has no cells."""

COUNTED: dict[str, Body] = {
    "constant": lambda s, a, b: torch.eye(8) @ a,
    "w inverted": lambda s, a, b: a @ torch.linalg.inv(s.w),
    "w by pseudoinverse": lambda s, a, b: a @ torch.linalg.pinv(s.w),
    "w by matrix_exp": lambda s, a, b: F.linear(a, torch.matrix_exp(s.w - s.w.T)),
    "compares samples": lambda s, a, b: a[:, 0] @ b[:, 0].T,
}
"""Products that are understood but not for crossbars: digital lanes compute them."""

CAPTURED: dict[str, Body] = {
    "linear": lambda s, a, b: F.linear(a, s.w) + b,
    "below linear": lambda s, a, b: torch._C._nn.linear(a, s.w),
    "@": lambda s, a, b: a @ s.w + b,
    "einsum": lambda s, a, b: torch.einsum("bnd,de->bne", a, s.w),
    "einsum with spaces": lambda s, a, b: torch.einsum("b n d, d e -> b n e", [a, s.w]),
    "mv": weighted(lambda p, w: torch.mv(w, p[0])),
    "vector": weighted(lambda p, w: w @ p[0]),
    "addmm": lambda s, a, b: torch.stack([torch.addmm(q, p, s.w) for p, q in zip(a, b, strict=True)]),
    "addmv": lambda s, a, b: torch.stack([torch.addmv(q[0], s.w, p[0]) for p, q in zip(a, b, strict=True)]),
    "baddbmm": lambda s, a, b: torch.baddbmm(b, a, s.bank),
    "conv1d": lambda s, a, b: F.conv1d(a, s.w[..., None]) + b,
    "conv2d": lambda s, a, b: F.conv2d(a[..., None], s.w[..., None, None])[..., 0] + b,
    "unfold": lambda s, a, b: F.unfold(a[:, None], (2, 4), stride=(2, 4)).transpose(1, 2) @ s.w,
}
"""Products with weights, each on its crossbars."""

LAYERS: dict[str, tuple[nn.Module, Body]] = {
    "LSTMCell": (nn.LSTMCell(8, 8), lambda s, a, b: s.layer(a[:, 0])[0]),
    "GRUCell": (nn.GRUCell(8, 8), lambda s, a, b: s.layer(a[:, 0])),
    "RNNCell": (nn.RNNCell(8, 8), lambda s, a, b: s.layer(a[:, 0])),
    "LSTM": (nn.LSTM(8, 8, batch_first=True), lambda s, a, b: s.layer(a)[0]),
    "LSTM on parameters": (nn.LSTM(8, 8, batch_first=True), lambda s, a, b: s.layer(s.bank)[0] + a),
    "GRU": (nn.GRU(8, 8, batch_first=True), lambda s, a, b: s.layer(a)[0]),
    "RNN": (nn.RNN(8, 8, batch_first=True), lambda s, a, b: s.layer(a)[0]),
    "ConvTranspose2d": (nn.ConvTranspose2d(8, 8, 1), lambda s, a, b: s.layer(a[..., None])[..., 0] + b),
    "Conv3d": (nn.Conv3d(8, 8, 1), lambda s, a, b: s.layer(a[..., None, None])[..., 0, 0] + b),
    "EmbeddingBag": (
        nn.EmbeddingBag(8, 8, mode="sum"),
        lambda s, a, b: s.layer(WORDS % 8, per_sample_weights=a[:, 0]),
    ),
}
"""Layers whose products hide in kernels."""

BY_VALUE: dict[str, Body] = {
    "cross": lambda s, a, b: torch.linalg.cross(a[..., :3], b[..., :3]),
    "norm": lambda s, a, b: torch.linalg.vector_norm(a, dim=-1)[..., None] + b,
    "similarity": lambda s, a, b: F.cosine_similarity(a, b, dim=-1),
    "transform of weights": lambda s, a, b: a + torch.fft.fft(s.w).real + torch.linalg.svdvals(s.w),
    "shapes": lambda s, a, b: a + torch.from_numpy(torch.arange(8.0)[None].numpy()),
}
"""Work value by value, and work on parameters alone: no product of activations."""


@pytest.mark.filterwarnings("ignore:torch.chain_matmul", "ignore:Sparse")
@pytest.mark.parametrize("name", REFUSED)
def test_two_activations_are_refused_by_both_halves(name: str) -> None:
    for use in (_convert, of.trace):
        with pytest.raises(BadInput, match=r"^inner: (multiplies two activations|calls multi_head).*rules={'inner'"):
            use(model(REFUSED[name]), X)


@pytest.mark.filterwarnings("ignore:torch.chain_matmul", "ignore:Sparse", "ignore:torch.triangular_solve")
@pytest.mark.parametrize("name", [*DIGITAL, *LAYERS])
def test_hidden_products_are_listed_by_convert_and_refused_by_trace(name: str) -> None:
    layer, body = (None, DIGITAL[name]) if name in DIGITAL else LAYERS[name]
    where = "inner" if layer is None else "inner.layer"
    with pytest.warns(StaysDigital, match=rf"in {where}: "):
        converted = _convert(model(body, layer), X)
    digital = of.capture_table(converted).left_over
    assert digital
    assert {row.module for row in digital} == {where}
    with pytest.raises(
        BadInput, match=rf"^{where}: .* is not understood.*leave it out with rules={{'{where}': None}}$"
    ):
        of.trace(model(body, layer), X)
    with pytest.warns(LeftOut, match=r"is left out of the workload by rule"):
        of.trace(model(body, layer), X, rules={where: None})


@pytest.mark.parametrize("name", COUNTED)
def test_digital_products_are_listed_by_convert_and_counted_by_trace(name: str) -> None:
    with pytest.warns(StaysDigital, match="in inner: "):
        _convert(model(COUNTED[name]), X)
    macs = 3 * 8 * 3 if name == "compares samples" else 3 * 8 * 8 * 8
    with pytest.warns(LeftOut, match="1 product stays digital, the first in inner: "):
        work = of.trace(model(COUNTED[name]), X)
    counted = [op for op in work.ops if op.name == "inner"]
    assert [op.elements for op in counted if isinstance(op, Elementwise)] == [macs]


@pytest.mark.parametrize("name", CAPTURED)
def test_products_with_weights_are_captured_by_both_halves(name: str) -> None:
    converted = _convert(model(CAPTURED[name]), X)
    rows = [row for row in of.capture_table(converted).rows if row.module.startswith("inner")]
    assert rows
    assert {row.engine for row in rows} == {"projection"}
    found = [op for op in of.trace(model(CAPTURED[name]), X).ops if op.name.startswith("inner")]
    assert any(isinstance(op, StaticMatMul) for op in found)


@pytest.mark.parametrize("name", BY_VALUE)
def test_work_by_value_is_no_product(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", StaysDigital)
        converted = _convert(model(BY_VALUE[name]), X)
    assert all(row.module in "qk" for row in of.capture_table(converted).rows)


def test_an_embedding_bag_is_a_lookup() -> None:
    bag = nn.EmbeddingBag(8, 8, mode="sum")
    found = of.trace(model(lambda s, a, b: s.layer(WORDS % 8) + a[:, 0], bag), X)
    assert [(op.vectors, op.width, op.entries) for op in found.ops if isinstance(op, Lookup)] == [(24, 8, 8)]


def _convert(model: nn.Module, x: Tensor) -> Any:
    return of.convert(model, HARDWARE, sample=x)
