"""Every text a user can see, in both languages.

The texts are in ``core/words/*.yaml``, one file a domain; the key of a text is ``FILE.KEY``. A placeholder is written
``{name}``. Errors are in ``errors.yaml``, each with a status and a title besides its sentence. A key that is not there
is an error of ours, so `text` raises `KeyError`; a test walks through the code and finds such keys first.
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

import yaml

LANGUAGES: Final = ("en", "zh")
"""The platform's languages."""

HTML_LANGUAGE: Final[Mapping[str, str]] = {"en": "en", "zh": "zh-CN"}
"""The ``lang`` attribute of a page in each language."""


@cache
def catalogue() -> Mapping[str, Mapping[str, str]]:
    """Return all texts: key -> {language: text}."""
    found: dict[str, Mapping[str, str]] = {}
    folder = resources.files("astrocloud.core") / "words"
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if not entry.name.endswith(".yaml"):
            continue
        domain = entry.name.removesuffix(".yaml")
        document: dict[str, dict[str, Any]] = _parse(entry.read_text(encoding="utf-8")) or {}
        for key, texts in document.items():
            if domain == "errors":
                found[f"errors.{key}"] = {lang: texts[lang] for lang in LANGUAGES}
                found[f"errors.{key}.title"] = texts["title"]
            else:
                found[f"{domain}.{key}"] = texts
    return found


@cache
def _statuses() -> Mapping[str, int]:
    text = (resources.files("astrocloud.core") / "words" / "errors.yaml").read_text(encoding="utf-8")
    return {code: int(entry["status"]) for code, entry in _parse(text).items()}


def _parse(text: str) -> Any:
    """Parse YAML with libyaml's safe loader where PyYAML has it: ten times faster at start-up."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


def text(key: str, language: str, /, **parameters: Any) -> str:
    """Return the text `key` in `language` with its placeholders filled.

    Raises
    ------
    KeyError
        If there is no such text, or a placeholder has no value.
    """
    return catalogue()[key][language].format_map(parameters)


def error_codes() -> tuple[str, ...]:
    """Return the codes of all errors, sorted."""
    return tuple(sorted(_statuses()))


def error_status(code: str) -> int:
    """Return the HTTP status of the error `code`. Raises `KeyError` for an unknown code."""
    return _statuses()[code]


def negotiate(accept_language: str | None, *, chosen: str | None = None, default: str = "en") -> str:
    """Return the language to answer in.

    Parameters
    ----------
    accept_language
        The request's ``Accept-Language`` (RFC 9110, section 12.5.4), or `None`.
    chosen
        What the person chose earlier (the cookie), if anything; wins when it is one of ours.
    default
        The answer when neither says.
    """
    if chosen in LANGUAGES:
        return chosen
    ranked: list[tuple[float, int, str]] = []
    for position, part in enumerate((accept_language or "")[:500].split(",")):
        tag, _, quality = part.strip().partition(";")
        primary = tag.strip().lower().split("-")[0]
        try:
            weight = float(quality.strip().lower().removeprefix("q=")) if quality else 1.0
        except ValueError:
            continue
        if primary in LANGUAGES and weight > 0:
            ranked.append((-weight, position, primary))
    return min(ranked)[2] if ranked else default
