"""What does one cell do to a conductance: how does it miss, wander and break?"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """The files of this folder: looked up late, since some need torch."""
    if name in ("closed_forms", "drift", "families", "faults", "moments", "noise", "spec", "write_verify"):
        return import_module(f"ohmformer.device.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
