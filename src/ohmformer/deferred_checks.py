"""Which checks of values on a GPU wait for the end of a call, so that the host need not wait for each of them?

A check of values on a GPU stops the host until the GPU has computed them. So during a call of a converted model, the
flags of all checks are kept, and read together when the call ends. On the CPU, and outside of calls, each check is made
at once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Error = Callable[[], Exception]
"""Makes the error of a failed check."""


class DeferredChecks:
    """Checks of one call that wait for its end.

    Attributes:
        outer: those of a call around it; None for none.
        flags: by device, what must be true, with the error otherwise.
    """

    def __init__(self, outer: DeferredChecks | None) -> None:
        self.outer = outer
        self.flags: dict[torch.device, list[tuple[torch.Tensor, Error]]] = {}

    def end(self) -> None:
        """Read all flags, and raise the error of the first check that failed."""
        import torch

        flags, self.flags = self.flags, {}
        for checks in flags.values():
            for holds, (_, error) in zip(torch.stack([flag for flag, _ in checks]).tolist(), checks, strict=True):
                if not holds:
                    raise error()


_active: ContextVar[DeferredChecks | None] = ContextVar("deferred checks", default=None)


def defer_checks() -> DeferredChecks:
    """Begin a call whose checks of values on a GPU wait for `stop_deferring`."""
    checks = DeferredChecks(_active.get())
    _active.set(checks)
    return checks


def stop_deferring(checks: DeferredChecks) -> None:
    """End the call that `defer_checks` began, and the calls inside it; `checks.end()` then reads its flags."""
    _active.set(checks.outer)


def waits(device: torch.device) -> bool:
    """True if checks of values on a device stop the host."""
    return device.type != "cpu"


def require(holds: torch.Tensor, error: Error) -> bool:
    """Make a check, or keep it for the end of the call.

    Args:
        holds: a boolean scalar that must be true.
        error: makes the error otherwise.

    Returns:
        True if the check waits: the caller then goes on with values that may be wrong, and must bound them where they
        could do harm, such as in an index.

    Raises:
        Exception: what `error` makes.
    """
    checks = _active.get()
    if checks is not None and waits(holds.device):
        checks.flags.setdefault(holds.device, []).append((holds, error))
        return True
    if not bool(holds):
        raise error()
    return False
