"""/docs: the description of the API as a page that needs no other server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from loralab.report.rendering import template_environment

Schema = Mapping[str, Any]


def render_api_page(description: Schema) -> str:
    """Return the page of an OpenAPI description. The page's own routes, under /api/, are left out."""
    schemas = description.get("components", {}).get("schemas", {})
    routes = [
        {
            "method": method.upper(),
            "path": path,
            "description": (operation.get("description") or operation.get("summary", "")).replace("`", ""),
            "parameters": [
                _field(p["name"], p["schema"], p.get("required", False), schemas) for p in operation.get("parameters", ())
            ],
            **_body(operation, schemas),
            "statuses": ", ".join(operation["responses"]),
        }
        for path, operations in description["paths"].items()
        if not path.startswith("/api/")
        for method, operation in operations.items()
    ]
    info = description["info"]
    return template_environment().get_template("api.html.jinja").render(title=info["title"], version=info["version"], routes=routes)


def _body(operation: Schema, schemas: Schema) -> dict[str, Any]:
    """Return the fields of a request's body and an example of it."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return {"body": [], "example": ""}
    schema = _resolved(content["schema"], schemas)
    required = schema.get("required", ())
    fields = [_field(name, field, name in required, schemas) for name, field in schema.get("properties", {}).items()]
    return {"body": fields, "example": json.dumps(schema["example"], ensure_ascii=False) if "example" in schema else ""}


def _field(name: str, schema: Schema, required: bool | None, schemas: Schema) -> dict[str, Any]:
    return {"name": name, "type": _type(schema, schemas), "description": schema.get("description", ""), "required": required}


def _type(schema: Schema, schemas: Schema) -> str:
    """Return a schema in words, such as `text or list of texts`."""
    schema = _resolved(schema, schemas)
    if alternatives := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_type(alternative, schemas) for alternative in alternatives))
    if schema.get("type") == "array":
        return f"list of ({_type(schema['items'], schemas)})"
    names = {"string": "text", "boolean": "true or false", "null": "null"}
    limits = [f"{word} {schema[key]:g}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join([names.get(schema.get("type", ""), str(schema.get("type", "anything"))), *limits])


def _resolved(schema: Schema, schemas: Schema) -> Schema:
    reference = schema.get("$ref")
    return schemas[reference.rpartition("/")[2]] if reference else schema
