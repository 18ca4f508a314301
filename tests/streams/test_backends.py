"""Which generator a device has, and how results name it."""

import pytest
import torch

from ohmformer.streams import backends


def test_the_cpu_has_a_generator_for_each_key() -> None:
    assert backends.backend_of("cpu") == "generators"
    assert not backends.counts(torch.device("cpu"))
    assert backends.drawn_on("cpu") == "cpu"


@pytest.mark.parametrize(("triton", "backend"), [(True, "philox_kernel"), (False, "philox")])
def test_a_gpu_counts_by_the_kernel_if_triton_is_there(
    monkeypatch: pytest.MonkeyPatch, triton: bool, backend: str
) -> None:
    monkeypatch.setattr(backends, "has_triton", lambda: triton)
    assert backends.backend_of(torch.device("cuda", 1)) == backend
    assert backends.counts("cuda:0")
    assert backends.drawn_on("cuda:0") == f"cuda, {backend}"
    assert backends.backend_of("mps") == "philox"
