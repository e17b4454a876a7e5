"""How answers are written: JSON of a view, or a refusal with its cause and the next step."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from federation.api import views


def answer(view: views.View, *, status: int = 200) -> web.Response:
    """The view as JSON."""
    return web.Response(body=msgspec.json.encode(view), status=status, content_type="application/json")


def answer_list(items: Sequence[views.View]) -> web.Response:
    """{"items": [...]}."""
    return answer(views.Items(items=tuple(items)))


def refuse(
    status: int, code: str, message: str, hint: str, problems: tuple[views.ProblemView, ...] = ()
) -> web.Response:
    """A refusal."""
    return answer(views.ErrorView(code=code, message=message, hint=hint, problems=problems), status=status)
