"""Curves that are worked out when somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from federation.adapters.solver import SolverError
from federation.aiokit.tasks import Tasks
from federation.control.plan import Plan
from federation.loops.frontier import Frontiers
from placement.explain.frontier import Point, Standing

HERE = Point(
    usd_per_1000_per_ms=5e-4, usd_per_hour=10.0, rtt_ms_mean=20.0, excess_ms_mean=2.0, unserved_rps=0.0, gap=0.0
)
STANDING = Standing(planned=HERE, on_curve=HERE, in_parts=True)


class FakeSolver:
    """Gives one point, then what it is told to raise, or ends when it is let."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.at_once = 0, 0
        self.go = asyncio.Event()
        self._error = error

    async def frontier(self, *_: object) -> AsyncIterator[tuple[Standing, tuple[Point, ...]]]:
        self.begun += 1
        self.at_once += 1
        assert self.at_once == 1, "one curve at a time"
        yield STANDING, (HERE,)
        await self.go.wait()
        self.at_once -= 1
        if self._error is not None:
            raise self._error


def a_solve() -> Any:
    return SimpleNamespace(formulated=SimpleNamespace(problem=None), proposal=SimpleNamespace(solution=None))


def frontiers(solver: Any) -> Frontiers:
    hub: Any = SimpleNamespace(plan=Plan(epoch=1, generation=7))
    return Frontiers(hub, solver, Tasks())


async def test_who_asks_while_it_is_worked_out_joins_and_sees_what_is_there() -> None:
    """Everyone who opens the map would start the same long work anew, one after the other."""
    solver = FakeSolver()
    asked, solve = frontiers(solver), a_solve()
    first, second = await asyncio.gather(asked.ask(solve, ""), asked.ask(solve, ""))
    assert first is second and solver.begun == 1
    assert first.points == (HERE,) and first.ended_s is None and first.says == ""
    other = asyncio.create_task(asked.ask(solve, "chat"))
    await asyncio.sleep(0.05)
    assert solver.begun == 1, "another model's curve waits for its turn"
    solver.go.set()
    done = await asked.ask(solve, "")
    assert done.ended_s is not None and "policy stands at 20.0 ms for 10 USD/h" in done.says
    assert await asked.ask(a_solve(), "") is done, "it is kept for a while, whatever is planned meanwhile"
    assert (await other).model == "chat"


@pytest.mark.parametrize("error", [SolverError("the process died"), ZeroDivisionError("of ours")])
async def test_what_fails_is_told_once_and_tried_again(error: Exception) -> None:
    """An empty curve would look as if there were no choice; or a failure would stand for ever."""
    solver = FakeSolver(error)
    solver.go.set()
    asked, solve = frontiers(solver), a_solve()
    failed = await asked.ask(solve, "")
    assert str(error) in failed.failed
    await asked.ask(solve, "")
    assert solver.begun == 2
