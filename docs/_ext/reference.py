"""The reference pages, made from the code each time the documentation is built.

What is made: the configuration from its schema, the errors from the catalogue of words, the command from its parser,
the routes from the application, and the metrics from the registry. Nothing of it is written by hand, so nothing of it
can differ.
"""

import argparse
import html
import inspect
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from astrocloud.cli import _parser
from astrocloud.config import Config, EmbeddedPassport
from astrocloud.core import words
from astrocloud.core.layout import DataFolder
from astrocloud.core.runtime import CUSTOM_SCOPES, SERVICES, Runtime

HERE = Path(__file__).parents[1]


# The configuration


def blocks() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield every block of the configuration with its place, as ``servers`` or ``passport (kind: oidc)``."""
    yield "", Config
    seen: set[type[BaseModel]] = set()

    def below(model: type[BaseModel], place: str) -> Iterator[tuple[str, type[BaseModel]]]:
        for key, field in model.model_fields.items():
            found = _models(field.annotation)
            for each in found:
                kind = each.model_fields["kind"].annotation if "kind" in each.model_fields else None
                name = f"{place}{key}" + (f" (kind: {get_args(kind)[0]})" if kind else "")
                if each not in seen:
                    seen.add(each)
                    yield name, each
                    yield from below(each, f"{place}{key}.")

    yield from below(Config, "")


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _type(schema: dict[str, Any]) -> str:
    """Return a schema's type in words."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(_type(part) for part in schema.get("anyOf") or schema["oneOf"])
    if "$ref" in schema:
        return f"block `{schema['$ref'].rpartition('/')[2]}`"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if "items" in schema else "list"
    if schema.get("type") == "null":
        return "nothing"
    name = {"integer": "whole number", "string": "text", "boolean": "`true` or `false`", "number": "number"}
    text = {"uri": "address", "path": "path"}.get(schema.get("format", ""), name.get(schema.get("type", ""), "value"))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{text} from {low} to {high}"
    return text if low is None else f"{text}, at least {low}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        return "its own defaults"
    if field.default is None:
        return "nothing"
    if isinstance(field.default, tuple):
        return ", ".join(f"`{item}`" for item in field.default) or "none"
    return f"`{field.default}`"


def configuration() -> str:
    """Return the page of the configuration."""
    lines = [
        "# Configuration",
        "",
        "Every key of `astrocloud.yaml`, made from the schema that reads it. `astrocloud schema` prints the same as",
        "JSON Schema; `astrocloud check-config FILE` checks a file.",
        "",
    ]
    for place, model in blocks():
        title = f"`{place}`" if place else "Top level"
        document = inspect.getdoc(model) or ""
        schema = model.model_json_schema()["properties"]
        lines += [f"## {title}", "", _rst(document), "", "| Key | Value | Default | |", "|-|-|-|-|"]
        for key, field in model.model_fields.items():
            description = _rst(" ".join((field.description or "").split()))
            lines.append(f"| `{key}` | {_type(schema[key])} | {_default(field)} | {description} |")
        lines.append("")
    return "\n".join(lines)


def _rst(text: str) -> str:
    """Return a docstring's double backquotes as MyST's single ones."""
    return re.sub(r"``?([^`]+)``?", r"`\1`", text).replace("|", "\\|")


# The errors


def errors() -> str:
    """Return the page of the errors, in both languages."""
    lines = [
        "# Errors",
        "",
        "Every error has a code that stays. A program gets it in a problem document (RFC 9457) as `code`, with the",
        "sentence below as `detail` in the language of its `Accept-Language`; a page and the terminal show the same.",
        "每个错误都有固定的代码。程序会在问题文档（RFC 9457）的 `code` 字段中得到该代码，`detail` 字段则是下面的句子。",
        "",
    ]
    for code in words.error_codes():
        texts, titles = words.catalogue()[f"errors.{code}"], words.catalogue()[f"errors.{code}.title"]
        lines += [f"({_anchor(code)})=", f"## {code}", "", '<div class="ac-error">']
        lines.append(
            f"<p><strong>{_html(titles['en'])}</strong> · {_html(titles['zh'])} · HTTP {words.error_status(code)}</p>"
        )
        lines += [f'<p lang="{words.HTML_LANGUAGE[lang]}">{_html(texts[lang])}</p>' for lang in words.LANGUAGES]
        lines += ["</div>", ""]
    return "\n".join(lines)


def _anchor(code: str) -> str:
    return f"error-{code}"


def _html(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(" ".join(text.split())))


# The command


def commands() -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of ``astrocloud`` and of everything below it."""

    def below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
        yield parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for child in action.choices.values():
                    yield from below(child)

    yield from below(_parser())


def command_line() -> str:
    """Return the page of the ``astrocloud`` command."""
    os.environ["COLUMNS"] = "100"
    lines = [
        "# The astrocloud command",
        "",
        "`make run` puts it at `.venv/bin/astrocloud`. It works on the data folder that `ASTROCLOUD_DATA` names.",
        "It ends with 0 when all went well, with 1 when `status` finds something amiss, and with 2 and one sentence",
        "when it is refused. With `--json` it prints a document for programs.",
        "",
    ]
    for parser in commands():
        lines += [f"## {parser.prog}", "", "```text", parser.format_help().rstrip(), "```", ""]
    return "\n".join(lines)


# Routes and metrics


def _application() -> Any:
    from astrocloud.platform import build_platform

    with tempfile.TemporaryDirectory() as folder:
        data = DataFolder(Path(folder))
        data.make()
        Runtime.choose(data, bind="127.0.0.1", port=8000, public_url=None)
        return build_platform(list(SERVICES), config=Config(passport=EmbeddedPassport()), data=data).app


def routes() -> str:
    """Return the page of the services' routes."""
    found: dict[str, list[tuple[str, str, str]]] = {name: [] for name in sorted(SERVICES)}
    for route in _application().router.routes():
        path = route.resource.canonical if route.resource else ""
        name = path.split("/")[2] if path.startswith("/services/") else "portal"
        if route.method != "HEAD":
            summary = (inspect.getdoc(route.handler) or "").split("\n\n")[0].replace("\n", " ")
            found.setdefault(name, []).append((path, route.method, _rst(summary)))
    lines = [
        "# Routes",
        "",
        "What the platform's own services answer, made from the application. JupyterHub's routes are below `/hub/`,",
        "people's servers below `/user/`. Every service has `health`, `ready` and `metrics`.",
        "",
    ]
    for name, entries in found.items():
        lines += [f"## {name}", "", "| Path | Method | |", "|-|-|-|"]
        lines += [f"| `{path}` | {method} | {summary} |" for path, method, summary in sorted(entries)]
        lines.append("")
    lines += [
        "## Scopes",
        "",
        "What a token can be restricted to, besides JupyterHub's own scopes.",
        "",
        "| Scope | |",
        "|-|-|",
    ]
    lines += [f"| `{scope}` | {text} |" for scope, text in CUSTOM_SCOPES.items()]
    return "\n".join([*lines, ""])


def metrics() -> str:
    """Return the page of the metrics."""
    from prometheus_client import REGISTRY

    _application()
    lines = [
        "# Metrics",
        "",
        "What `/services/NAME/metrics` tells Prometheus besides the figures of the process itself; JupyterHub's are at",
        "`/hub/metrics`.",
        "",
        "| Metric | Type | Labels | |",
        "|-|-|-|-|",
    ]
    for collector in dict.fromkeys(REGISTRY._collector_to_names):
        name = getattr(collector, "_name", "")
        if name.startswith("astrocloud"):
            labels = ", ".join(f"`{label}`" for label in collector._labelnames)
            lines.append(f"| `{name}` | {collector._type} | {labels} | {collector._documentation} |")
    return "\n".join([*lines, ""])


PAGES: dict[str, Callable[[], str]] = {
    "configuration": configuration,
    "errors": errors,
    "command-line": command_line,
    "routes": routes,
    "metrics": metrics,
}
"""Every page that is made, by its name in ``reference/_generated``."""


def make_pages(folder: Path) -> None:
    """Write every page into `folder`; one that is as it was keeps its time, so that it is not built again."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        path, text = folder / f"{name}.md", page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Make the pages before Sphinx looks for its documents."""
    make_pages(HERE / "reference" / "_generated")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
