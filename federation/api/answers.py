"""Responses: a view as JSON, or a refusal with its cause and the next step."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from federation.aiokit.http import CHUNK_BYTES, Shared
from federation.api import views

RETRY_AFTER_S = 5
"""Retry-After of a refusal that is temporary."""


def answer(view: views.View, *, status: int = 200) -> web.Response:
    """The view as JSON."""
    return answer_bytes(msgspec.json.encode(view), status=status)


def answer_bytes(body: bytes, *, status: int = 200) -> web.Response:
    """JSON as it is."""
    if len(body) > CHUNK_BYTES:
        return web.Response(body=Shared(body, "application/json"), status=status)
    return web.Response(body=body, status=status, content_type="application/json")


def answer_list(items: Sequence[views.View]) -> web.Response:
    """{"items": [...]}."""
    return answer(views.Items(items=tuple(items)))


def refuse(
    status: int, code: str, message: str, hint: str, problems: tuple[views.ProblemView, ...] = ()
) -> web.Response:
    """A refusal."""
    response = answer(views.ErrorView(code=code, message=message, hint=hint, problems=problems), status=status)
    if status in (429, 503):
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response
