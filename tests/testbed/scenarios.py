"""What is measured on the lab: a drain, the loss of a region, a controller that is away. For tests and benches."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.testbed.lab import DOORS, Direct, Lab, Load
from tests.testbed.small_world import PLACES

RPS = {"Berlin": 60.0, "Lyon": 30.0, "New York": 40.0}
SETTLES_S = 0.5
"""After new shares are committed gateways have them; requests under way were sent by the old ones."""


def load(lab: Lab) -> Load:
    """The users of the three regions, each at its own gateway."""
    return Load({cell: lab.gateway_ports[name] for name, cell in DOORS.items()}, lab.rps)


@dataclass(slots=True)
class StepSeen:
    """One set of shares in force: what the plan wanted and what users got, while it lasted."""

    cell: str
    planned: dict[str, float]
    got: dict[str, float]
    requests: int

    def off(self) -> float:
        """The largest difference between plan and fact."""
        names = {*self.planned, *self.got}
        return max(abs(self.planned.get(name, 0.0) - self.got.get(name, 0.0)) for name in names)


@dataclass(slots=True)
class Drained:
    """What a drain was like for users, and for the same users behind plain DNS."""

    requests: int
    failed: int
    steps: list[StepSeen]
    took_s: float
    dns_requests: int
    dns_failed: int
    failures: list[object] = field(default_factory=list)


async def drain(directory: Path, *, cluster: str = "fra", ttl_s: float = 30.0) -> Drained:
    """Empty a region at the policy's pace, under load, beside DNS-style switching at once with a time to live."""
    lab = Lab(directory, rps=RPS)
    async with lab.running(), load(lab) as users:
        target = {cell: _main(lab, cell) for cell in RPS}
        dns = Direct(lab.replicas, {cell: rps / 2 for cell, rps in RPS.items()}, target.__getitem__, ttl_s=ttl_s)
        async with dns:
            await asyncio.sleep(2.0)
            begun_s = time.monotonic()
            await lab.post(f"/v1/clusters/{cluster}/drain", b'{"reason": "leaving"}')
            steps: list[StepSeen] = []
            seen = {cell: (lab.plan_of(cell), time.monotonic()) for cell in RPS}
            while lab.replicas.running(cluster) or not lab.is_settled():
                assert time.monotonic() - begun_s < 60, [event.message for event in list(lab.hub.events)[-8:]]
                for cell in RPS:
                    # DNS is switched when the plan has decided where to; the plan itself goes there by steps.
                    target[cell] = _main(lab, cell)
                    now = lab.plan_of(cell)
                    if now != seen[cell][0]:
                        steps += _seen_step(users, cell, *seen[cell])
                        seen[cell] = (now, time.monotonic())
                await asyncio.sleep(0.02)
            took_s = time.monotonic() - begun_s
            await asyncio.sleep(10.0)
            for cell in RPS:
                steps += _seen_step(users, cell, *seen[cell])
        return Drained(
            requests=len(users.sent),
            failed=len(users.failed()),
            steps=steps,
            took_s=took_s,
            dns_requests=len(dns.sent),
            dns_failed=sum(one.status != 200 for one in dns.sent),
            failures=[(round(one.at_s - begun_s, 2), one) for one in users.failed()],
        )


def _main(lab: Lab, cell: str) -> str:
    """The cluster that is to serve most of a cell."""
    (route,) = [one for one in lab.hub.routes.routes if one.cell == cell]
    return str(max(route.target, key=lambda share: (share.share, share.cluster)).cluster)


def _seen_step(users: Load, cell: str, planned: dict[str, float], since_s: float) -> list[StepSeen]:
    from_s, to_s = since_s + SETTLES_S, time.monotonic() - 0.05
    asked = sum(one.cell == cell and from_s <= one.at_s < to_s for one in users.sent)
    if asked < 50:
        return []  # too few to say anything
    return [StepSeen(cell=cell, planned=planned, got=users.shares(cell, from_s, to_s), requests=asked)]


@dataclass(slots=True)
class Lost:
    """The loss of a region as users saw it. `last_sent_s`: from the loss to the last request sent there."""

    last_sent_s: float
    sent_there: int
    failed: int
    per_minute: float
    detected_s: float | None = None
    """From the loss to the commit of routes without it; None where nobody decides."""


async def lose(directory: Path, *, cluster: str = "fra", controller: bool = True, watch_s: float = 8.0) -> Lost:
    """Replicas and agent of a region gone at once, with our fast routing or with gateways left alone."""
    lab = Lab(directory, rps=RPS, plan_period_s=30.0, spare=True)
    async with lab.running(), load(lab) as users:
        await asyncio.sleep(2.0)
        if not controller:
            await lab.stop_controller()
            await asyncio.sleep(0.5)
        at_s = await lab.lose(cluster)
        detected_s = None
        while time.monotonic() < at_s + watch_s:
            if controller and detected_s is None and not any(cluster in lab.plan_of(cell) for cell in RPS):
                detected_s = time.monotonic() - at_s
            await asyncio.sleep(0.005)
        return _lost(lab, cluster, at_s, len(users.failed(at_s - 1.0)), detected_s)


def _lost(lab: Lab, cluster: str, at_s: float, failed: int, detected_s: float | None) -> Lost:
    there = [when_s for name, when_s in lab.replicas.counted if name == cluster and when_s > at_s]
    return Lost(
        last_sent_s=max(there, default=at_s) - at_s,
        sent_there=len(there),
        failed=failed,
        per_minute=60 * sum(RPS.values()),
        detected_s=detected_s,
    )


async def lose_and_wait(directory: Path, *, cluster: str = "fra", period_s: float = 20.0) -> Lost:
    """The same users sent by shares that change only with the next placement cycle, every `period_s`."""
    lab = Lab(directory, rps=RPS, plan_period_s=30.0, spare=True)
    async with lab.running():
        target = {cell: _main(lab, cell) for cell in RPS}
        async with Direct(lab.replicas, RPS, target.__getitem__, ttl_s=0.01) as users:
            await asyncio.sleep(2.0)
            at_s = await lab.lose(cluster)
            await asyncio.sleep(period_s / 2)  # on average the next cycle is half a period away
            target |= {cell: _main(lab, cell) for cell in RPS}
            await asyncio.sleep(2.0)
            failed = sum(one.status != 200 and one.at_s >= at_s - 1.0 for one in users.sent)
            return _lost(lab, cluster, at_s, failed, period_s / 2)


@dataclass(slots=True)
class Away:
    """A controller that is gone in the middle of a shift. `jump`: the largest change of a share on its return."""

    requests: int
    failed: int
    away_s: float
    jump: float
    step: float
    killed: int = 0
    failures: list[object] = field(default_factory=list)
    shares: list[dict[str, float]] = field(default_factory=list)


async def away(directory: Path, *, away_s: float, tell: Callable[[str], None] = lambda text: None) -> Away:
    """Kill the controller (and its broker) in mid-shift, let replicas fail, and bring it back."""
    lab = Lab(directory, rps=RPS, traffic={"stepPercent": 20, "stepSeconds": 3})
    async with lab.running(), load(lab) as users:
        await asyncio.sleep(1.0)
        await lab.post("/v1/clusters/fra/drain", b'{"reason": "leaving"}')
        await lab.until(lambda: 0.1 < lab.plan_of("Berlin").get("mad", 0.0) < 0.9, "middle of the shift")
        before = lab.plan_of("Berlin")
        await lab.stop_controller()
        tell(f"the controller is gone with Berlin at {before}")
        gone_s = time.monotonic()
        killed = 0
        while time.monotonic() < gone_s + away_s:
            for name in PLACES:
                running = lab.replicas.running(name)
                if len(running) > 1:
                    await asyncio.to_thread(lab.replicas.kill, name, running[-1])
                    killed += 1
                    await asyncio.sleep(min(10.0, away_s / 4))
                    await asyncio.to_thread(lab.replicas.start, name, running[-1])
            await asyncio.sleep(0.2)
        await lab.start_controller()
        seen = [before]
        back_s = time.monotonic()
        while time.monotonic() < back_s + 70.0 and "fra" in seen[-1]:
            if (now := lab.plan_of("Berlin")) != seen[-1]:
                seen.append(now)
            await asyncio.sleep(0.02)
        jump = max(
            (abs(new.get(c, 0.0) - old.get(c, 0.0)) for old, new in itertools.pairwise(seen) for c in PLACES),
            default=0.0,
        )
        await asyncio.sleep(1.0)
        return Away(
            requests=len(users.sent),
            failed=len(users.failed()),
            away_s=away_s,
            jump=jump,
            step=0.2,
            killed=killed,
            failures=[(round(one.at_s - gone_s, 2), one) for one in users.failed()],
            shares=seen,
        )


@dataclass(slots=True)
class Degraded:
    """A shift into a cluster whose replicas begin to fail. `shares`: the receiver's share of Berlin, as it changed."""

    shares: list[float]
    said: list[str]
    back_s: float
    """From the first failure to the commit that takes the receiver's requests back."""
    failed_of_receiver: int


async def degrade(directory: Path, *, home: bool = False) -> Degraded:
    """Move Berlin's users to a dearer cluster by draining theirs, and let the receiver fail half of what it gets.

    `home`: then let them return, and have the cluster of their own front door be the receiver that fails.
    """
    # It is judged by its errors alone: how fast this machine answers is not what is tried.
    rules = {"stepPercent": 20, "stepSeconds": 3, "retrySeconds": 60, "maxLatencyMs": 60_000}
    lab = Lab(directory, rps=RPS, traffic=rules)
    receiver = "fra" if home else "mad"
    async with lab.running(), load(lab) as users:
        await asyncio.sleep(1.0)
        await lab.post("/v1/clusters/fra/drain", b'{"reason": "leaving"}')
        if home:
            await lab.until(lambda: lab.is_settled() and "fra" not in lab.plan_of("Berlin"), "end of the drain")
            await lab.post("/v1/clusters/fra/uncordon")
        await lab.until(lambda: lab.plan_of("Berlin").get(receiver, 0.0) >= 0.35, "middle of the shift")
        lab.replicas.error_share[receiver] = 0.5
        failing_s = time.monotonic()
        shares = [lab.plan_of("Berlin").get(receiver, 0.0)]
        back_s = None
        while time.monotonic() < failing_s + 20.0:
            now = lab.plan_of("Berlin").get(receiver, 0.0)
            if now != shares[-1]:
                shares.append(now)
            if back_s is None and now < shares[0] - 0.1:
                back_s = time.monotonic() - failing_s
            await asyncio.sleep(0.02)
        said = [event.reason for event in lab.hub.events if event.reason.startswith("Shift")]
        failed = [one for one in users.failed(failing_s) if one.status == 500]
        return Degraded(shares=shares, said=said, back_s=back_s or -1.0, failed_of_receiver=len(failed))
