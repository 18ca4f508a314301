"""Products on matrix units agree with those in double precision, and their bits depend on nothing else in a batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ohmformer.array.kernels.amx import factors
from tests.build import array
from tests.gpu.kernels import needs_amx

pytestmark = needs_amx


def operands(N: int, M: int, O: int, I: int) -> tuple[Tensor, Tensor]:
    """Codes [N, M, I] of up to 8 bits and a matrix [N, O, I]."""
    generator = torch.Generator().manual_seed(N + M + O + I)
    codes = torch.randint(-256, 257, (N, M, I), generator=generator).float()
    return codes, torch.randn(N, O, I, generator=generator)


def product(codes: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    I = codes.shape[-1]
    out = torch.full((*codes.shape[:2], matrix.shape[1]), torch.nan)
    return factors.multiply(factors.left(codes, I), factors.right(matrix, I, factors.PARTS), out, bias)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70), st.integers(1, 150))
def test_products_are_those_of_double_precision(N: int, M: int, O: int, I: int) -> None:
    codes, matrix = operands(N, M, O, I)
    exact = codes.double() @ matrix.double().mT
    size = codes.double().abs() @ matrix.double().abs().mT
    assert bool(((product(codes, matrix) - exact).abs() <= 1e-6 * size).all())
    bias = torch.linspace(-3, 3, O)
    assert bool(((product(codes, matrix, bias) - exact - bias).abs() <= 1e-6 * (size + 3)).all())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 100), st.integers(1, 70), st.integers(1, 150), st.data())
def test_a_row_has_the_same_bits_wherever_it_stands(M: int, O: int, I: int, data: st.DataObject) -> None:
    codes, matrix = operands(1, M, O, I)
    order = torch.tensor(data.draw(st.lists(st.integers(0, M - 1), min_size=1, max_size=120)))
    assert torch.equal(product(codes[:, order], matrix)[0], product(codes, matrix)[0, order])
    columns = torch.tensor(data.draw(st.lists(st.integers(0, O - 1), min_size=1, max_size=70)))
    assert torch.equal(product(codes, matrix[:, columns])[0], product(codes, matrix)[0][:, columns])


def test_matrices_may_be_transposed_and_scaled() -> None:
    codes, matrix = operands(2, 5, 40, 70)
    turned = factors.right(matrix.mT.contiguous().mT, 70, factors.PARTS, 0.25)
    out = factors.multiply(factors.left(codes, 70), turned, torch.empty(2, 5, 40))
    assert torch.equal(out, product(codes, matrix * 0.25))


@pytest.mark.parametrize(
    ("inputs", "converted", "exact"),
    [
        ({"kind": "amplitude", "bits": 8}, False, True),
        ({"kind": "amplitude", "bits": 10}, True, False),
        ({"kind": "bit_serial", "bits": 8}, False, True),
        ({"kind": "bit_serial", "bits": 16}, False, False),
        ({"kind": "bit_serial", "bits": 16}, True, True),
    ],
)
def test_codes_of_more_than_eight_bits_are_not_exact(inputs: dict[str, object], converted: bool, exact: bool) -> None:
    assert factors.exact(array(inputs=inputs), signed=True, converted=converted) == exact


@pytest.mark.parametrize("shape", [(2, 1), (1, 2), (1, 1), (2, 2)])
def test_one_matrix_takes_all_inputs_as_rows(shape: tuple[int, int]) -> None:
    codes = torch.ones(2, 2, 3, 5)
    inputs, lead = factors.matched(codes, shape)
    assert lead == (2, 2)
    assert tuple(inputs.shape) == ((1, 12, 5) if shape == (1, 1) else (4, 3, 5))
    assert len(factors.expanded(torch.ones(*shape, 7, 5), lead)) == (1 if shape == (1, 1) else 4)
