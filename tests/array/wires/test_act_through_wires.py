"""Losses in wires within whole matrices: cut into arrays, at every level of fidelity, and in converted models."""

from itertools import product

import pytest
import torch

import ohmformer as of
from ohmformer.array.crossbar import program
from ohmformer.array.folded import fold
from ohmformer.array.folded_writes import write_folded
from ohmformer.array.multiply import mvm
from ohmformer.array.wires.effective import act_through_wires, exact
from ohmformer.errors import BadInput

WIRES = {"row": 200.0, "column": 300.0, "driver": 2000.0}


def array_with_wires(rows=8, columns=8, **changes):
    array = of.load_crossbar("clipformer_2024")
    quiet = {"kind": "none"}
    for path, value in {"rows": rows, "columns": columns, "cell.write_noise": quiet, "wires": WIRES, **changes}.items():
        array = of.replace(array, path, value)
    return array


def test_each_array_is_solved_on_its_own_with_its_empty_cells_at_g_min():
    array = array_with_wires()
    digits = torch.randint(0, 4, (2, 11, 13), generator=torch.Generator().manual_seed(0)).double()
    acting = act_through_wires(digits, array)
    full = torch.zeros(2, 16, 16, dtype=torch.double)
    full[:, :11, :13] = digits
    for m, i, j in product(range(2), (0, 8), (0, 8)):
        g = array.cell.g_min + array.step * full[m, i : i + 8, j : j + 8]
        expected = (exact(g[None], array.wires)[0] - array.cell.g_min) / array.step
        found = acting[m, i : i + 8, j : j + 8]
        torch.testing.assert_close(found, expected[: found.shape[0], : found.shape[1]])


def test_all_levels_compute_the_same_without_noise():
    array = array_with_wires()
    w, x = torch.randn(2, 11, 13, generator=torch.Generator().manual_seed(1)).unbind(0)
    x = x[:5]
    programmed = program(w, array)
    results = [mvm(x, programmed, level=level) for level in ("cell", "array", "noise")]
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(results[1], results[2], rtol=1e-4, atol=1e-4)
    without = mvm(x, program(w, array_with_wires(wires=None)), level="array")
    assert 0.01 < (results[1] - without).norm() / without.norm() < 0.5


def test_folded_writes_hold_the_same_as_whole_ones():
    array = array_with_wires(**{"cell.write_noise": {"kind": "sqrt_range", "gamma": 1.0, "sigma": 0.2}})
    codes = torch.randint(-255, 256, (11, 13), generator=torch.Generator().manual_seed(2)).float()
    whole = fold(of.array.crossbar.write(codes, array, stream=3))
    torch.testing.assert_close(write_folded(codes, array, stream=3).values, whole.values)


def test_first_order_is_refused_where_it_does_not_hold():
    with pytest.raises(BadInput, match=r"ir_drop.*'first_order': holds up to a loss of 1.*'exact'"):
        array_with_wires(64, 64, **{"wires.row": 100.0, "wires.ir_drop": "first_order"})
    with pytest.raises(BadInput, match="offset"):
        array_with_wires(encoding="offset")
    with pytest.raises(BadInput, match="row"):
        array_with_wires(**{"wires.row": -1.0})


def converted(model, sample, **changes):
    hardware = of.load("clipformer_tcad_2024")
    for role in ("projection", "attention"):
        hardware = of.replace(hardware, f"{role}.array.size", 16)
        hardware = of.replace(hardware, f"{role}.array.wires", WIRES | {"ir_drop": "first_order"} | changes)
    return of.convert(model, hardware, sample=sample, level="noise")


def test_a_sample_loses_the_same_alone_and_beside_others():
    model, task = of.load_model("bundled:fashion-vit"), of.load_task("bundled:fashion-mnist", 8)
    images = task.calibration[:4]
    crossbars = converted(model, images)
    with torch.no_grad():
        with of.samples(range(4)):
            together = crossbars(images)
        with of.samples([2]):
            torch.testing.assert_close(crossbars(images[2:3]), together[2:3], rtol=1e-4, atol=1e-4)


def test_a_query_reads_all_tokens_in_the_cells_as_in_one_pass():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=64)
    ).eval()
    ids = torch.randint(0, 50, (1, 20))
    crossbars = converted(model, ids)
    with torch.no_grad(), of.samples(["text"]):
        whole = crossbars(ids[:, :12]).logits[:, -1]
        first = crossbars(ids[:, :11], use_cache=True)
        step = crossbars(ids[:, 11:12], past_key_values=first.past_key_values).logits[:, -1]
    torch.testing.assert_close(step, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ohms", [{"row": 0.0, "column": 1e15}, {"column": 1e9}, {"driver": 1e13}, {"sense": 1e13}])
def test_resistances_at_which_no_current_flows_are_refused(ohms):
    """Such networks used to lose all digits, or to end in a failed factorization."""
    with pytest.raises(BadInput, match=r"'exact' holds up to a loss of 1e\+06.*; lower resistances or the size"):
        array_with_wires(64, 64, wires=WIRES | ohms)
    with pytest.raises(BadInput, match=r"'sweeps' holds up to a loss of 4.*cells; lower resistances or the size"):
        array_with_wires(64, 64, wires=WIRES | ohms | {"ir_drop": "sweeps"})


def test_large_exact_solutions_say_how_much_they_compute(monkeypatch):
    monkeypatch.setattr("ohmformer.array.wires.effective.effective_conductances", lambda g, wires: g)
    array = array_with_wires(1024, 1024, **{"wires.row": 1.0, "wires.column": 1.0})
    with pytest.warns(of.SlowWires, match=r"5\.5e\+12 operations for one matrix, in 1 array\(s\) of 1024 x 1024"):
        act_through_wires(torch.zeros(4, 4), array)
