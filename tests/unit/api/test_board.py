"""Who looks at the world, and what that costs."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import msgspec
import pytest

from federation.api import board, render, views
from federation.api.board import Board
from tests.builders import a_model, a_world


class Drawings:
    """Counts the drawings of a world of these clusters, and where they are made."""

    def __init__(self, *clusters: str) -> None:
        self.count = 0

        def draw(scene: render.Scene) -> views.Items:
            self.count += 1
            self.threads.add(threading.get_ident())
            return views.Items(items=())

        self.threads: set[int] = set()
        scene = SimpleNamespace(world=a_world(*clusters))
        self.board = Board(lambda: scene, draw)  # type: ignore[arg-type, return-value]


async def test_a_hundred_readers_of_one_world_cost_one_drawing() -> None:
    """Ten open maps of a large fleet held up the controller for eight seconds."""
    drawings = Drawings()
    drawn = await asyncio.gather(*(drawings.board.drawn(1.0) for _ in range(100)))
    assert drawings.count == 1
    assert len({id(one.body) for one in drawn}) == 1


async def test_who_changed_something_sees_it() -> None:
    """`drain` would answer that nothing is drained."""
    drawings = Drawings()
    before = await drawings.board.drawn(60.0)
    await asyncio.sleep(0.001)
    drawings.board.outdate()
    assert (await drawings.board.drawn(60.0)).at_s > before.at_s
    assert drawings.count == 2


async def test_who_asks_without_an_age_gets_a_new_one() -> None:
    """A script that reads after its own change would see the world before it."""
    drawings = Drawings()
    await drawings.board.drawn()
    await asyncio.sleep(0.01)
    await drawings.board.drawn()
    assert drawings.count == 2


async def test_the_first_drawing_of_a_large_fleet_holds_nobody_up() -> None:
    """The first map that is opened on ten thousand clusters would hold up all that they say for seconds."""
    drawings = Drawings(*(f"fra-{number:03}" for number in range(150)))
    await drawings.board.drawn()
    assert threading.get_ident() not in drawings.threads


async def test_isochrones_are_drawn_once_for_all_until_other_clusters_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten open maps would have ten times the work done, or show replicas that are gone."""
    drawn: list[str] = []
    world = a_world("fra", models=(a_model("chat"), a_model("rank")))
    serving = frozenset({"fra"})
    monkeypatch.setattr(render, "serving", lambda scene, model: serving)

    def draw(scene: render.Scene, model: str) -> bytes:
        drawn.append(model)
        return b"{}"

    monkeypatch.setattr(board, "_draw_isolines", draw)
    isolines = board.Isolines(lambda: SimpleNamespace(world=world))  # type: ignore[arg-type, return-value]
    assert set(await asyncio.gather(*(isolines.drawn("chat") for _ in range(50)))) == {b"{}"}
    await isolines.drawn("rank")
    assert drawn == ["chat", "rank"]
    serving = frozenset()
    await isolines.drawn("chat")
    assert drawn == ["chat", "rank", "chat"]
    assert await isolines.drawn("nobody") is None


def test_a_list_in_pieces_is_the_same_list() -> None:
    """A map of a large fleet could not be read."""
    rows = tuple(
        views.GatewayView(name=f"gw-{n}", cluster="fra", state="gone", age_s=n / 7, accepted={"a": "b"}, refused={})
        for n in range(2 * board.PIECE + 1)
    )
    for many in (0, 1, board.PIECE, board.PIECE + 1, len(rows)):
        view = views.Items(items=rows[:many])
        assert board.encoded(view) == msgspec.json.encode(view)
