"""JSON Schema of `[search]`, as `read_search` reads it."""

from __future__ import annotations

from typing import Any, get_args

from ohmformer.study.search.goals import known_names
from ohmformer.study.search.proposals import MOST_TRIALS
from ohmformer.study.search.read_search import MOST_BATCH, MOST_CHOICES, MOST_VALUES
from ohmformer.study.search.spec import Sampler

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_NUMBER: Schema = {"type": "number"}
_CHANGES: Schema = {"type": "object", "description": "path in quotes -> value"}


def _whole(least: int, most: int, what: str) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most, "description": what}


_DOMAIN: Schema = {
    "oneOf": [{"required": ["values"]}, {"required": ["options"]}, {"required": ["low", "high"]}],
}

_CHOICE: Schema = {
    "type": "object",
    "properties": {
        "name": {**_TEXT, "description": "name of the choice; the path if it is left out"},
        "path": {**_TEXT, "description": "what is set"},
        "paths": {"type": "array", "items": _TEXT, "minItems": 1, "description": "paths that get the same value"},
        "values": {"type": "array", "minItems": 1, "maxItems": MOST_VALUES, "description": "values as in a sweep"},
        "options": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": _CHANGES,
            "description": "name of an option -> what it sets",
        },
        "low": {**_NUMBER, "description": "lowest number of a range"},
        "high": {**_NUMBER, "description": "highest number of a range"},
        "step": {**_NUMBER, "exclusiveMinimum": 0, "description": "distance of neighbors"},
        "log": {"type": "boolean", "description": "true for numbers that are even in their logarithm"},
        "unit": {"type": "string", "description": "text behind the number, such as 'ns'"},
        "when": {"type": "object", "description": "earlier choice -> one of its values, or a list of them"},
    },
    "allOf": [_DOMAIN],
    "additionalProperties": False,
}

SEARCH: Schema = {
    "type": "object",
    "description": "what `ohmformer search` tries",
    "properties": {
        "objectives": {
            "type": "array",
            "items": {"enum": known_names()},
            "minItems": 1,
            "description": "quantities that are made as good as possible",
        },
        "constraints": {"type": "array", "items": _TEXT, "description": "bounds, such as 'area <= 100 mm2'"},
        "choose": {"type": "array", "items": _CHOICE, "minItems": 1, "maxItems": MOST_CHOICES},
        "first": {"type": "array", "items": {"type": "object"}, "description": "designs that are tried first"},
        "trials": _whole(1, MOST_TRIALS, "number of different designs"),
        "batch": _whole(1, MOST_BATCH, "designs that are chosen before their results are known"),
        "sampler": {"enum": list(get_args(Sampler))},
        "seed": _whole(0, 2**63 - 1, "seed of the proposals"),
    },
    "required": ["objectives", "choose"],
    "additionalProperties": False,
}
"""The table of a search."""
