"""`/docs`: the OpenAPI document for people, rendered by Swagger UI, which can also send
requests. Without scripts it is one HTML page. Nothing comes from other hosts."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.router.api.fixed import Fixed

UI = Path(__file__).parents[1] / "docs_ui"
_TEXT = "text/html; charset=utf-8"
FILES = {
    "/dashboard/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/dashboard/docs.css": ("docs.css", "text/css; charset=utf-8"),
    "/dashboard/swagger-ui.js": ("swagger-ui.js", "text/javascript; charset=utf-8"),
    "/dashboard/swagger-ui.css": ("swagger-ui.css", "text/css; charset=utf-8"),
    "/dashboard/swagger-ui.txt": ("NOTICE.txt", "text/plain; charset=utf-8"),
}
_HEAD = (
    "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
    "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    "<meta name='color-scheme' content='light dark'>"
    "<title>Responses Proxy: API</title>"
    "<link rel='icon' href='/favicon.ico' type='image/svg+xml'>"
    "<link rel='stylesheet' href='/dashboard/swagger-ui.css'>"
    "<link rel='stylesheet' href='/dashboard/docs.css'>"
    "<noscript><link rel='stylesheet' href='/dashboard/style.css'></noscript>"
    "<script src='/dashboard/swagger-ui.js' defer></script>"
    "<script src='/dashboard/docs.js' type='module'></script></head><body>"
    "<header><strong>Responses Proxy</strong><a href='/'>Dashboard</a>"
    "<a href='/openapi.json'>openapi.json</a></header>"
    "<div id='swagger-ui'></div>"
    "<noscript><main><p>Point any OpenAI client's base URL at <code>/v1</code>. "
    "Paths under <code>/admin</code> need <code>Authorization: Bearer TOKEN</code>, "
    "and every write needs <code>Content-Type: application/json</code>.</p>"
)
_COLUMNS = ("Method", "Path", "Summary", "Query", "Body", "Response")


def docs(document: Mapping[str, Any], csp: str) -> dict[str, Fixed]:
    """The page and its files, by path. `csp`: the policy of the router's pages."""
    # Pictures in the style sheet are data.
    policy = csp.replace("img-src 'self'", "img-src 'self' data:")
    files = {
        path: Fixed((UI / name).read_bytes(), media)
        for path, (name, media) in FILES.items()
    }
    return {"/docs": Fixed(page(document).encode(), _TEXT, policy), **files}


def page(document: Mapping[str, Any]) -> str:
    """The HTML for an OpenAPI document."""
    operations = "".join(
        _operation_row(method, path, described)
        for path, methods in document["paths"].items()
        for method, described in methods.items()
    )
    schemas = "".join(
        _schema_section(name, schema)
        for name, schema in document["components"]["schemas"].items()
    )
    columns = "".join(f"<th scope='col'>{name}</th>" for name in _COLUMNS)
    return (
        f"{_HEAD}<h2>Operations</h2><div class='scroll'><table>"
        f"<thead><tr>{columns}</tr></thead><tbody>{operations}</tbody></table></div>"
        f"<h2>Models</h2>{schemas}</main></noscript></body></html>"
    )


def _operation_row(method: str, path: str, described: Mapping[str, Any]) -> str:
    query = [p["name"] for p in described["parameters"] if p["in"] == "query"]
    success = next(iter(described["responses"].values()))
    return (
        f"<tr><td><code>{method.upper()}</code></td><td><code>{path}</code></td>"
        f"<td>{html.escape(described['summary'])}</td><td>{', '.join(query)}</td>"
        f"<td>{_link(described.get('requestBody', {}))}</td><td>{_link(success)}</td>"
        "</tr>"
    )


def _link(part: Mapping[str, Any]) -> str:
    """A link to the model of a body."""
    for content in part.get("content", {}).values():
        name = kind_of(content["schema"])
        return f"<a href='#{name}'>{name}</a>"
    return ""


def _schema_section(name: str, schema: Mapping[str, Any]) -> str:
    fields = "".join(
        f"<tr><td><code>{field}</code></td><td>{html.escape(kind_of(part))}</td></tr>"
        for field, part in schema.get("properties", {}).items()
    )
    values = ", ".join(schema.get("enum", ()))
    table = f"<div class='scroll'><table><tbody>{fields}</tbody></table></div>"
    return (
        f"<h3 id='{name}'>{name}</h3>"
        f"<p>{html.escape(schema.get('description', ''))} {html.escape(values)}</p>"
        f"{table if fields else ''}"
    )


def kind_of(schema: Mapping[str, Any]) -> str:
    """A property's type in words: `string or null`, `list of Candidate`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(kind_of(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}))}"
    return str(schema.get("type", "any"))
