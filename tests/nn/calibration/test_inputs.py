"""`calibrate` and `calibrate_ranges` read one batch or several by the same rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import ohmformer as of
from ohmformer import BadInput

pytestmark = pytest.mark.filterwarnings("ignore::ohmformer.UnnamedSamples")
HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 4.0)
HARDWARE = of.replace(HARDWARE, "projection.array.inputs.range", "calibrated")
X = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0))
LONG = 2 * torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.zeros(2)


class Attention(nn.Module):
    """Causal attention, with a scale as second argument."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        x = x if scale is None else x * scale
        q, k, v = self.qkv(x)[:, None].chunk(3, dim=-1)
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0]


class Loader:
    """A data loader of another library: it has a length and yields batches, and cannot be indexed."""

    def __init__(self, *batches: Any) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def converted(sample: Any = X) -> nn.Module:
    torch.manual_seed(0)
    return of.convert(Attention().eval(), HARDWARE, sample=sample)


def ranges(inputs: Any) -> dict[str, list[float]]:
    model = converted()
    of.calibrate_ranges(model, inputs)
    return {name: t.flatten().tolist() for name, t in model.state_dict().items() if "ohmformer_ranges" in name}


def losses(inputs: Any) -> dict[str, float]:
    return of.calibrate(converted(), inputs, remedy="clip").losses


ONE = {
    "tensor": lambda: LONG,
    "array": lambda: LONG.numpy(),
    "mapping": lambda: {"x": LONG},
    "tuple of arguments": lambda: (LONG,),
    "list of one": lambda: [LONG],
    "list of a mapping": lambda: [{"x": LONG}],
    "list of arguments": lambda: [(LONG,)],
    "loader": lambda: DataLoader(TensorDataset(LONG), batch_size=2),
    "loader of another library": lambda: Loader(LONG),
    "generator": lambda: (x for x, _ in DataLoader(TensorDataset(LONG, LABELS), batch_size=2)),
}
TWO = {
    "list of tensors": lambda: [X, LONG],
    "list of arrays": lambda: [X.numpy(), LONG.numpy()],
    "list of mappings": lambda: [{"x": X}, {"x": LONG}],
    "list of tuples": lambda: [(X,), (LONG,)],
    "loader of another library": lambda: Loader(X, {"x": LONG}),
    "generator": lambda: iter([X, (LONG,)]),
}


@pytest.mark.parametrize("verb", [ranges, losses])
@pytest.mark.parametrize("forms", [ONE, TWO])
@pytest.mark.slow
def test_both_verbs_read_one_batch_and_several_alike(verb: Callable[[Any], Any], forms: dict[str, Any]) -> None:
    found = {name: verb(make()) for name, make in forms.items()}
    assert all(each == found[next(iter(forms))] for each in found.values()), found
    assert found[next(iter(forms))] != verb(X)


@pytest.mark.parametrize("verb", [of.calibrate, of.calibrate_ranges])
@pytest.mark.slow
def test_a_tuple_is_one_batch_of_arguments(verb: Callable[..., Any]) -> None:
    scale = torch.ones(4, 1, 1)
    model = converted((X, scale))
    verb(model, (X, scale))
    verb(model, [(X, scale), (LONG, scale[:2])])
    with pytest.raises(BadInput, match=r"is a list of 2 tensors, as many as .* give one batch as a tuple of arguments"):
        verb(model, [X, scale])


@pytest.mark.parametrize("verb", [of.calibrate, of.calibrate_ranges])
@pytest.mark.parametrize("bad", [None, "text", 3, {1}, {"x": X}.values(), [None], ["text"], [3], {}, [X[:0]], [X, {}]])
def test_other_inputs_are_refused_in_one_line(verb: Callable[..., Any], bad: Any) -> None:
    with pytest.raises(BadInput, match=r"^calibrate(_ranges)?: ") as caught:
        verb(converted(), bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("verb", [of.calibrate, of.calibrate_ranges])
@pytest.mark.parametrize("empty", [list, lambda: iter(()), Loader], ids=["list", "used generator", "loader"])
def test_no_batch_at_all_is_refused(verb: Callable[..., Any], empty: Callable[[], Any]) -> None:
    model = converted()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(BadInput, match=r"^calibrate(_ranges)?: (inputs|batches) yields no batch"):
        verb(model, empty())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
