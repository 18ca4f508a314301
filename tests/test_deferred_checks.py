"""Checks of values on a GPU wait for the end of a call; those on the CPU are made at once."""

import pytest
import torch

from ohmformer import deferred_checks
from ohmformer.deferred_checks import defer_checks, require, stop_deferring
from ohmformer.errors import BadInput

TRUE, FALSE = torch.tensor(True), torch.tensor(False)


def bad(text: str = "wrong") -> BadInput:
    return BadInput(text)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred_checks, "waits", lambda device: True)


def test_the_cpu_never_waits() -> None:
    assert not deferred_checks.waits(torch.device("cpu"))
    assert deferred_checks.waits(torch.device("cuda", 1))
    checks = defer_checks()
    try:
        assert not require(TRUE, bad)
        with pytest.raises(BadInput, match="wrong"):
            require(FALSE, bad)
    finally:
        stop_deferring(checks)
    checks.end()


@pytest.mark.usefixtures("waiting")
def test_outside_of_calls_checks_are_made_at_once() -> None:
    with pytest.raises(BadInput, match="wrong"):
        require(FALSE, bad)


@pytest.mark.usefixtures("waiting")
def test_the_first_check_that_failed_is_told_at_the_end() -> None:
    checks = defer_checks()
    assert require(TRUE, bad)
    assert require(FALSE, lambda: bad("first"))
    assert require(FALSE, lambda: bad("second"))
    stop_deferring(checks)
    with pytest.raises(BadInput, match="first"):
        checks.end()
    checks.end()  # they are told once


@pytest.mark.usefixtures("waiting")
def test_a_call_inside_a_call_has_checks_of_its_own() -> None:
    outer = defer_checks()
    inner = defer_checks()
    require(FALSE, bad)
    stop_deferring(inner)
    require(TRUE, bad)
    stop_deferring(outer)
    outer.end()
    with pytest.raises(BadInput, match="wrong"):
        inner.end()
