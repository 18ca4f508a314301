"""`program` and `mvm` against an implementation that shares no code with them, random numbers included."""

from typing import Any

import numpy as np
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from ohmformer.array import mvm, program
from tests.agreement import oracle
from tests.build import NONE, PROPORTIONAL, SQRT_RANGE, UNIFORM, WRITE_NOISES, array, cell


class Recorder:
    """Stands for a stream: draws from NumPy and keeps what was drawn under the key of the stream."""

    by_sample = False
    kernels = "torch"

    def __init__(self, seed: int, key: tuple[Any, ...] = (), log: dict[Any, list[np.ndarray]] | None = None) -> None:
        self.seed, self.key, self.log = seed, key, {} if log is None else log

    def child(self, *parts: Any) -> "Recorder":
        return type(self)(self.seed, (*self.key, *parts), self.log)

    def open(self, device: Any) -> "Recorder":
        return self

    def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        drawn = self.log.setdefault(self.key, [])
        rng = np.random.default_rng([self.seed, len(drawn), *repr(self.key).encode()])
        drawn.append(rng.standard_normal(shape))
        return torch.as_tensor(drawn[-1]).to(like)


@st.composite
def machines(draw: st.DrawFn) -> oracle.Machine:
    bits = draw(st.integers(2, 9))
    bits_per_cell = draw(st.integers(1, bits))
    encoding = draw(st.sampled_from(["differential", "offset"]))
    bases = st.none() | st.integers(1, 2**bits_per_cell) if encoding == "differential" else st.none()
    return oracle.Machine(
        rows=draw(st.integers(1, 9)),
        columns=draw(st.integers(1, 5)),
        bits=bits,
        bits_per_cell=bits_per_cell,
        radix=draw(bases),
        redundancy=draw(st.sampled_from([1, 2, 3])),
        encoding=encoding,
        g_min=draw(st.sampled_from([0.0, 1e-7, 2e-6])),
        g_max=1e-5,
        write=draw(st.sampled_from(WRITE_NOISES)),
        read=draw(st.sampled_from([NONE, PROPORTIONAL, UNIFORM, {"kind": "sqrt", "sigma": 0.05}])),
        streaming=draw(st.sampled_from(["bit_serial", "amplitude"])),
        input_bits=draw(st.integers(2, 6)),
        signed=draw(st.booleans()),
        adc_bits=draw(st.sampled_from([None, 3, 6, 9])),
        subtract=draw(st.sampled_from(["digital", "analog"])),
    )


def hardware(m: oracle.Machine) -> Any:
    return array(
        rows=m.rows,
        columns=m.columns,
        cell=cell(g_min=m.g_min, g_max=m.g_max, write_noise=m.write, read_noise=m.read),
        encoding=m.encoding,
        bits=m.bits,
        bits_per_cell=m.bits_per_cell,
        radix=m.radix,
        redundancy=m.redundancy,
        inputs={"kind": m.streaming, "bits": m.input_bits},
        subtract=m.subtract,
        adc={"bits": m.adc_bits or "ideal"},
    )


def silent_half(m: oracle.Machine) -> bool:
    """Whether the halves of a pair share random numbers: the unused one shows none."""
    kind = m.write["kind"]
    return kind in ("none", "sqrt_range") or (kind in ("proportional", "lognormal") and m.g_min == 0)


@settings(max_examples=120)
@given(machines(), st.integers(1, 12), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_same_numbers_as_an_independent_implementation(m: oracle.Machine, inputs: int, outputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((outputs, inputs))
    top = 2 ** (m.input_bits - 1) - 1 if m.signed else 2**m.input_bits - 1
    x = rng.integers(-top if m.signed else 0, top + 1, (2, inputs))
    stream = Recorder(seed)

    w_range = float(np.abs(w).max())
    programmed = program(torch.as_tensor(w), hardware(m), stream=stream)  # type: ignore[arg-type]
    found = mvm(
        torch.as_tensor(x, dtype=torch.float64), programmed, level="cell", x_range=top, signed=m.signed,
        stream=stream.child("mvm"),  # type: ignore[arg-type]
    ).numpy()  # fmt: skip

    def eps_write(what: str, s: int, p: int, o: int, i: int) -> float:
        drawn = stream.log.get((what, "write"))
        return 0.0 if drawn is None else drawn[s][0 if silent_half(m) else p, o, i]

    def eps_read(v: int, z: int, s: int, first: int, side: str, column: int, i: int) -> float:
        drawn = stream.log.get(("mvm", v, z, s, first, side))
        return 0.0 if drawn is None else drawn[0][column, i]

    try:
        expected = oracle.multiply(x, w, w_range, m, eps_write, eps_read)
    except oracle.Tie:
        reject()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * (np.abs(expected).max() + w_range))


def test_one_device_by_hand() -> None:
    """A single cell, by hand: 3/3 of 10 uS, gamma sigma 0.3, eps -1.0: 10 - 0.3 * 9.9 = 7.03 uS."""

    class One(Recorder):
        def normal(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
            return torch.full(shape, -1.0).to(like)

    hardware = array(bits=2, cell=cell(write_noise=SQRT_RANGE))
    programmed = program(torch.tensor([[1.0]], dtype=torch.float64), hardware, stream=One(0))  # type: ignore[arg-type]
    assert np.isclose(float(programmed.digits[0, 0, 0, 0]), (7.03e-6 - 1e-7) / 3.3e-6)
