"""Study keys that were renamed are refused with their new name, wherever they stand."""

from __future__ import annotations

from typing import Any

import pytest

import ohmformer as of
from ohmformer.errors import BadInput
from ohmformer.study.read_study import make_study, make_whole
from tests.study.small import document


@pytest.mark.parametrize(
    ("path", "value", "new"),
    [
        ("hardware.attention.array.copies", 2, "redundancy"),
        ("hardware.attention.array.slice_base", 1, "radix"),
        ("hardware.projection.array.verify.writes", 4, "write_verify"),
        ("mitigation.kv", {"copies": 2}, "redundancy"),
        ("mitigation.kv.slice_base", 1, "radix"),
        ("cost.levelling", True, "leveling"),
    ],
)
def test_a_former_key_is_refused_by_its_new_name(path: str, value: Any, new: str) -> None:
    with pytest.raises(BadInput, match=f"is now called {new}; rename it") as caught:
        make_whole(document(), [f"{path}={_toml(value)}"])
    assert "\n" not in str(caught.value)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    return str(value).lower()


def test_the_new_keys_are_read() -> None:
    sets = ["hardware.attention.array.redundancy=2", "mitigation.kv={ radix = 1 }"]
    (point,) = make_study(document(), sets).points[:1]
    assert point.settings.hardware.attention.key.array.redundancy == 2


def test_a_former_public_name_says_its_new_one() -> None:
    with pytest.raises(AttributeError, match="without_quantizers"):
        _ = of.without_quantisers
