"""What users see of a drain, of a loss and of a controller that is away, through real gateways.

Beside it simpler ways on the same input.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from tests.bench.demo_size import result
from tests.testbed import scenarios

AWAY_S = 300.0


def traffic() -> Iterator[dict[str, object]]:
    """A drain beside names that are switched at once; a loss beside gateways alone and beside the next cycle.

    Then a controller killed for five minutes in mid-shift, while a replica somewhere always fails; beside the aims.
    """
    drained = _run(lambda directory: scenarios.drain(directory))
    names = "DNS switched at once, 30 s to live"
    yield result(
        "drain: failed of 10 000",
        _of(drained.failed, drained.requests),
        "requests",
        names,
        _of(drained.dns_failed, drained.dns_requests),
    )
    yield result(
        "drain: largest distance from the planned share",
        max(one.off() for one in drained.steps),
        "share",
        "the aim",
        0.02,
    )
    ours = _run(lambda directory: scenarios.lose(directory))
    alone = _run(lambda directory: scenarios.lose(directory, controller=False))
    cycle = _run(lambda directory: scenarios.lose_and_wait(directory))
    for name, other in (("gateways alone", alone), ("the next cycle of 20 s", cycle)):
        yield result("loss: last request sent there", ours.last_sent_s, "s", name, other.last_sent_s)
        yield result("loss: requests sent there", ours.sent_there, "requests", name, other.sent_there)
        yield result(
            "loss: failed of a minute's",
            100 * ours.failed / ours.per_minute,
            "%",
            name,
            100 * other.failed / other.per_minute,
        )
    if ours.detected_s is not None:
        yield result("loss: new routes committed", ours.detected_s, "s", "gateways alone", None)
    away = _run(lambda directory: scenarios.away(directory, away_s=AWAY_S))
    yield result(f"controller away {AWAY_S:g} s: failed of {away.requests}", away.failed, "requests", "the aim", 0)
    yield result("controller away: replicas killed meanwhile", away.killed, "replicas", "the aim", 1)
    yield result("controller back: largest change of a share at once", away.jump, "share", "one step", away.step)


def _of(failed: int, requests: int) -> float:
    return 10_000 * failed / requests


def _run(make: Any) -> Any:
    with tempfile.TemporaryDirectory() as directory:
        coroutine: Coroutine[Any, Any, Any] = make(Path(directory))
        return asyncio.run(coroutine)
