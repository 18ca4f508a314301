"""Mutated input of every kind ends with a result of finite numbers, or in one printable line that says what to do.

OHMFORMER_FUZZ_SEED chooses other mutations, OHMFORMER_FUZZ_SECONDS how long each kind is tried.
"""

from __future__ import annotations

import math
import os
import signal
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ohmformer.errors import BadInput
from tests.fuzz.inputs import INPUTS, Input
from tests.fuzz.mutate import encoded, mutated

SEED = int(os.environ.get("OHMFORMER_FUZZ_SEED", "0"))
SECONDS = float(os.environ.get("OHMFORMER_FUZZ_SECONDS", "10"))
"""For each kind of input."""
HANG = 20.0
"""Seconds of CPU."""
LARGEST = 1e40
"""No number of a result is larger."""


class Hang(Exception):
    """It took too long."""


@contextmanager
def limited() -> Iterator[None]:
    """Raise where what is inside takes more than `HANG` seconds of CPU, or waits for as long three times over."""

    def stop(number: int, frame: Any) -> None:
        raise Hang

    before = [signal.signal(kind, stop) for kind in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, HANG)
    signal.setitimer(signal.ITIMER_REAL, 6 * HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for kind, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
            signal.signal(kind, handler)


def numbers(content: Any) -> Iterator[float]:
    """All numbers of a result."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        for inner in content:
            yield from numbers(inner)
    elif isinstance(content, (int, float)) and not isinstance(content, bool):
        yield content


def fault_of_message(said: str, kind: Input) -> str:
    """What is wrong with a refusal, or ''."""
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in "\u202e\ufeff" for letter in said):
        return "holds control characters"
    if len(said) >= 2000:
        return "has 2,000 characters or more"
    if kind.names not in said and "--set" not in said:
        return "names neither file nor field"
    if ":" not in said or (";" not in said and "known: " not in said):
        return "has no remedy"
    return ""


def outcome(kind: Input, content: bytes, folder: Path) -> str:
    """What is wrong with what an input leads to, or ''."""
    try:
        with limited():
            result = kind.run(folder, content)
    except BadInput as refusal:
        fault = fault_of_message(str(refusal), kind)
        return fault and f"message {fault}: {str(refusal)[:300]!r}"
    except Hang:
        return "hangs"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    bad = [number for number in numbers(result) if not math.isfinite(number) or abs(number) > LARGEST]
    return f"gives {bad[:3]}" if bad else ""


def faults(kind: Input, folder: Path, seed: int, seconds: float) -> list[str]:
    """Faults of mutated inputs, each with the input that leads to it."""
    found: dict[str, str] = {}
    end, count = time.process_time() + seconds, 0
    while time.process_time() < end and len(found) < 20:
        random = Random(f"{kind.name} {seed} {count}")
        content = encoded(mutated(random.choice(kind.good), random), random)
        fault = outcome(kind, content, folder)
        if fault:
            (folder / f"fault{len(found)}").write_bytes(content)
            found.setdefault(fault[:60], f"case {count}: {fault} ({folder}/fault{len(found)})")
        count += 1
    return list(found.values())


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OHMFORMER_LIBRARY", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("kind", INPUTS, ids=lambda kind: kind.name)
def test_good_input_is_taken(kind: Input, library: Path) -> None:
    for text in kind.good:
        kind.run(library, text.encode())


@pytest.mark.slow
@pytest.mark.parametrize("kind", INPUTS, ids=lambda kind: kind.name)
def test_mutated_input_ends_well(kind: Input, library: Path) -> None:
    found = faults(kind, library, SEED, SECONDS)
    assert not found, "\n" + "\n".join(found)
