"""What does one crossbar with its converters compute?

`program` writes a matrix once, `mvm` multiplies with it many times.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    **dict.fromkeys(("Programmed", "program", "write"), "crossbar"),
    **dict.fromkeys(("Folded", "fold", "write_folded", "folded_product"), "folded"),
    **dict.fromkeys(("mvm", "LEVELS"), "multiply"),
    **dict.fromkeys(("unbiased_codes", "quantise_unbiased"), "bias_correction"),
    "held_moments": "code_moments",
    "counting": "event_counter",
}


def __getattr__(name: str) -> Any:
    """Public functions from the files that hold them: looked up late, since most need torch."""
    if name in _HOMES:
        return getattr(import_module(f"ohmformer.array.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
