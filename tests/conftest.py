"""What all tests share: one thread, patient hypothesis, and the devices at hand."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch


def pytest_sessionstart() -> None:
    """One thread gives the same sums everywhere; the first call into torch is too slow for a deadline."""
    torch.set_num_threads(1)
    if not torch.cuda.is_available():  # kernels then run in Triton's interpreter, on tensors of the CPU
        os.environ.setdefault("TRITON_INTERPRET", "1")
    hypothesis.settings.register_profile("house", parent=hypothesis.settings(), deadline=None)
    hypothesis.settings.load_profile("house")


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = pytest.param("cuda", marks=(pytest.mark.gpu, NO_GPU))


@pytest.fixture(scope="session", params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device a numeric test should pass on."""
    return torch.device(request.param)


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A folder in which permissions count: as root, the test runs as a user who owns nothing but this folder."""
    folder, nobody, root = Path(tempfile.mkdtemp()), 65534, os.geteuid() == 0
    if root:
        os.chown(folder, nobody, nobody)
        os.setresuid(nobody, nobody, 0)
    try:
        yield folder
    finally:
        if root:
            os.setresuid(0, 0, 0)
        for path in (folder, *folder.glob("*")):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder)
