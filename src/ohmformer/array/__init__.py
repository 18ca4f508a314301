"""How are values written into one crossbar, and what does it compute, at which level of fidelity?

The path of a matrix and of its inputs, and the file of each step:

- value to code: `codes.codec.Codec` (scaling, clipping, rounding, bias correction), on `encoding.quantize`; every
  write takes one;
- code to the digits of its cells: `encoding.signed_digits`;
- writing the cells (write noise, write-verify, drift, faults): `crossbar.write`, slice by slice in `writing.Writer`;
  or values without codes and digits, one slice for what the others leave: `residual.writing.write_residually`;
- input to what is applied to the rows: `encoding.quantize_input` and `encoding.bit_planes`;
- choice of the fidelity level, and reading the columns: `multiply.product`; the `cell` level is in `cell_level`;
- column current to converter code: `converters.convert_`.

`program` writes a matrix once, `mvm` multiplies by it many times. Where no converter stands between slices, `folded`
holds a written matrix as one tensor of values.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Programmed": "programmed",
    **dict.fromkeys(("program", "write"), "crossbar"),
    **dict.fromkeys(("Folded", "fold", "folded_product"), "folded"),
    "write_folded": "folded_writes",
    **dict.fromkeys(("mvm", "LEVELS"), "multiply"),
    **dict.fromkeys(("unbiased_codes", "quantize_unbiased"), "codes.bias_correction"),
    **dict.fromkeys(("held_moments", "moments_of_values"), "codes.code_moments"),
    "counting": "event_counter",
}


def __getattr__(name: str) -> Any:
    """Import a public function from its file on first use, since most of these files need torch."""
    if name in _HOMES:
        return getattr(import_module(f"ohmformer.array.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
