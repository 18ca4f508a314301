"""The key of a result: a hash of all settings, data and code that decide it, and of nothing else. Free of torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from json.encoder import encode_basestring_ascii
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ohmformer import registry
from ohmformer.schema import Spec
from ohmformer.tasks.metric_kinds import METRICS
from ohmformer.textfiles import with_infinities_as_text

if TYPE_CHECKING:
    from ohmformer.study.spec import Common, CostSettings, Settings, Study

T = TypeVar("T")
R = TypeVar("R")

PACKAGES = ("ohmformer", "torch", "numpy", "scipy")
"""Whose versions go into every results file; those of the first two decide answers."""

MODEL_PACKAGES = {"hf": ("transformers",), "timm": ("timm",)}
"""Prefix of a model's source -> packages that hold its code."""

PACKAGE = Path(__file__).parents[2]
ANSWERING_FOLDERS = (
    *(
        "streams",
        "stats",
        "device",
        "array",
        "mitigation",
        "mapping",
        "hardware",
        "capture",
        "routing",
        "models",
        "tasks",
        "nn",
    ),
)
ANSWERING = (
    *("deferred_checks.py", "registry.py", "schema.py", "patch.py", "precision.py", "changed_copy.py"),
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


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

OPTIONAL = ("ages", "prices")
"""Fields of `Identity` that are no part of a key where they are empty."""


@dataclass(frozen=True)
class Identity:
    """Digests of the model and the data that a study names, and the device on which they ran.

    `device` names the type of the device and the generator of its random numbers, see `streams.backends.drawn_on`.
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
    return versions_of([*PACKAGES, *(name for point in points for name in _packages(point.settings))])


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Package -> version, each once."""
    return {name: _version(name) for name in dict.fromkeys(names)}


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


class PlainValues:
    """Specifications as canonical JSON texts. What points of a study share is written once, since it never changes.

    Objects are compared by identity, and kept, so that their identities stay taken.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], tuple[object, Any]] = {}
        self._texts: dict[object, Any] = {}

    def canonical(self, spec: Spec) -> str:
        """`Spec.canonical`."""
        return cast("str", self.once("canonical", spec, lambda: as_json(spec.canonical())))

    def physical(self, spec: Spec, *left_out: str) -> str:
        """`Spec.physical`, without some fields."""
        if left_out:
            return cast("str", self.once("physical without", spec, lambda: self._physical(spec, left_out)))
        return cast("str", self.once("physical", spec, lambda: self._physical(spec)))

    def whole(self, spec: Spec) -> str:
        """All values with those of costs, as `physical` has the others."""
        return cast("str", self.once("whole", spec, lambda: self._nested(spec, (), self.whole)))

    def rules(self, settings: Common) -> str:
        """The rules of settings."""
        return cast("str", self.once("rules", settings.rules, lambda: as_json(_rules_of(settings))))

    def outside(self, values: Any) -> frozenset[type[Any]]:
        """The classes of other packages in a specification or a list, see `registry.outside`."""
        if isinstance(values, Spec):
            return cast("frozenset[type[Any]]", self.once("outside", values, lambda: self._outside(values)))
        return frozenset(registry.outside(values))

    def _physical(self, spec: Spec, left_out: Sequence[str] = ()) -> str:
        if type(spec).physical is not Spec.physical:
            return as_json({name: value for name, value in spec.physical().items() if name not in left_out})
        return self._nested(spec, (*spec.cost_fields, *left_out), self.physical)

    def _nested(self, spec: Spec, left_out: Sequence[str], inner: Callable[[Spec], str]) -> str:
        """The values of a specification but some; those that are specifications come from `inner`."""
        texts: dict[str, str] = {}
        others: set[str] = set()
        own = registry.is_own(type(spec))
        for name in fields_of(type(spec)):
            if name in left_out:
                continue
            value = getattr(spec, name)
            if own and (write := _WRITERS.get(type(value))) and (text := write(value)):
                texts[name] = text
            elif isinstance(value, Spec):
                texts[name] = inner(value)
            else:
                others.add(name)
        if others:
            dumped = with_infinities_as_text(spec.model_dump(mode="json", include=others))
            texts |= {name: as_json(value) for name, value in dumped.items()}
        return table_text(texts)

    def _outside(self, spec: Spec) -> frozenset[type[Any]]:
        own = {type(spec)} if isinstance(spec, registry.Family) and not registry.is_own(type(spec)) else set()
        fields = (getattr(spec, name) for name in fields_of(type(spec)))
        deep = (value for value in fields if type(value) not in _WRITERS and value != ())
        return frozenset(own).union(*map(self.outside, deep))

    def once(self, what: str, value: object, make: Callable[[], Any]) -> Any:
        """What `make` returns, called once for an object.

        Args:
            what: name of the function that is computed.
            value: its argument, which never changes.
            make: computes it.
        """
        key = (what, id(value))
        if (found := self._found.get(key)) is None:
            found = self._found[key] = (value, make())
        return found[1]

    def once_for_equals(self, value: T, make: Callable[[T], R]) -> R:
        """What `make` returns for a value that can be hashed, called once for all equal ones."""
        if value not in self._texts:
            self._texts[value] = make(value)
        return cast("R", self._texts[value])


@cache
def fields_of(cls: type[Spec]) -> tuple[str, ...]:
    """The names of the fields of a class, without that of the sources."""
    return tuple(name for name in cls.model_fields if name != "provenance")


_WRITERS: dict[type, Callable[[Any], str]] = {
    str: encode_basestring_ascii,
    int: int.__repr__,
    float: lambda value: float.__repr__(value) if isfinite(value) else "",
    bool: lambda value: "true" if value else "false",
    type(None): lambda value: "null",
}
"""Type of a plain value -> its canonical JSON; empty for what JSON does not hold as it is."""


def table_text(texts: Mapping[str, str]) -> str:
    """A table as canonical JSON.

    Args:
        texts: key -> its value as canonical JSON.
    """
    return f"{{{','.join([f'{encode_basestring_ascii(name)}:{text}' for name, text in sorted(texts.items())])}}}"


def _rules_of(settings: Common) -> Any:
    return with_infinities_as_text(settings.model_dump(mode="json", include={"rules"})["rules"])


def _asked(settings: Settings, plain: PlainValues) -> dict[str, str]:
    """The settings that decide an answer, as JSON.

    The title of the hardware and the limit of the task are left out: one is only a name, the other is in the digest;
    and so is what the hardware costs.
    """
    simulation = settings.simulation
    return {
        "hardware": plain.physical(settings.hardware, "title"),
        "model": plain.canonical(settings.model),
        "task": plain.once("task", settings.task, lambda: _without(settings.task, lambda name, _: name == "limit")),
        "rules": plain.rules(settings),
        "mitigation": plain.canonical(settings.mitigation),
        "simulation": plain.once("simulation", simulation, lambda: _without(simulation, _in_identity)),
        "trials": plain.once("trials", settings.trials, lambda: _without(settings.trials, _is_none)),
        "seed": as_json(settings.seed),
    }


def _without(spec: Spec, left_out: Callable[[str, Any], bool]) -> str:
    """The values of a specification without some, by name and value."""
    return as_json({name: value for name, value in spec.canonical().items() if not left_out(name, value)})


def _in_identity(name: str, value: Any) -> bool:
    """True for what says nothing more: no age, and the kernels, which the device of an identity names."""
    return name == "kernels" or (name == "age" and value is None)


def _is_none(name: str, value: Any) -> bool:
    return value is None


def _identity_text(identity: Identity) -> str:
    return as_json({name: value for name, value in asdict(identity).items() if name not in OPTIONAL or value})


def _answering(settings: Settings, plain: PlainValues) -> dict[str, str]:
    """The code that answers, as JSON: versions of packages, the digest of our own, and those of kinds from outside."""
    content = {
        "versions": {name: _version(name) for name in (*PACKAGES[:2], *_packages(settings))},
        "code": code_digest(),
        **code_from_outside(settings, plain),
    }
    return {name: as_json(value) for name, value in content.items()}


@dataclass(frozen=True)
class Keys:
    """What names the result of a point in the store.

    Attributes:
        key: hash of all that decides the answer.
        question: hash of the same without the code that answers: results with one question and different keys answer
            it with different code.
        version: the code that answers, as canonical JSON.
    """

    key: str
    question: str
    version: str


def point_keys(settings: Settings, identity: Identity, plain: PlainValues | None = None) -> Keys:
    """The key, the question and the version of a point's result.

    Args:
        settings: of the point.
        identity: of its model and its data.
        plain: values of the points of the same study so far.
    """
    plain = plain or PlainValues()
    asked, answering = _asked(settings, plain), _answering(settings, plain)
    halves = [plain.canonical(each) if each else "null" for each in (settings.timing, settings.pricing)]
    here = plain.once_for_equals(identity, _identity_text)
    names = map(as_json, (identity.model, identity.task, identity.device))
    return Keys(
        key=text_digest(table_text({**asked, "identity": here, **answering})),
        question=text_digest(f"[{','.join([table_text(asked), *names])},[{','.join(halves)}]]"),
        version=table_text(answering),
    )


def code_version(settings: Settings) -> str:
    """The code that would answer in this process, as in `Keys.version`."""
    return table_text(_answering(settings, PlainValues()))


def price_digest(costs: CostSettings) -> str:
    """Digest of what decides the prices of a point: settings of the cost half, and its code."""
    plain = costs.canonical()
    hardware = {name: value for name, value in plain["hardware"].items() if name != "title"}
    decisive = {name: plain[name] for name in ("model", "dataflow", "cost", "rules", "mitigation")}
    return digest([{**decisive, "hardware": hardware}, code_digest(PACKAGE, PRICING)])


def code_from_outside(settings: Settings, plain: PlainValues | None = None) -> dict[str, dict[str, str]]:
    """Digests of the code of kinds that the package does not bring: by class; nothing where there are none.

    Raises:
        BadInput: the code of one of them is not to be had.
    """
    plain = plain or PlainValues()
    classes = plain.outside(settings.hardware) | plain.outside(settings.rules) | plain.outside(settings.mitigation)
    if settings.task.metric is not None:
        classes |= set(registry.outside(METRICS[settings.task.metric]))
    return digests_of(classes)


def digests_of(classes: Iterable[type[Any]]) -> dict[str, dict[str, str]]:
    """Digests of the code of classes from other packages: by class; nothing where there are none.

    Raises:
        BadInput: the code of one of them is not to be had.
    """
    digests = {f"{each.__module__}.{each.__qualname__}": registry.code_digest(each) for each in classes}
    return {"kinds": digests} if digests else {}


def as_json(content: Any) -> str:
    """Plain values as canonical JSON."""
    return _CANONICAL.encode(content)


def digest(content: Any) -> str:
    """SHA-256 of plain values as canonical JSON."""
    return text_digest(as_json(content))


def text_digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
