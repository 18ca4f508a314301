"""What does one cell do to a conductance: write noise, read noise, drift, faults, wear?"""

from importlib import import_module
from typing import Any

FILES = (
    *("cell_range", "closed_forms", "drift", "families", "faults", "interpolation", "kinds", "measured_kinds"),
    *("moments", "noise", "retention_kinds", "spec", "wear_kinds", "write_verify"),
)


def __getattr__(name: str) -> Any:
    """Import a file of this folder on first use, since some of them need torch."""
    if name in FILES:
        return import_module(f"ohmformer.device.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
