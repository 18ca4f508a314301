"""Every public function takes each argument, or refuses it in one line; no other exception reaches the user."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ohmformer as of
from ohmformer.cost.chips.layout import ALONE
from ohmformer.stats.intervals import mean_summary

X = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()


@cache
def converted() -> nn.Module:
    return of.convert(encoder(), of.load("clipformer_tcad_2024"), sample=X, level="noise")


@cache
def workload() -> of.Workload:
    return of.shapes("bert-base", tokens=4)


@cache
def fashion() -> tuple[nn.Module, of.Task]:
    return of.load_model("bundled:fashion-vit"), of.load_task("bundled:fashion-mnist", limit=1)


def cost() -> dict[str, Any]:
    options = dict.fromkeys(("clip", "rules", "weights", "kv"))
    return {"workload": workload(), "hardware": of.load("nvm_ideal"), **options}


def explored() -> dict[str, Any]:
    arguments = cost()
    point = arguments.pop("workload"), arguments.pop("hardware"), of.LayerSerial()
    return {"points": [point], **arguments}


def conversion() -> dict[str, Any]:
    names = ("clip", "weights", "level", "kernels", "rules", "seed", "chip")
    fixed = {"model": encoder(), "hardware": of.load("clipformer_tcad_2024"), "sample": X}
    return {
        **fixed,
        **dict.fromkeys(names),
        "ages": None,
        "keep_original": True,
        "verbose": False,
        "half_cells": None,
        "weights_from": None,
    }


def requirements() -> dict[str, Any]:
    """A search over no quantity, which ends once its arguments have been read."""
    study = {"name": "s", "model": {"source": "bundled:vit_digits"}, "hardware": {"base": "clipformer_tcad_2024"}}
    task = {"source": "bundled:digits", "limit": 1}
    fixed = {"study": {**study, "task": task}, "loss": "1 %", "quantities": ["endurance"], "map": None, "on": "all"}
    return {
        **fixed,
        "kinds": None,
        "step": 0.1,
        "grid": 3,
        "sets": (),
        "out": "o",
        "workers": 1,
        "fresh": False,
        "progress": False,
    }


def searched() -> dict[str, Any]:
    """A search over the costs of two designs."""
    study = {"name": "s", "model": {"source": "shapes:bert-base", "seq_len": 8}, "hardware": {"base": "nvm_ideal"}}
    choice = {"path": "model.batch", "values": [1, 2]}
    return {
        **{"study": {**study, "search": {"objectives": ["latency", "energy"], "trials": 1, "choose": [choice]}}},
        **{"trials": 1, "sets": (), "out": "o", "workers": 1, "fresh": False, "progress": False},
    }


def restored() -> dict[str, Any]:
    of.save(converted(), "good.safetensors")
    return {
        "model": encoder(),
        "file": "good.safetensors",
        "hardware": None,
        "sample": None,
        "ages": None,
        "kernels": None,
    }


GOOD: dict[str, Callable[[], dict[str, Any]]] = {
    "calibrate": lambda: {
        "model": converted(),
        "inputs": X,
        "remedy": "none",
        "batch": 100,
        "seed": None,
        "budget": None,
        "price": None,
        "weights": None,
    },
    "calibrate_ranges": lambda: {"model": converted(), "batches": [X]},
    "capture_table": lambda: {"model": converted()},
    "convert": conversion,
    "explore": explored,
    "fit_cell": lambda: {"frame": {"target [uS]": [1.0, 1.0, 5.0, 5.0], "measured [uS]": [1.1, 0.9, 5.2, 4.7]}},
    "kv_prices": lambda: {
        **{name: value for name, value in cost().items() if name not in ("clip", "kv")},
        "dataflow": None,
    },
    "load": lambda: {"name": "nvm_ideal"},
    "load_cell": lambda: {"name": "generic"},
    "load_crossbar": lambda: {"name": "clipformer_2024"},
    "load_model": lambda: {"source": "bundled:fashion-vit"},
    "load_task": lambda: {"source": "bundled:fashion-mnist", "limit": 1, "model": None},
    "monte_carlo": lambda: {
        **{"model": converted(), "evaluate": lambda _: torch.ones(3), "chips": 1, "seed": None, "progress": False},
        **{"summarize": mean_summary, "partial": True},
    },
    "numbered_samples": lambda: {"start": 0},
    "place": lambda: {**cost(), "kv_sets": 1, "softmax_sets": "one", "batching": "pipelined", "shared": ALONE},
    "register": lambda: {"cls": None},
    "remember": lambda: {"model": nn.Linear(2, 2), "preparation": of.Preparation()},
    "replace": lambda: {"spec": of.load("nvm_ideal"), "path": "title", "value": "mine", "in_file": False},
    "require": requirements,
    "restore": restored,
    "results": lambda: {"run": "none"},
    "revert": lambda: {"model": converted()},
    "samples": lambda: {"ids": [1, 2]},
    "save": lambda: {"model": converted(), "file": "other.safetensors"},
    "scores": lambda: {"model": fashion()[0], "task": fashion()[1], "batch": 100},
    "search": searched,
    "serve": lambda: {
        **{"model": "gpt2", "prompt": 3, "generate": 3, "batch": 1, "dataflow": None},
        **{name: value for name, value in cost().items() if name != "workload"},
    },
    "set_chip": lambda: {"model": converted(), "chip": 0, "seed": None},
    "set_clip": lambda: {"model": converted(), "clip": None},
    "set_kv": lambda: {"model": converted(), "spec": None},
    "set_weights": lambda: {"model": converted(), "spec": None},
    "shapes": lambda: {"model": "bert-base", "tokens": 4, "batch": 1, "phase": None, "context": 0},
    "simulate": lambda: {**cost(), "dataflow": None},
    "trace": lambda: {"model": encoder(), "sample": X, "phase": None, "context": None, "rules": None},
    "variation": lambda: {"model": converted(), "seed": None, "gamma": None, "scale": None},
    "without_quantizers": lambda: {"model": converted()},
}
"""Public function -> arguments that it takes."""

WRONG: list[Any] = [
    *(None, "x", "", b"x", 3, -1, 0, 2.5, float("nan"), True, False, 1 + 2j, object(), 2**70),
    *({}, {"a": 1}, {1: 2}, {"*": 3}, [], [None], ["x"], (), (1, 2), set(), [{"a": 1}, {"b": 2}]),
    *(torch.ones(2), torch.ones(()), {"*.K": of.Conditioning()}, [of.Conditioning()], of.Conditioning()),
    *(of.KVClip(alpha=1, beta=0.1), {"*.K": of.KVClip(alpha=1, beta=0.1)}, of.LayerSerial(), nn.Linear(3, 3)),
    *(workload(), of.load("nvm_ideal")),
]

CASES = [
    (name, argument) for name, arguments in GOOD.items() for argument in inspect.signature(getattr(of, name)).parameters
]
CASES = [(name, argument) for name, argument in CASES if argument != "options"]


def test_every_public_function_is_covered() -> None:
    functions = {name for name in [*of.__all__, "replace"] if inspect.isfunction(getattr(of, name))}
    assert functions == set(GOOD)


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_an_argument_is_taken_or_refused_in_one_line(
    name: str, argument: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    function, good = getattr(of, name), GOOD[name]()
    assert argument in good
    for value in WRONG:
        if argument in ("evaluate", "summarize") and callable(value):
            continue  # what the function of a user raises is the user's
        with warnings.catch_warnings(), contextlib.suppress(of.BadInput):
            warnings.simplefilter("ignore")
            result = function(**{**good, argument: value})
            with result if hasattr(result, "__enter__") else contextlib.nullcontext():
                pass


@pytest.mark.parametrize(
    ("name", "argument", "value", "said"),
    [
        ("set_clip", "clip", "calibrated", "^set_clip: clip is a str, 'calibrated'; give KVClip"),
        ("set_clip", "clip", {}, "^set_clip: clip is a dict, {}; give KVClip"),
        ("set_kv", "spec", [of.Conditioning()], "^set_kv: spec is a list; give Conditioning"),
        ("monte_carlo", "summarize", lambda _: 3, "^monte_carlo: what summarize returned is an int, 3; give"),
        ("scores", "task", None, "^scores: task is None; give a task"),
        ("replace", "path", None, "^replace: path is None; give the dotted path"),
        ("save", "file", 3, "^save: file is an int, 3; give the path"),
        ("restore", "file", None, "^restore: file is None; give the path"),
        ("simulate", "workload", of.load("nvm_ideal"), "^simulate: workload is an Accelerator; give a Workload"),
        ("place", "kv_sets", 3, "^place: kv_sets is an int, 3; give 1 or 2"),
        ("place", "softmax_sets", "two", "^place: softmax_sets is a str, 'two'; give 'one' or 'per_layer'"),
        ("serve", "prompt", 2.5, "^serve: prompt is a float, 2.5; give a whole number"),
        ("serve", "model", (1, 2), "^serve: prompt = 3: the workloads say it; leave it out"),
        ("place", "batching", "parallel", "^place: batching is a str, 'parallel'; give 'pipelined' or 'serial'"),
        ("explore", "points", ["x"], r"^explore: points\[0\] is a str, 'x'; give"),
    ],
)
def test_the_line_names_function_argument_value_and_remedy(
    name: str, argument: str, value: Any, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(of.BadInput, match=said):
        getattr(of, name)(**{**GOOD[name](), argument: value})
