"""What all tests share: one thread, patient hypothesis, and the devices at hand."""

import hypothesis
import pytest
import torch


def pytest_sessionstart() -> None:
    """One thread gives the same sums everywhere; the first call into torch is too slow for a deadline."""
    torch.set_num_threads(1)
    hypothesis.settings.register_profile("house", parent=hypothesis.settings(), deadline=None)
    hypothesis.settings.load_profile("house")


CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))


@pytest.fixture(scope="session", params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device a numeric test should pass on."""
    return torch.device(request.param)
