"""The key of a result: a hash of all settings, data and code that decide it, and of nothing else. Free of torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ohmformer import registry
from ohmformer.study.spec import CostSettings, Settings, Study
from ohmformer.tasks.metric_kinds import METRICS

PACKAGES = ("ohmformer", "torch", "numpy", "scipy")
"""Whose versions go into every results file; those of the first two decide answers."""

MODEL_PACKAGES = {"hf": ("transformers",), "timm": ("timm",)}
"""Prefix of a model's source -> packages that hold its code."""

PACKAGE = Path(__file__).parents[2]
ANSWERING_FOLDERS = (
    *("stats", "device", "array", "mitigation", "mapping", "hardware", "capture", "routing", "models", "tasks", "nn"),
)
ANSWERING = (
    *("streams.py", "registry.py", "schema.py", "patch.py", "changed_copy.py"),
    *(f"{folder}/**/*.py" for folder in ANSWERING_FOLDERS),
    *("study/evaluate_point.py", "study/loaded.py", "study/noise_labels.py", "study/trials/*.py"),
)
"""The files whose code decides results, those included that call methods of kinds or make changed copies of specs. The
code that reads, runs and reports studies does not."""

PRICING = (
    *(f"{folder}/**/*.py" for folder in ("workload", "tracing", "cost", "dataflow", "study/pricing")),
    *(f"study/{name}.py" for name in ("cost", "default_inputs", "join_cost", "serving", "spec")),
)
"""The further files whose code decides results where a budget for K and V compares prices."""


OPTIONAL = ("ages", "prices")
"""Fields of `Identity` that are no part of a key where they are empty."""


@dataclass(frozen=True)
class Identity:
    """Digests of the model and the data that a study names, and the device on which they ran.

    `ages` is the digest of the times of K and V; empty where no timeline gives them. `prices` is the digest of what
    decides the prices of candidates for K and V; empty where no budget compares them.
    """

    model: str
    task: str
    device: str = "cpu"
    ages: str = ""
    prices: str = ""


def versions(study: Study[Settings] | None = None) -> dict[str, str]:
    """Package -> version, with the packages that models of a study come from."""
    points = study.points if study else ()
    names = dict.fromkeys([*PACKAGES, *(name for point in points for name in _packages(point.settings))])
    return {name: _version(name) for name in names}


def _packages(settings: Settings) -> tuple[str, ...]:
    """Packages whose code is part of the model."""
    return MODEL_PACKAGES.get(settings.model.source.split(":")[0], ())


def _version(name: str) -> str:
    return _read_version(version, name)


@cache
def _read_version(reader: Callable[[str], str], name: str) -> str:
    """The version of a package, read from its files once."""
    try:
        return reader(name)
    except PackageNotFoundError:
        return "not installed"


@cache
def code_digest(package: Path = PACKAGE, patterns: tuple[str, ...] = ANSWERING) -> str:
    """SHA-256 over the code that computes answers: while it is being developed, one version has many."""
    sha256 = hashlib.sha256()
    for pattern in patterns:
        for file in sorted(package.glob(pattern)):
            sha256.update(f"{file.relative_to(package).as_posix()}\n".encode())
            sha256.update(file.read_bytes())
    return sha256.hexdigest()


def decisive(settings: Settings, identity: Identity) -> dict[str, Any]:
    """All that decides the answer of a point, as plain JSON values.

    The title of the hardware and the limit of the task are left out: one is only a name, the other is in the digest;
    and so is what the hardware costs.
    """
    plain = settings.canonical()
    hardware = {name: value for name, value in settings.hardware.physical().items() if name != "title"}
    return {
        "hardware": hardware,
        "model": plain["model"],
        "task": {name: value for name, value in plain["task"].items() if name != "limit"},
        "rules": plain["rules"],
        "mitigation": plain["mitigation"],
        "simulation": {
            name: value for name, value in plain["simulation"].items() if name != "age" or value is not None
        },
        "trials": {name: value for name, value in plain["trials"].items() if value is not None},
        "seed": plain["seed"],
        "identity": {name: value for name, value in asdict(identity).items() if name not in OPTIONAL or value},
        "versions": {name: _version(name) for name in (*PACKAGES[:2], *_packages(settings))},
        "code": code_digest(),
        **code_from_outside(settings),
    }


def price_digest(costs: CostSettings) -> str:
    """Digest of what decides the prices of a point: settings of the cost half, and its code."""
    plain = costs.canonical()
    hardware = {name: value for name, value in plain["hardware"].items() if name != "title"}
    decisive = {name: plain[name] for name in ("model", "dataflow", "cost", "rules", "mitigation")}
    return digest([{**decisive, "hardware": hardware}, code_digest(PACKAGE, PRICING)])


def code_from_outside(settings: Settings) -> dict[str, dict[str, str]]:
    """Digests of the code of kinds that the package does not bring: by class; nothing where there are none.

    Raises:
        BadInput: the code of one of them is not to be had.
    """
    classes = set(registry.outside([settings.hardware, settings.rules, settings.mitigation]))
    if settings.task.metric is not None:
        classes |= set(registry.outside(METRICS[settings.task.metric]))
    digests = {f"{each.__module__}.{each.__qualname__}": registry.code_digest(each) for each in classes}
    return {"kinds": digests} if digests else {}


def digest(content: Any) -> str:
    """SHA-256 of plain values as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def point_key(settings: Settings, identity: Identity) -> str:
    """The key of a point's result."""
    return digest(decisive(settings, identity))
