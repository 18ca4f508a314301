"""JSON Schema of the files that users write, for editors that check while one types.

Pydantic describes values as code has them; files also hold quantities with units, values with sources, names of library
entries, and entries with changes. This module adds those forms.
"""

from __future__ import annotations

from typing import Any

from ohmformer.errors import BadInput, shown, suggest
from ohmformer.provenance import Source
from ohmformer.report.library import SPECS
from ohmformer.schema import Spec
from ohmformer.study.results.spec import results_schema
from ohmformer.study.search.table_schema import SEARCH
from ohmformer.study.spec import CostSettings, Settings, Whole

Schema = dict[str, Any]

RULES: Schema = {
    "type": "object",
    "description": "name pattern of modules -> what is different for them; the first match wins",
    "additionalProperties": {
        "anyOf": [
            {"type": "string", "description": "digital, the name of an engine or of a library array, or a .toml file"},
            {"$ref": "#/$defs/Rule"},
        ]
    },
}
"""Rules as files hold them."""


def file_schema(kind: str) -> Schema:
    """The schema of a study (of accuracy, or of `costs`), accelerator, array, cell or shapes file, or of `results`.

    Raises:
        BadInput: there is no such kind of file.
    """
    if kind in ("study", "costs"):
        return _study_schema(*(Settings, CostSettings) if kind == "study" else (CostSettings, Settings))
    if kind == "results":
        return results_schema()
    if kind not in SPECS:
        raise BadInput(f"{shown(kind)} is not a kind of file; {suggest(kind, ['study', 'costs', 'results', *SPECS])}")
    entry, definitions = _described(SPECS[kind])
    return {**_table({kind: entry}, [kind]), "title": f"Ohmformer {kind}", "$defs": definitions}


def _study_schema(cls: type[Spec], other: type[Spec]) -> Schema:
    """Schema of a study file: sections that one half requires, and optional sections of the other half."""
    by_half = {half.__name__: _described(half)[1] for half in (other, cls)}
    definitions = {name: schema for half in by_half.values() for name, schema in half.items() if name not in by_half}
    sections, more = by_half[cls.__name__][cls.__name__], by_half[other.__name__][other.__name__]
    model = by_half[CostSettings.__name__][CostSettings.__name__]["properties"]["model"]
    axes = {
        "type": "object",
        "description": "path -> value or list of values",
        "properties": {"label": {"type": "string"}},
    }
    properties = {
        "name": {"type": "string", "minLength": 1},
        **{
            key: part
            for key, part in (more["properties"] | sections["properties"]).items()
            if key in Whole.model_fields
        },
        "model": model,
        "rules": RULES,
        "sweep": {"anyOf": [axes, {"type": "array", "items": axes}]},
        "search": SEARCH,
    }
    return {**_table(properties, ["name", *sections["required"]]), "title": "Ohmformer study", "$defs": definitions}


def _table(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _described(cls: type[Spec]) -> tuple[Schema, Schema]:
    """A reference to the schema of a specification, and all definitions."""
    raw = cls.model_json_schema(ref_template="#/$defs/{model}")
    definitions: Schema = {**raw.pop("$defs", {}), cls.__name__: raw}
    classes = {spec.__name__: spec for spec in _subclasses(Spec)}
    written = {name: _as_written(schema, classes[name]) for name, schema in definitions.items() if name in classes}
    marks = Source.model_json_schema()["properties"]
    return {"$ref": f"#/$defs/{cls.__name__}"}, {**written, "Sourced": _table({"value": {}, **marks}, ["value"])}


def _subclasses(cls: type[Spec]) -> list[type[Spec]]:
    return [spec for direct in cls.__subclasses__() for spec in (direct, *_subclasses(direct))]


def _as_written(schema: Schema, cls: type[Spec]) -> Schema:
    """The schema of a table, with what files may hold instead."""
    properties = {name: _value(value) for name, value in schema["properties"].items()}
    required = schema.get("required", [])
    for alias, targets in cls.aliases.items():
        properties[alias] = {"description": f"sets {' and '.join(targets)}"}
        required = [name for name in required if not any(target.split(".")[0] == name for target in targets)]
    for shorthand, fields in cls.shorthands.items():
        properties.setdefault(shorthand, {"description": f"stands for {' and '.join(fields)}"})
    stated = {field: [key for key, fields in cls.shorthands.items() if field in fields] for field in required}
    table = {
        **_table(properties, [field for field in required if not stated[field]]),
        "description": schema.get("description", ""),
    }
    if choices := [[field, *keys] for field, keys in stated.items() if keys]:
        table["allOf"] = [{"anyOf": [{"required": [key]} for key in keys]} for keys in choices]
    if not cls.catalog_kind:
        return table
    name = {"type": "string", "description": f"name of a library {cls.catalog_kind}, or path of a .toml file"}
    changed = {"type": "object", "properties": {"base": name}, "required": ["base"]}
    return {"anyOf": [name, changed, table]}


def _value(schema: Schema) -> Schema:
    """A field: bare, or as `{ value = ..., source = ... }`."""
    bare = _quantity(schema)
    if "$ref" in bare or "discriminator" in bare:
        return bare
    sourced = {"allOf": [{"$ref": "#/$defs/Sourced"}, {"properties": {"value": bare}}]}
    return {"anyOf": [bare, sourced], **_notes(schema)}


def _quantity(schema: Schema) -> Schema:
    """A number with a unit is text in files, and a share may be."""
    if "share" in schema:
        number = {key: value for key, value in schema.items() if key != "share"}
        return {"anyOf": [number, {"type": "string", "pattern": r"%\s*$", "description": "in percent, such as '3 %'"}]}
    if "unit" in schema:
        return {"type": "string", "description": f"a quantity in {schema['unit']}, such as '10 {schema['unit']}'"}
    if "anyOf" in schema:
        return {**schema, "anyOf": [_quantity(option) for option in schema["anyOf"]]}
    if isinstance(schema.get("items"), dict):
        return {**schema, "items": _quantity(schema["items"])}
    return schema


def _notes(schema: Schema) -> Schema:
    return {key: schema[key] for key in ("title", "description") if key in schema}
