"""Ohmformer: what happens when this transformer runs on memristive in-memory-computing hardware?

Public names are resolved on first use, so that importing the package, and describing hardware, stays free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    # Data and functions.
    "Accelerator": "hardware.spec",
    "Ages": "hardware.ages",
    "BadInput": "errors",
    "Calibration": "nn.calibration.calibrate",
    "Captured": "capture.table",
    "CaptureTable": "capture.table",
    "Cell": "device.spec",
    "CellFit": "fitting.fit",
    "Conditioning": "mitigation.spec",
    "ConvertConfig": "nn.convert.spec",
    "Crossbar": "array.spec",
    "DesignPoint": "dataflow.explore",
    "Designs": "dataflow.closed_form",
    "Explored": "dataflow.explore",
    "ImagePreparation": "models.images",
    "Images": "models.images",
    "KVBudget": "mitigation.budget",
    "KVClip": "mitigation.spec",
    "KVCost": "mitigation.budget",
    "LayerOverlap": "dataflow.spec",
    "LayerSerial": "dataflow.spec",
    "Placement": "cost.placement",
    "Preparation": "models.preprocessing",
    "Reading": "tasks.reading",
    "Requirements": "study.results.requirements",
    "SearchResults": "study.results.search",
    "Rule": "hardware.rules",
    "Run": "dataflow.simulate",
    "SequenceBlocking": "dataflow.spec",
    "Served": "dataflow.serving.served",
    "Stats": "nn.monte_carlo",
    "StoredRun": "study.results.export",
    "SteadyState": "dataflow.serving.steady_state",
    "Stream": "streams",
    "Summary": "stats.intervals",
    "Task": "tasks.task",
    "Timeline": "dataflow.timeline",
    "Transformer": "workload.shapes",
    "WeightMitigation": "mitigation.spec",
    "Workload": "workload.spec",
    "calibrate": "nn.calibration.calibrate",
    "calibrate_ranges": "nn.convert.calibrate_ranges",
    "capture_table": "nn.convert.handle",
    "convert": "nn.convert.convert",
    "explore": "dataflow.explore",
    "fit_cell": "fitting.fit",
    "kv_prices": "study.pricing.kv_prices",
    "load": "hardware.entries",
    "load_cell": "hardware.entries",
    "load_crossbar": "hardware.entries",
    "load_model": "models.load",
    "load_task": "tasks.load",
    "monte_carlo": "nn.monte_carlo",
    "numbered_samples": "nn.calls.sample_numbers",
    "place": "cost.placement",
    "remember": "models.preprocessing",
    "replace": "schema",
    "require": "study.requirements.require",
    "search": "study.search.search",
    "restore": "nn.saving.checkpoint",
    "results": "study.results.export",
    "revert": "nn.convert.revert",
    "samples": "streams",
    "save": "nn.saving.checkpoint",
    "scores": "tasks.scoring",
    "set_chip": "nn.convert.handle",
    "set_clip": "nn.convert.set_clip",
    "set_kv": "nn.calibration.calibrate",
    "set_weights": "nn.convert.weight_mitigation",
    "shapes": "workload.shapes",
    "serve": "dataflow.serving.serve",
    "simulate": "dataflow.simulate",
    "trace": "tracing.by_name",
    "variation": "nn.variation",
    "without_quantizers": "nn.convert.handle",
    # Warnings.
    "BeyondCalibration": "nn.calls.larger_inputs",
    "GradientsLeftOut": "nn.shared.given_up",
    "GrownWeights": "nn.shared.grown_weights",
    "Interrupted": "nn.monte_carlo",
    "LeftOut": "tracing.operations",
    "NoSteps": "nn.variation",
    "NothingSeen": "nn.convert.unseen_ranges",
    "SingleInput": "nn.calibration.calibrate",
    "SlowWires": "array.wires.effective",
    "StaysDigital": "nn.convert.convert",
    "UnknownInterval": "nn.monte_carlo",
    "UnnamedSamples": "streams",
    "UnstableNoise": "nn.checks.noise_check",
    "UnusableCache": "streams.compiling",
    # Families of kinds, for those who add one.
    "AdcLaw": "array.prices.converter_laws",
    "ArrayEngine": "hardware.spec",
    "ArrayLaw": "array.prices.array_laws",
    "ArraySize": "array.prices.array_laws",
    "Converter": "array.prices.converter_laws",
    "CrossbarEngine": "hardware.spec",
    "DacLaw": "array.prices.array_laws",
    "Dataflow": "dataflow.spec",
    "Drift": "device.families",
    "Engine": "hardware.spec",
    "ExactEngine": "hardware.spec",
    "FaultModel": "device.families",
    "GaussianWriteNoise": "device.families",
    "Metric": "tasks.metric_kinds",
    "PowerLawDrift": "device.families",
    "Price": "hardware.spec",
    "ReadNoise": "device.families",
    "Recipe": "nn.calibration.recipes",
    "WearModel": "device.wear_kinds",
    "Work": "hardware.spec",
    "WriteNoise": "device.families",
    "register": "registry",
}
"""Public name -> module that defines it."""

_RENAMED = {"arch": "cost", "without_quantisers": "without_quantizers"}
"""Former public name -> its present name, for the message of the `AttributeError`."""

__all__ = sorted(set(_HOME) - {"replace"})
"""Names that `from ohmformer import *` imports. `replace` is left out, since it would hide `dataclasses.replace`; write
`ohmformer.replace`."""

_FOLDERS = (
    *("stats", "device", "array", "mitigation", "mapping", "hardware", "workload", "capture", "routing"),
    *("models", "tasks", "nn", "tracing", "cost", "dataflow", "study", "validation", "report"),
)

if TYPE_CHECKING:
    from ohmformer.array.prices.array_laws import ArrayLaw as ArrayLaw
    from ohmformer.array.prices.array_laws import ArraySize as ArraySize
    from ohmformer.array.prices.array_laws import DacLaw as DacLaw
    from ohmformer.array.prices.converter_laws import AdcLaw as AdcLaw
    from ohmformer.array.prices.converter_laws import Converter as Converter
    from ohmformer.array.spec import Crossbar as Crossbar
    from ohmformer.array.wires.effective import SlowWires as SlowWires
    from ohmformer.capture.table import Captured as Captured
    from ohmformer.capture.table import CaptureTable as CaptureTable
    from ohmformer.cost.placement import Placement as Placement
    from ohmformer.cost.placement import place as place
    from ohmformer.dataflow.closed_form import Designs as Designs
    from ohmformer.dataflow.explore import DesignPoint as DesignPoint
    from ohmformer.dataflow.explore import Explored as Explored
    from ohmformer.dataflow.explore import explore as explore
    from ohmformer.dataflow.serving.serve import serve as serve
    from ohmformer.dataflow.serving.served import Served as Served
    from ohmformer.dataflow.serving.steady_state import SteadyState as SteadyState
    from ohmformer.dataflow.simulate import Run as Run
    from ohmformer.dataflow.simulate import simulate as simulate
    from ohmformer.dataflow.spec import Dataflow as Dataflow
    from ohmformer.dataflow.spec import LayerOverlap as LayerOverlap
    from ohmformer.dataflow.spec import LayerSerial as LayerSerial
    from ohmformer.dataflow.spec import SequenceBlocking as SequenceBlocking
    from ohmformer.dataflow.timeline import Timeline as Timeline
    from ohmformer.device.families import Drift as Drift
    from ohmformer.device.families import FaultModel as FaultModel
    from ohmformer.device.families import GaussianWriteNoise as GaussianWriteNoise
    from ohmformer.device.families import PowerLawDrift as PowerLawDrift
    from ohmformer.device.families import ReadNoise as ReadNoise
    from ohmformer.device.families import WriteNoise as WriteNoise
    from ohmformer.device.spec import Cell as Cell
    from ohmformer.device.wear_kinds import WearModel as WearModel
    from ohmformer.errors import BadInput as BadInput
    from ohmformer.fitting.fit import CellFit as CellFit
    from ohmformer.fitting.fit import fit_cell as fit_cell
    from ohmformer.hardware.ages import Ages as Ages
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
    from ohmformer.mitigation.budget import KVBudget as KVBudget
    from ohmformer.mitigation.budget import KVCost as KVCost
    from ohmformer.mitigation.spec import Conditioning as Conditioning
    from ohmformer.mitigation.spec import KVClip as KVClip
    from ohmformer.mitigation.spec import WeightMitigation as WeightMitigation
    from ohmformer.models.images import ImagePreparation as ImagePreparation
    from ohmformer.models.images import Images as Images
    from ohmformer.models.load import load_model as load_model
    from ohmformer.models.preprocessing import Preparation as Preparation
    from ohmformer.models.preprocessing import remember as remember
    from ohmformer.nn.calibration.calibrate import Calibration as Calibration
    from ohmformer.nn.calibration.calibrate import SingleInput as SingleInput
    from ohmformer.nn.calibration.calibrate import calibrate as calibrate
    from ohmformer.nn.calibration.calibrate import set_kv as set_kv
    from ohmformer.nn.calibration.recipes import Recipe as Recipe
    from ohmformer.nn.calls.larger_inputs import BeyondCalibration as BeyondCalibration
    from ohmformer.nn.calls.sample_numbers import numbered_samples as numbered_samples
    from ohmformer.nn.checks.noise_check import UnstableNoise as UnstableNoise
    from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges as calibrate_ranges
    from ohmformer.nn.convert.convert import StaysDigital as StaysDigital
    from ohmformer.nn.convert.convert import convert as convert
    from ohmformer.nn.convert.handle import capture_table as capture_table
    from ohmformer.nn.convert.handle import set_chip as set_chip
    from ohmformer.nn.convert.handle import without_quantizers as without_quantizers
    from ohmformer.nn.convert.revert import revert as revert
    from ohmformer.nn.convert.set_clip import set_clip as set_clip
    from ohmformer.nn.convert.spec import ConvertConfig as ConvertConfig
    from ohmformer.nn.convert.unseen_ranges import NothingSeen as NothingSeen
    from ohmformer.nn.convert.weight_mitigation import set_weights as set_weights
    from ohmformer.nn.monte_carlo import Interrupted as Interrupted
    from ohmformer.nn.monte_carlo import Stats as Stats
    from ohmformer.nn.monte_carlo import UnknownInterval as UnknownInterval
    from ohmformer.nn.monte_carlo import monte_carlo as monte_carlo
    from ohmformer.nn.saving.checkpoint import restore as restore
    from ohmformer.nn.saving.checkpoint import save as save
    from ohmformer.nn.shared.given_up import GradientsLeftOut as GradientsLeftOut
    from ohmformer.nn.shared.grown_weights import GrownWeights as GrownWeights
    from ohmformer.nn.variation import NoSteps as NoSteps
    from ohmformer.nn.variation import variation as variation
    from ohmformer.registry import register as register
    from ohmformer.schema import replace as replace
    from ohmformer.stats.intervals import Summary as Summary
    from ohmformer.streams import Stream as Stream
    from ohmformer.streams import UnnamedSamples as UnnamedSamples
    from ohmformer.streams import samples as samples
    from ohmformer.streams.compiling import UnusableCache as UnusableCache
    from ohmformer.study.pricing.kv_prices import kv_prices as kv_prices
    from ohmformer.study.requirements.require import require as require
    from ohmformer.study.results.export import StoredRun as StoredRun
    from ohmformer.study.results.export import results as results
    from ohmformer.study.results.requirements import Requirements as Requirements
    from ohmformer.study.results.search import SearchResults as SearchResults
    from ohmformer.study.search.search import search as search
    from ohmformer.tasks.load import load_task as load_task
    from ohmformer.tasks.metric_kinds import Metric as Metric
    from ohmformer.tasks.reading import Reading as Reading
    from ohmformer.tasks.scoring import scores as scores
    from ohmformer.tasks.task import Task as Task
    from ohmformer.tracing.by_name import trace as trace
    from ohmformer.tracing.operations import LeftOut as LeftOut
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
    if name in _RENAMED:
        raise AttributeError(f"ohmformer.{name} is now ohmformer.{_RENAMED[name]}")
    raise AttributeError(f"module 'ohmformer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_FOLDERS})
