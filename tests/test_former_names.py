"""Methods of kinds that were renamed are refused under their former names."""

from __future__ import annotations

from typing import Any, Literal

import pytest

import ohmformer as of


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

    with pytest.raises(of.BadInput, match=r"register\(Joined\): the method joins is now called has_barrier; rename it"):
        of.register(Joined)
    with pytest.raises(of.BadInput, match=r"register\(Law\): the method read_energy is now called read_energy_ratio"):
        of.register(Law)
