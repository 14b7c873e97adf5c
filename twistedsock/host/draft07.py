"""JSON Schema of a pydantic model in draft-07, as a TOML file writes the model.

Draft-07, because taplo, which stands behind most TOML editors, knows no later one.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from pydantic_core import core_schema

Schema = dict[str, Any]  # whatever JSON can say


def model_schema(model: type[BaseModel], place: str) -> Schema:
    """Return the schema of *model*, with its inner models under ``definitions``.

    Args:
        model: The model.
        place: Where the schema will stand: a reference such as ``#`` or ``#/definitions/x``.
    """
    schema = model.model_json_schema(
        ref_template=place + "/definitions/{model}",
        schema_generator=_Draft07,
    )
    definitions = schema.pop("$defs", {})
    for each in (schema, *definitions.values()):
        each.pop("title", None)  # the name of a class
    return {**schema, "definitions": definitions} if definitions else schema


class _Draft07(GenerateJsonSchema):
    """What 2020-12, pydantic's dialect, says otherwise, and what TOML has not."""

    # What cannot be described is left open, which is no reason to warn.
    ignored_warning_kinds: ClassVar[set[JsonSchemaWarningKind]] = {  # type: ignore[misc]
        "skipped-choice",
        "non-serializable-default",
    }

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Give no titles, which would repeat the keys."""
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> Schema:
        """Leave out null, which TOML has not."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        """Leave out a default of None, and that of a table: its keys have theirs."""
        described = super().default_schema(schema)
        if isinstance(described.get("default"), dict | None):
            described.pop("default", None)
        return described

    def tuple_schema(self, schema: core_schema.TupleSchema) -> Schema:
        """Describe the positions of a tuple by ``items``, and what follows them apart."""
        described = super().tuple_schema(schema)
        if "prefixItems" in described:
            if "items" in described:
                described["additionalItems"] = described.pop("items")
            described["items"] = described.pop("prefixItems")
        return described

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        """Let a type that JSON Schema cannot describe be anything."""
        return {}
