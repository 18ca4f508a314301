"""Ohmformer: what happens when this transformer runs on memristive in-memory-computing hardware?

Public names are resolved on first use, so that importing the package, and describing hardware, stays free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "Accelerator": "hardware.spec",
    "BadInput": "errors",
    "Cell": "device.spec",
    "Crossbar": "array.spec",
    "DesignPoint": "dataflow.explore",
    "KVClip": "mitigation.spec",
    "LayerSerial": "dataflow.spec",
    "Rule": "hardware.rules",
    "Run": "dataflow.simulate",
    "SequenceBlocking": "dataflow.spec",
    "Stats": "nn.monte_carlo",
    "Stream": "streams",
    "Transformer": "workload.shapes",
    "WeightMitigation": "mitigation.spec",
    "Workload": "workload.spec",
    "Conditioning": "mitigation.spec",
    "calibrate": "nn.calibration.calibrate",
    "capture_table": "nn.convert.handle",
    "convert": "nn.convert.convert",
    "explore": "dataflow.explore",
    "load": "hardware.entries",
    "load_cell": "hardware.entries",
    "load_crossbar": "hardware.entries",
    "load_model": "models.load",
    "load_task": "tasks.load",
    "monte_carlo": "nn.monte_carlo",
    "replace": "schema",
    "restore": "nn.convert.checkpoint",
    "revert": "nn.convert.revert",
    "samples": "streams",
    "save": "nn.convert.checkpoint",
    "scores": "tasks.scoring",
    "shapes": "workload.shapes",
    "simulate": "dataflow.simulate",
    "set_chip": "nn.convert.handle",
    "set_clip": "nn.convert.set_clip",
    "set_kv": "nn.calibration.calibrate",
    "trace": "tracing.by_name",
    "variation": "nn.variation",
    "without_quantisers": "nn.convert.handle",
    # Families of kinds, for those who add one.
    "Drift": "device.families",
    "FaultModel": "device.families",
    "GaussianWriteNoise": "device.families",
    "PowerLawDrift": "device.families",
    "ReadNoise": "device.families",
    "WriteNoise": "device.families",
    "ArrayEngine": "hardware.spec",
    "CrossbarEngine": "hardware.spec",
    "Engine": "hardware.spec",
    "ExactEngine": "hardware.spec",
    "Price": "hardware.spec",
    "Work": "hardware.spec",
    "Dataflow": "dataflow.spec",
    "Recipe": "nn.calibration.recipes",
    "Metric": "tasks.metric_kinds",
    "register": "registry",
}
"""Public name -> module that holds it."""

_FOLDERS = (
    *("stats", "device", "array", "mitigation", "mapping", "hardware", "workload", "capture", "models", "tasks"),
    *("nn", "tracing", "cost", "dataflow", "study", "validation", "report"),
)

if TYPE_CHECKING:
    from ohmformer.array.spec import Crossbar as Crossbar
    from ohmformer.dataflow.explore import DesignPoint as DesignPoint
    from ohmformer.dataflow.explore import explore as explore
    from ohmformer.dataflow.simulate import Run as Run
    from ohmformer.dataflow.simulate import simulate as simulate
    from ohmformer.dataflow.spec import Dataflow as Dataflow
    from ohmformer.dataflow.spec import LayerSerial as LayerSerial
    from ohmformer.dataflow.spec import SequenceBlocking as SequenceBlocking
    from ohmformer.device.families import Drift as Drift
    from ohmformer.device.families import FaultModel as FaultModel
    from ohmformer.device.families import GaussianWriteNoise as GaussianWriteNoise
    from ohmformer.device.families import PowerLawDrift as PowerLawDrift
    from ohmformer.device.families import ReadNoise as ReadNoise
    from ohmformer.device.families import WriteNoise as WriteNoise
    from ohmformer.device.spec import Cell as Cell
    from ohmformer.errors import BadInput as BadInput
    from ohmformer.hardware.entries import load as load
    from ohmformer.hardware.entries import load_cell as load_cell
    from ohmformer.hardware.entries import load_crossbar as load_crossbar
    from ohmformer.hardware.rules import Rule as Rule
    from ohmformer.hardware.spec import Accelerator as Accelerator
    from ohmformer.hardware.spec import ArrayEngine as ArrayEngine
    from ohmformer.hardware.spec import CrossbarEngine as CrossbarEngine
    from ohmformer.hardware.spec import Engine as Engine
    from ohmformer.hardware.spec import ExactEngine as ExactEngine
    from ohmformer.hardware.spec import Price as Price
    from ohmformer.hardware.spec import Work as Work
    from ohmformer.mitigation.spec import Conditioning as Conditioning
    from ohmformer.mitigation.spec import KVClip as KVClip
    from ohmformer.mitigation.spec import WeightMitigation as WeightMitigation
    from ohmformer.models.load import load_model as load_model
    from ohmformer.nn.calibration.calibrate import calibrate as calibrate
    from ohmformer.nn.calibration.calibrate import set_kv as set_kv
    from ohmformer.nn.calibration.recipes import Recipe as Recipe
    from ohmformer.nn.convert.checkpoint import restore as restore
    from ohmformer.nn.convert.checkpoint import save as save
    from ohmformer.nn.convert.convert import convert as convert
    from ohmformer.nn.convert.handle import capture_table as capture_table
    from ohmformer.nn.convert.handle import set_chip as set_chip
    from ohmformer.nn.convert.handle import without_quantisers as without_quantisers
    from ohmformer.nn.convert.revert import revert as revert
    from ohmformer.nn.convert.set_clip import set_clip as set_clip
    from ohmformer.nn.monte_carlo import Stats as Stats
    from ohmformer.nn.monte_carlo import monte_carlo as monte_carlo
    from ohmformer.nn.variation import variation as variation
    from ohmformer.registry import register as register
    from ohmformer.schema import replace as replace
    from ohmformer.streams import Stream as Stream
    from ohmformer.streams import samples as samples
    from ohmformer.tasks.load import load_task as load_task
    from ohmformer.tasks.metric_kinds import Metric as Metric
    from ohmformer.tasks.scoring import scores as scores
    from ohmformer.tracing.by_name import trace as trace
    from ohmformer.workload.shapes import Transformer as Transformer
    from ohmformer.workload.shapes import shapes as shapes
    from ohmformer.workload.spec import Workload as Workload


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ohmformer")
    if name in _HOME:
        return getattr(import_module(f"ohmformer.{_HOME[name]}"), name)
    if name in _FOLDERS:
        return import_module(f"ohmformer.{name}")
    raise AttributeError(f"module 'ohmformer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_FOLDERS])
