"""Keys at a wrong place are found at the right one, by their present or their former name."""

from __future__ import annotations

from typing import ClassVar

import pytest

from ohmformer.errors import BadInput, Misplaced
from ohmformer.hardware.spec import Accelerator
from ohmformer.key_search import former_names, nearest_paths, with_place
from ohmformer.schema import Spec, load, replace, validate
from ohmformer.study.read_study import make_study
from tests.study.small import document


class Lamp(Spec):
    renamed: ClassVar[dict[str, str]] = {"colour": "color"}

    color: str = "white"
    watts: int = 5


class Room(Spec):
    aliases: ClassVar[dict[str, tuple[str, ...]]] = {"lamp": ("left", "right")}

    left: Lamp = Lamp()
    right: Lamp = Lamp()
    name: str = ""


class House(Spec):
    hall: Room = Room()
    attic: Lamp | None = None


def test_the_nearest_place_is_found() -> None:
    assert nearest_paths(House, "watts") == ["attic.watts"]
    assert nearest_paths(House, "watts", ["hall"]) == ["hall.lamp.watts", "hall.left.watts", "hall.right.watts"]
    assert nearest_paths(House, "colour", ["attic"]) == ["attic.color"]
    assert nearest_paths(House, "lamp") == ["hall.lamp"]
    assert nearest_paths(House, "roof") == []
    assert nearest_paths(House, "") == []
    assert former_names(Lamp) == {"colour": "color"}


def test_messages_name_the_place() -> None:
    with pytest.raises(BadInput, match="is not a key here") as caught:
        validate(House, {"watts": 3}, where="f")
    assert str(caught.value) == "f: watts: is not a key here; did you mean attic.watts? known: attic, hall"
    with pytest.raises(BadInput, match=r"^name: is not a key here; did you mean hall\.name\? known: attic, hall$"):
        replace(House(), "name", "x")
    other = Misplaced(("watts",), 3, "must be >= 5; raise it")
    assert with_place(other, House) is other


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("array.size", "array: is not a key here, since not all of projection.array and attention.array exist"),
        ("attention.array.size", "since not all of attention.key.array and attention.value.array exist on this one"),
        ("attention.write_lines", "since not all of attention.key.write_lines and attention.value.write_lines exist"),
        ("attention.key.write_lines", "attention.key.write_lines: is not a key here, but one of another kind; take"),
        ("projection.lanes", "projection.lanes: is not a key here, but one of another kind; take that kind, or a key"),
    ],
)
def test_a_key_that_another_kind_of_engine_has_names_no_other_engine_without_it(path: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        replace(load(Accelerator, "puma_asplos_2019"), path, 64)
    assert message in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_a_key_of_the_same_table_is_meant_before_one_elsewhere() -> None:
    """`trials.chip` once was said to mean `hardware.chip` alone, although `trials.chips` exists."""
    with pytest.raises(BadInput, match=r"trials.chip: is not a key here; did you mean 'chips' or hardware.chip\?"):
        make_study(document(), ["trials.chip=2"])
