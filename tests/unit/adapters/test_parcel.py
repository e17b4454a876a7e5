"""What is sent to a solver in pieces comes out as it went in."""

from __future__ import annotations

import asyncio

from federation.adapters import parcel
from placement import engine
from tests.bench.worlds import a_large_world
from tests.properties.worlds import a_world


def test_a_problem_and_its_solution_come_out_as_they_went_in() -> None:
    """The solver would answer another question than was asked."""
    problem = a_world(3)
    assert parcel.unpack(parcel.pack(problem)) == problem
    solution = engine.solve(problem)
    assert parcel.unpack(parcel.pack(solution)) == solution


async def test_a_long_one_lets_others_have_their_turn() -> None:
    """Reports would wait while a large world is packed."""
    problem = a_large_world(1, clusters=10, cells=5_000, models=2)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.get_running_loop().create_task(count())
    made, word = await parcel.unpack_gently(await parcel.pack_gently(problem, "and this"))
    counting.cancel()
    assert word == "and this"
    assert turns >= 20
    assert made.demands == problem.demands and made.pools == problem.pools
    assert (made.paths.rtt_ms == problem.paths.rtt_ms).all()  # type: ignore[union-attr]
