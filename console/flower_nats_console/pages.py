"""Rendering: pages from templates, and the same as JSON."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from flower_nats_console.viewer import has_token
from flower_nats_console.words import (
    age_in_words,
    bytes_in_words,
    clock_in_words,
    clock_is_off,
    figure_in_words,
    ms_in_words,
    plural,
    seconds_in_words,
)

_HERE = Path(__file__).parent

STATIC = _HERE / "static"


def _moment(iso: str) -> Markup:
    """Return a moment: the page's script writes it in the reader's zone, and without one it is UTC."""
    if not iso:
        return Markup("–")
    when = datetime.fromisoformat(iso)
    text = f"{when:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}">{}</time>').format(iso, text)


def seconds_between(earlier: str, later: str) -> float | None:
    """Return the seconds from one moment (ISO 8601) to another; None if one of them is missing."""
    if not earlier or not later:
        return None
    span = datetime.fromisoformat(later) - datetime.fromisoformat(earlier)
    return max(0.0, span.total_seconds())


def _span(earlier: str, later: str) -> str:
    return seconds_in_words(seconds_between(earlier, later))


def _ago(moment: str, now: str) -> str:
    return age_in_words(seconds_between(moment, now))


def _with_code(text: str) -> Markup:
    """Return a text of ours whose `commands` are set apart, as in our messages in terminals."""
    parts = [
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


_TEMPLATES = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_TEMPLATES.filters.update(
    moment=_moment,
    with_code=_with_code,
    bytes=bytes_in_words,
    clock=clock_in_words,
    figure=figure_in_words,
    seconds=seconds_in_words,
    ms=ms_in_words,
)
_TEMPLATES.globals.update(plural=plural, span=_span, ago=_ago, clock_is_off=clock_is_off)


def page(request: Request, name: str, title: str, code: int = 200, **values: Any) -> Response:
    """Return a page made of the template `name`."""
    template = _TEMPLATES.get_template(f"{name}.html")
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    text = template.render(
        title=title,
        here=path,
        path=request.url.path,
        has_token=has_token(request),
        **values,
    )
    return HTMLResponse(text, code)


def data(values: Mapping[str, Any]) -> Response:
    """Return what a page shows, for programs."""
    return JSONResponse(values)
