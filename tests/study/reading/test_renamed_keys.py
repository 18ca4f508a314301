"""Study keys, public names and methods of kinds that were renamed are refused with their new name."""

from __future__ import annotations

from typing import Any, Literal

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


def test_the_former_name_of_the_jobs_of_a_dataflow_is_refused() -> None:
    class Old(of.Dataflow):
        kind: Literal["old"] = "old"

        def tasks(self, placement: Any) -> Any:
            return ()

    with pytest.raises(of.BadInput, match=r"register\(Old\): the method tasks is now called jobs; rename it"):
        of.register(Old)


def test_former_names_of_methods_are_refused_with_the_new_ones() -> None:
    class Joined(of.Dataflow):
        kind: Literal["joined"] = "joined"

        def joins(self) -> bool:
            return False

    class Law(of.ArrayLaw):
        kind: Literal["law"] = "law"

        def read_energy(self, old: of.ArraySize, new: of.ArraySize) -> float:
            return 1.0

    class Worn(of.WearModel):
        kind: Literal["worn out"] = "worn out"

        def stuck_share(self, pulses: float, endurance: float) -> float:
            return 0.0

        def stuck_places(self, faults: of.FaultModel) -> tuple[tuple[float, float], ...]:
            return ((0.0, 1.0),)

    with pytest.raises(of.BadInput, match=r"register\(Joined\): the method joins is now called has_barrier; rename it"):
        of.register(Joined)
    with pytest.raises(of.BadInput, match=r"register\(Law\): the method read_energy is now called read_energy_ratio"):
        of.register(Law)
    with pytest.raises(of.BadInput, match=r"register\(Worn\): the method stuck_places is now called stuck_states"):
        of.register(Worn)
