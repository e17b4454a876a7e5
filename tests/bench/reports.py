"""What a solve costs those who report meanwhile: 500 reports a second, heard beside the largest plan and without it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import numpy as np

from federation.adapters.solver import Solver
from federation.demo import catalogue
from federation.demo.physics import Physics
from federation.state.reduce import BrokerFound, DocumentsAccepted, Heard, reduce
from federation.state.world import Timing, World
from federation.wire import messages
from placement import model as words
from tests.bench.demo_size import EVENING, a_report, result
from tests.bench.worlds import a_large_world

PER_SECOND = 500
LISTENING_S = 10.0
CLUSTERS, CELLS, MODELS = 1_000, 10_000, 20


def reports() -> Iterator[dict[str, object]]:
    """Milliseconds from when a report is due to when the world has it: the 99th of 100 and the worst."""
    physics = Physics(catalogue.load())
    payloads = [messages.encode(a_report(physics, name, EVENING)) for name in sorted(physics.clusters)]
    problem = a_large_world(1, clusters=CLUSTERS, cells=CELLS, models=MODELS)
    alone, beside = asyncio.run(_both(physics, payloads, problem))
    for name, part in (("p99", 99.0), ("worst", 100.0)):
        yield result(
            f"report wait {name}",
            float(np.percentile(beside, part)),
            "ms beside a solve",
            "without",
            float(np.percentile(alone, part)),
            1,
        )


async def _both(physics: Physics, payloads: list[bytes], problem: words.Problem) -> tuple[list[float], list[float]]:
    solver = Solver()
    await solver.warm()
    alone = await _listen(physics, payloads)
    solving = asyncio.get_running_loop().create_task(solver.solve(problem, ()), name="solve")
    beside = await _listen(physics, payloads)
    assert not solving.done(), "the solve ended before the reports did"
    solving.cancel()
    await asyncio.gather(solving, return_exceptions=True)
    await solver.close()
    return alone, beside


async def _listen(physics: Physics, payloads: list[bytes]) -> list[float]:
    """Milliseconds that each report waited."""
    world = reduce(World(timing=Timing()), DocumentsAccepted(documents=physics.catalogue.documents, now_s=0.0)).world
    world = reduce(world, BrokerFound(now_s=0.0)).world
    waited_ms, begun_s = [], time.perf_counter()
    for number in range(int(PER_SECOND * LISTENING_S)):
        due_s = begun_s + number / PER_SECOND
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        message = messages.decode(payloads[number % len(payloads)])
        world = reduce(world, Heard(message=message, now_s=1.0 + number / PER_SECOND)).world
        waited_ms.append(1000.0 * (time.perf_counter() - due_s))
    return waited_ms
