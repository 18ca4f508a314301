"""Keys at a wrong place are found at the right one, by their present or their former name."""

from __future__ import annotations

from typing import ClassVar

import pytest

from ohmformer.errors import BadInput, Misplaced
from ohmformer.key_search import former_names, nearest_paths, with_place
from ohmformer.schema import Spec, replace, validate


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
