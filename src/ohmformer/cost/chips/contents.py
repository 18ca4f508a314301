"""What one chip holds: arrays, the tiles that they fill, and what lives in its memories."""

from __future__ import annotations

from dataclasses import dataclass

from ohmformer.cost import tiles
from ohmformer.cost.memory.gpu_memory import Layers, check_memory
from ohmformer.cost.memory.homes import Homes
from ohmformer.cost.memory.loading import bytes_loaded
from ohmformer.cost.memory.residents import find_homes
from ohmformer.cost.tiles import KVArrays, LayerArrays, Tiles
from ohmformer.hardware.spec import Accelerator
from ohmformer.workload.spec import Workload


@dataclass(frozen=True)
class Contents:
    """What one chip holds.

    Attributes:
        arrays: the matrices of each kind of layer.
        kv: the arrays of K and V.
        used: the tiles by what fills them.
        homes: what lives in which memory.
    """

    arrays: list[LayerArrays]
    kv: list[KVArrays]
    used: Tiles
    homes: Homes


def contents_of(
    workload: Workload, hardware: Accelerator, layers: Layers, arrays: list[LayerArrays], kv_sets: int
) -> Contents:
    """What one chip holds of some layers.

    Args:
        workload: phase and batch.
        hardware: the accelerator.
        layers: the operations of each kind of layer, with the number of such layers.
        arrays: likewise, the matrices in arrays.
        kv_sets: see `place`.

    Raises:
        BadInput: the chip has no room for them in its arrays or memories.
    """
    check_memory(workload, hardware, layers)
    kv = tiles.kv_arrays(workload, arrays, kv_sets)
    used = tiles.allocate_tiles(hardware, arrays, kv)
    homes = find_homes(workload, hardware, layers, used.total, bytes_loaded(hardware, arrays))
    return Contents(arrays, kv, used, homes)
