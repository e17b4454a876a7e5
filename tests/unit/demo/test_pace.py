"""Simulated time waits for work, and for nothing else."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor

import pytest

from federation.demo.pace import DemoClock, SimulatedTime

SPEED = 100_000.0
WORK_S = 0.2


def lived(story: Callable[[DemoClock], Awaitable[None]], *, speed: float = SPEED) -> float:
    """Simulated seconds that a story took."""
    simulated = SimulatedTime(speed=speed)

    async def told() -> float:
        clock = DemoClock(simulated)
        begun_s = clock.monotonic_s()
        await story(clock)
        return clock.monotonic_s() - begun_s

    with asyncio.Runner(loop_factory=simulated.loop) as runner:
        return runner.run(told())


def work(duration_s: float = WORK_S) -> None:
    """Take a processor for so long."""
    until_s = time.process_time() + duration_s
    while time.process_time() < until_s:
        pass


def test_what_takes_two_seconds_of_work_takes_two_simulated_seconds() -> None:
    """A busy machine would show another day than an idle one, and reactions that no user of the product would see."""

    async def story(clock: DemoClock) -> None:
        with clock.working():
            await asyncio.to_thread(work)

    assert lived(story) == pytest.approx(WORK_S, abs=0.5 * WORK_S)


@pytest.mark.skipif(sys.platform != "linux", reason="the processor time of another process is Linux's to tell")
def test_the_work_of_a_solver_counts_and_its_waiting_for_a_core_does_not() -> None:
    """The demo would judge the controller by how busy the machine is."""

    async def story(clock: DemoClock) -> None:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(pool, work, 0.0)
            begun_s = clock.monotonic_s()
            with clock.working():
                await loop.run_in_executor(pool, work)
                await loop.run_in_executor(pool, time.sleep, WORK_S)
            took.append(clock.monotonic_s() - begun_s)

    took: list[float] = []
    lived(story)
    assert took[0] == pytest.approx(WORK_S, abs=0.5 * WORK_S)


def test_waiting_for_the_machine_takes_no_simulated_time_while_work_is_under_way() -> None:
    """An acknowledgement that is on its way over a socket would take simulated minutes."""

    async def story(clock: DemoClock) -> None:
        with clock.working():
            await asyncio.sleep(WORK_S)

    assert lived(story) < 0.5 * WORK_S


def test_an_hour_passes_quickly_when_there_is_nothing_to_do() -> None:
    """The demo's day would take a day."""

    async def story(clock: DemoClock) -> None:
        await clock.sleep(3600.0)

    begun_s = time.perf_counter()
    assert lived(story) == pytest.approx(3600.0, abs=1.0)
    assert time.perf_counter() - begun_s < 10.0


def test_what_is_due_happens_in_order_and_at_its_time() -> None:
    """The demo would show effects before their causes."""

    async def story(clock: DemoClock) -> None:
        begun_s = clock.monotonic_s()

        def note(name: str) -> None:
            happened.append((name, round(clock.monotonic_s() - begun_s)))

        clock.call_later(20.0, lambda: note("second"))
        clock.call_later(10.0, lambda: note("first"))
        clock.call_later(15.0, lambda: note("never")).cancel()
        with pytest.raises(TimeoutError):
            async with clock.timeout(30.0):
                await asyncio.Event().wait()
        note("last")

    happened: list[tuple[str, int]] = []
    lived(story)
    assert happened == [("first", 10), ("second", 20), ("last", 30)]


def test_a_watcher_gets_the_speed_that_was_promised() -> None:
    """At a terminal the day would be over before anybody has seen it."""

    async def story(clock: DemoClock) -> None:
        clock.simulated.promise()
        for _ in range(100):
            await clock.sleep(5.0)

    begun_s = time.perf_counter()
    lived(story, speed=1_000.0)
    assert time.perf_counter() - begun_s >= 0.4
