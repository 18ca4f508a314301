"""Ages of tokens that are digital first: a token is in its cells when it leaves the recent window."""

from __future__ import annotations

import numpy as np
import pytest

from ohmformer.dataflow.retention.pass_ages import leaving_windows
from ohmformer.dataflow.serving.serve import serve
from ohmformer.dataflow.simulate import simulate
from ohmformer.hardware.ages import OperandAges
from ohmformer.mitigation.spec import Conditioning
from ohmformer.workload.shapes import shapes
from tests.cost.test_kv_conditioning import CAUSAL, CLIPFORMER

TIMES = OperandAges("k", "attention.key", 0, np.arange(6.0), np.arange(6.0) + 0.5, np.full(6, -np.inf), causal=True)


@pytest.mark.parametrize(
    ("kv", "written"),
    [
        (None, [0, 1, 2, 3, 4, 5]),
        (Conditioning(first_tokens=2), [2, 2, 2, 3, 4, 5]),
        (Conditioning(last_tokens=2), [2, 3, 4, 5, 5.5, 5.5]),
        (Conditioning(first_tokens=1, last_tokens=2), [3, 3, 4, 5, 5.5, 5.5]),
        (Conditioning(first_tokens=9), [5.5] * 6),
        (Conditioning(first_tokens=3, last_tokens=3), [5.5] * 6),
    ],
)
def test_by_hand(kv: Conditioning | None, written: list[float]) -> None:
    assert leaving_windows(TIMES, kv).written.tolist() == written


@pytest.mark.parametrize("kv", [Conditioning(first_tokens=2), Conditioning(last_tokens=3),
                                Conditioning(first_tokens=2, last_tokens=3)])  # fmt: skip
def test_a_pass(kv: Conditioning) -> None:
    """Token k is written when token k + `last_tokens` comes."""
    run = simulate(shapes(CAUSAL, phase="prefill"), CLIPFORMER, kv=kv)
    found = run.timeline.ages().operands[1]
    in_cells = slice(kv.first_tokens, 24 - kv.last_tokens)
    assert np.all(np.diff(found.written[in_cells]) >= 0)
    for k in range(kv.first_tokens, 24 - kv.last_tokens):
        assert found.written[k] <= found.read[k + kv.last_tokens]
    assert np.all(found.written[: kv.first_tokens] == found.written[kv.first_tokens])
    assert np.all(np.isfinite(found.written))


@pytest.mark.parametrize("prompt", [3, 12])
@pytest.mark.parametrize("kv", [Conditioning(first_tokens=2, last_tokens=3), Conditioning(first_tokens=50)])
def test_a_request(prompt: int, kv: Conditioning) -> None:
    """Tokens of the prompt that are in the window at its end are written by the steps."""
    ages = serve(CAUSAL, CLIPFORMER, prompt=prompt, generate=8, kv=kv).ages()
    plain = serve(CAUSAL, CLIPFORMER, prompt=prompt, generate=8).ages()
    assert ages.longest < plain.longest
    for operand in ages.operands:
        assert np.all(np.isfinite(operand.written))
        n = len(operand.written)
        for k in range(kv.first_tokens, n - kv.last_tokens):
            before = operand.read[k + kv.last_tokens - 1]
            assert operand.written[k] <= operand.read[k + kv.last_tokens]
            if k + kv.last_tokens >= prompt:
                assert operand.written[k] > before
