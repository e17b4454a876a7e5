"""Renders the world once for all readers: a change costs one rendering, however many maps are open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from federation.api import render, views

V = TypeVar("V", bound=views.View)

LONG_S, MANY = 0.02, 100
"""A rendering that takes longer, or may because there are so many clusters, runs in a thread beside the loop."""
ISOLINES_S = 20.0
"""Round trips change slowly: isochrones stay valid for this long unless other clusters serve."""
PIECE = 200
"""Items of a list that are encoded at one time."""
REST = 2.0
"""A rendering is reused for this multiple of its duration, so that readers take at most a third of a core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn(Generic[V]):
    """The world at one instant of the loop's clock, and as JSON."""

    at_s: float
    view: V
    body: bytes


class Board(Generic[V]):
    """Renders the world when the newest rendering is too old for a reader. Args: draw: a pure function; it may run in a
    thread."""

    def __init__(self, scene: Callable[[], render.Scene], draw: Callable[[render.Scene], V]) -> None:
        self._scene = scene
        self._draw = draw
        self._newest: Drawn[V] | None = None
        self._not_before_s = float("-inf")
        self._took_s = 0.0
        self._drawing = asyncio.Lock()

    def outdate(self) -> None:
        """Invalidate the rendering: a client changed something and expects to see it."""
        self._not_before_s = asyncio.get_running_loop().time()

    async def drawn(self, max_age_s: float = 0.0) -> Drawn[V]:
        """The world at most that old, or as old as a rendering takes."""
        async with self._drawing:
            loop = asyncio.get_running_loop()
            newest, now_s = self._newest, loop.time()
            is_fresh = newest is not None and now_s - newest.at_s <= max(max_age_s, REST * self._took_s)
            if newest is None or not is_fresh or newest.at_s < self._not_before_s:
                scene = self._scene()
                is_long = self._took_s > LONG_S or len(scene.world.clusters) > MANY
                view, body = await asyncio.to_thread(self._drawing_of, scene) if is_long else self._drawing_of(scene)
                self._took_s = loop.time() - now_s
                before, newest = [self._newest], Drawn(at_s=now_s, view=view, body=body)
                self._newest = newest
                if is_long:  # to free a large rendering takes long too
                    await asyncio.to_thread(before.clear)
            return newest

    def _drawing_of(self, scene: render.Scene) -> tuple[V, bytes]:
        view = self._draw(scene)
        return view, encoded(view)


def encoded(view: msgspec.Struct) -> bytes:
    """The view as JSON, with long lists in pieces: no other thread runs while a piece is encoded."""
    fields = []
    for field in msgspec.structs.fields(view):
        value = getattr(view, field.name)
        name = msgspec.json.encode(field.encode_name)
        if isinstance(value, tuple) and len(value) > PIECE:
            pieces = (msgspec.json.encode(value[at : at + PIECE])[1:-1] for at in range(0, len(value), PIECE))
            fields.append(name + b":[" + b",".join(pieces) + b"]")
        else:
            fields.append(name + b":" + msgspec.json.encode(value))
    return b"{" + b",".join(fields) + b"}"


def listed(draw: Callable[[render.Scene], Sequence[views.View]]) -> Callable[[render.Scene], views.Items]:
    """The rendering as `{"items": [...]}`."""
    return lambda scene: views.Items(items=tuple(draw(scene)))


class Isolines:
    """The isochrones of models that somebody looks at, each rendered once for all readers."""

    def __init__(self, scene: Callable[[], render.Scene]) -> None:
        self._scene = scene
        self._newest: dict[str, _Isolines] = {}
        self._drawing = asyncio.Lock()

    async def drawn(self, model: str) -> bytes | None:
        """As JSON; None without such a model. It is rendered again when other clusters serve or it is too old."""
        async with self._drawing:
            loop = asyncio.get_running_loop()
            scene = self._scene()
            known = {one.metadata.name for one in scene.world.documents.models}
            self._newest = {name: one for name, one in self._newest.items() if name in known}
            if model not in known:
                return None
            serving, newest = render.serving(scene, model), self._newest.get(model)
            if newest is None or newest.serving != serving or newest.not_after_s < loop.time():
                began_s = loop.time()
                body = await asyncio.to_thread(_draw_isolines, scene, model)
                ended_s = loop.time()
                not_after_s = ended_s + max(ISOLINES_S, REST * (ended_s - began_s))
                self._newest[model] = newest = _Isolines(serving=serving, not_after_s=not_after_s, body=body)
            return newest.body


@dataclass(frozen=True, slots=True, kw_only=True)
class _Isolines:
    serving: frozenset[str]
    not_after_s: float
    body: bytes


def _draw_isolines(scene: render.Scene, model: str) -> bytes:
    return msgspec.json.encode(render.isochrones_view(scene, model))
