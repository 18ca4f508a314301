"""Energy, area and time of the library's arrays at other sizes, and the spread between models of converters.

python benchmarks/array_prices.py
"""

from __future__ import annotations

import ohmformer as of
from ohmformer.array.prices.converter_laws import AdcLaw
from ohmformer.array.prices.differences import converter_bits
from ohmformer.array.spec import Crossbar
from ohmformer.cost.array_costs import mvm_cost
from ohmformer.cost.scaled_array_prices import priced
from ohmformer.mapping.planning import plan

ARRAYS = ("puma_2019", "isaac_2016", "clipformer_2024", "xformer_2023_sram")
SIZES = (64, 128, 256, 512, 1024)
BITS = (4, 6, 8, 10, 12)


def row(name: str, array: Crossbar) -> str:
    """One full matrix of the size of the array: energy of one MAC, area of one array, time of a read and an access."""
    full, prices = plan(array.columns, array.rows, array), priced(array, "projection")
    energy = mvm_cost(full, 1, "projection").total / (array.rows * array.columns)
    area = prices.area * full.arrays / (array.rows * array.columns)
    return (
        f"| `{name}` | {array.rows} | {converter_bits(array)} | {energy * 1e12:.3f} pJ | {prices.area * 1e12:,.0f} um² "
        f"| {area * 1e12:.3f} um² | {prices.read_time * 1e9:.2f} ns | {prices.access_time * 1e9:.2f} ns |"
    )


def main() -> None:
    """Print both tables."""
    print(
        "| array | rows, columns | converter | energy of a MAC | area of an array | area of a weight | read | access |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in ARRAYS:
        for size in SIZES:
            print(row(name, of.replace(of.load_crossbar(name), "size", size)))
    print("\n| model | " + " | ".join(f"{bits} bits" for bits in BITS) + " |")
    print("|---" * (len(BITS) + 1) + "|")
    for kind, law in AdcLaw.kinds().items():
        found = [law().figures(bits) for bits in BITS]
        cells = (
            f"{each.energy * 1e12:.2f} pJ, {each.time * 1e9:.2f} ns, {each.area * 1e12:,.0f} um²" for each in found
        )
        print(f"| `{kind}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
