"""What planning costs those who report: 500 reports a second, heard beside the largest plan and without it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np

from federation.adapters.solver import Solver
from federation.aiokit import runtime
from federation.aiokit.clock import Clock
from federation.control.placement_cycle import NewPlacement
from federation.control.plan import Plan, Routes
from federation.control.problem import formulate
from federation.loops.hub import Hub
from federation.loops.plan import Planner
from federation.metrics import Metrics
from federation.state.reduce import Heard
from federation.wire import messages
from tests.bench import fleet
from tests.bench.demo_size import result

PER_SECOND = 500
LISTENING_S = 10.0
CLUSTERS, CELLS, MODELS = 1_000, 10_000, 20


class _Decided:
    """In place of the loop that carries a decision out."""

    async def once(self, why: str, new: NewPlacement) -> None:
        """Nothing."""


def reports() -> Iterator[dict[str, object]]:
    """Milliseconds from when a report is due to when the world has it: the 99th of 100 and the worst.

    Beside a solve, and beside a whole planning cycle: formulated, solved, checked, judged.
    """
    alone, solving, planning = asyncio.run(_all())
    for beside, waited_ms in (("solve", solving), ("cycle", planning)):
        for name, part in (("p99", 99.0), ("worst", 100.0)):
            yield result(
                f"report wait {name}",
                float(np.percentile(waited_ms, part)),
                f"ms beside a {beside}",
                "without",
                float(np.percentile(alone, part)),
                1,
            )
        yield result("reports", len(waited_ms), f"heard beside a {beside}", "without", len(alone), 1)


async def _all() -> tuple[list[float], list[float], list[float]]:
    world, first = fleet.a_fleet(1, clusters=CLUSTERS, cells=CELLS, models=MODELS)
    hub = Hub(world=world, plan=Plan(), routes=Routes(), epoch=1, clock=Clock(), metrics=Metrics())
    for report in first:
        hub.apply(Heard(message=report, now_s=1.0))
    hub.may_take_over = False
    problem = formulate(hub.world, target={}, desired={}, now_s=1.0).problem
    later = _later(first)
    runtime.prefer_the_loop()
    solver = Solver()
    await solver.warm()
    await _listen(hub, later, lambda since_s: since_s > 2 * CLUSTERS / PER_SECOND)
    alone = await _listen(hub, later, lambda since_s: since_s > LISTENING_S)
    loop = asyncio.get_running_loop()
    solve = loop.create_task(solver.solve(problem, ()), name="solve")
    solving = await _listen(hub, later, lambda _: solve.done())
    planner = Planner(hub, solver, _Decided())  # type: ignore[arg-type]
    plan = loop.create_task(planner.once("bench"), name="plan")
    planning = await _listen(hub, later, lambda _: plan.done())
    await solver.close()
    assert solve.result().solution.flows
    assert plan.result().startswith("placement changes"), plan.result()
    return alone, solving, planning


def _later(first: list[messages.Report]) -> Iterator[bytes]:
    """Ever newer reports, as they come over the wire."""
    payloads = [messages.encode(report) for report in first]
    for seq in itertools.count(2):
        for payload in payloads:
            yield payload.replace(b'"seq":1,', b'"seq":%d,' % seq, 1)


async def _listen(hub: Hub, later: Iterator[bytes], is_over: Callable[[float], bool]) -> list[float]:
    """Milliseconds that each report waited. Args: is_over: of the seconds since it began."""
    waited_ms, begun_s = [], time.perf_counter()
    for number in itertools.count():
        payload, due_s = next(later), begun_s + number / PER_SECOND
        if is_over(due_s - begun_s):
            break
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        hub.apply(Heard(message=messages.decode(payload), now_s=hub.clock.monotonic_s()))
        waited_ms.append(1000.0 * (time.perf_counter() - due_s))
    return waited_ms
