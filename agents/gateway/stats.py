"""How this cluster's replicas answered, by its own gateway: read from Envoy's admin API over a window.

Envoy counts by the zones of who asks and who answers. A gateway's zone is its cluster (`--service-zone`), as is that
of every endpoint: what a zone sent itself is what replicas here answered, whoever's requests they were.

Users' requests are told from those that other gateways sent on: these go to `MODEL|local`, while each cell of users has
an Envoy cluster (`MODEL|cell|CELL`, `MODEL|any` and `MODEL|others` for those that name none, or one that is not known).
What is refused, and what a cell without a cluster of its own asks, is counted by `refused|MODEL|CELL` and
`sent|MODEL|CELL` (`federation/traffic/xds.py`).
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import structlog

from federation.aiokit.clock import Clock
from federation.wire import messages

log = structlog.get_logger("agent")
FILTER = r"^cluster\.[^|]+\|.*\.upstream_rq_(completed|5xx|time)$|^(refused|sent)\|.*\.http_local_rate_limit\.enabled$"
NAME = re.compile(r"^cluster\.([^|]+)\|.*\.zone\.([^.]+)\.\2\.upstream_rq_(completed|5xx|time)$")
USERS = re.compile(r"^cluster\.([^|]+)\|(?:any|others|cell\|(.+))\.upstream_rq_completed$")
PART = re.compile(r"\.(zone\..*|external|internal|canary)$")
"""What Envoy counts beside, of some of a cluster's requests."""
BY_NAME = re.compile(r"^(refused|sent)\|([^|]+)\|(.*)\.http_local_rate_limit\.enabled$")
TIMEOUT_S = 2.0
WINDOW_S = 60.0
"""Users are counted over so long: a plan is no answer to the noise of seconds."""
LEAST_ANSWERS = 20
"""Of fewer answers a 95th percentile is no more than the slowest one."""

Bin = tuple[float, float]
"""(least ms, most ms) of answers that Envoy counts together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the gateway counted for one model since it started."""

    requests: int = 0
    failed: int = 0
    answers: Mapping[Bin, int] = field(default_factory=dict)


class GatewayStats:
    """Differences between two readings of one gateway."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._before: Mapping[str, Served] = {}
        self._before_s = 0.0
        self._speed: Mapping[str, Speed] = {}
        self._complained = False
        self.counted: tuple[messages.CountedSample, ...] = ()
        """What users asked of it over the last `WINDOW_S`; nothing while it does not answer."""
        self._users: deque[tuple[float, Mapping[tuple[str, str], int]]] = deque()

    async def read(self) -> tuple[messages.ServedSample, ...]:
        """One sample for each model since the last reading; none at the first, or when the gateway does not answer.

        Sets `counted`.
        """
        self.counted = ()
        try:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            query = {"format": "json", "filter": FILTER, "histogram_buckets": "detailed"}
            async with (
                aiohttp.ClientSession(timeout=timeout) as client,
                client.get(f"{self._url}/stats", params=query) as answer,
            ):
                stats = (await answer.json())["stats"]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
            if not self._complained:
                log.warning("the gateway's statistics cannot be read", cause=str(error))
            self._complained = True
            return ()
        self._complained = False
        now_s = self._clock.monotonic_s()
        now = parse(stats)
        self._speed = {
            model: self._speed.get(model, Speed(since=served.answers)).later(served.answers)
            for model, served in now.items()
        }
        samples = difference(self._before, now, self._speed, now_s - self._before_s) if self._before_s else ()
        self._before, self._before_s = now, now_s
        self._count(users(stats), now_s)
        return samples

    def _count(self, seen: Mapping[tuple[str, str], int], now_s: float) -> None:
        if self._users and any(seen.get(key, 0) < count for key, count in self._users[-1][1].items()):
            self._users.clear()  # it started anew, or has other cells than before
        self._users.append((now_s, seen))
        while len(self._users) > 2 and now_s - self._users[1][0] >= WINDOW_S:
            self._users.popleft()
        since_s, before = self._users[0]
        if now_s > since_s:
            self.counted = tuple(
                messages.CountedSample(
                    model=model,
                    cell=cell,
                    requests_per_second=max(0, count - before.get((model, cell), 0)) / (now_s - since_s),
                )
                for (model, cell), count in sorted(seen.items())
            )


class Gateways:
    """All gateways of one cluster: what they counted together. `counted` is as `GatewayStats` has it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_url: dict[str, GatewayStats] = {}
        self.counted: tuple[messages.CountedSample, ...] = ()

    async def read(self, urls: Iterable[str]) -> tuple[messages.ServedSample, ...]:
        """One sample for each model of which a gateway has one. Sets `counted`."""
        self._by_url = {url: self._by_url.get(url) or GatewayStats(url, self._clock) for url in urls}
        samples = await asyncio.gather(*(one.read() for one in self._by_url.values()))
        counted: dict[tuple[str, str], float] = defaultdict(float)
        for one in self._by_url.values():
            for row in one.counted:
                counted[row.model, row.cell] += row.requests_per_second
        self.counted = tuple(
            messages.CountedSample(model=model, cell=cell, requests_per_second=rps)
            for (model, cell), rps in sorted(counted.items())
        )
        return together(samples)


def together(samples: Iterable[tuple[messages.ServedSample, ...]]) -> tuple[messages.ServedSample, ...]:
    """Of several gateways: requests summed, errors by their requests, and of the percentiles the slowest."""
    by_model: dict[str, list[messages.ServedSample]] = defaultdict(list)
    for one in samples:
        for sample in one:
            by_model[sample.model].append(sample)
    found = []
    for model, rows in sorted(by_model.items()):
        rps = sum(row.requests_per_second for row in rows)
        failed = sum(row.requests_per_second * row.error_share for row in rows)
        known_ms = [row.latency_ms_p95 for row in rows if row.latency_ms_p95 is not None]
        found.append(
            messages.ServedSample(
                model=model,
                requests_per_second=rps,
                error_share=min(1.0, failed / rps) if rps else 0.0,
                latency_ms_p95=max(known_ms, default=None),
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast a model's newest answers came: `p95_ms` is of the last `LEAST_ANSWERS` or more, None before them.

    `since` is what had been counted when the window that goes on now began.
    """

    since: Mapping[Bin, int]
    p95_ms: float | None = None

    def later(self, answers: Mapping[Bin, int]) -> Speed:
        """With what is counted now; a gateway that started anew counts from zero."""
        new = Counter({key: count - self.since.get(key, 0) for key, count in answers.items()})
        if any(count < 0 for count in new.values()) or self.since.keys() - answers.keys():
            return Speed(since=answers)
        whole = new.total()
        if whole < LEAST_ANSWERS:
            return self
        seen = 0
        for low_ms, high_ms in sorted(new):
            seen += new[low_ms, high_ms]
            if seen >= 0.95 * whole:
                break
        return Speed(since=answers, p95_ms=high_ms)


def parse(stats: Any) -> dict[str, Served]:
    """Model -> what Envoy's statistics, with detailed histograms, say of it."""
    totals: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    answers: dict[str, Counter[Bin]] = defaultdict(Counter)
    for one in stats:
        found = NAME.match(one.get("name", ""))
        if found is not None:
            (totals if found[3] == "completed" else failed)[found[1]] += int(one["value"])
        for row in one.get("histograms", {}).get("details", []):
            found = NAME.match(row.get("name", ""))
            if found is None:
                continue
            for each in row["totals"]:
                low_ms = float(each["lower_bound"])
                answers[found[1]][low_ms, low_ms + float(each["width"])] += int(each["count"])
    return {
        model: Served(requests=count, failed=failed[model], answers=dict(answers[model]))
        for model, count in totals.items()
    }


def users(stats: Any) -> dict[tuple[str, str], int]:
    """(model, cell) -> users' requests since the gateway started; the cell is empty where they name none."""
    found: Counter[tuple[str, str]] = Counter()
    for one in stats:
        name = one.get("name", "")
        if (by_cluster := USERS.match(name)) is not None:
            model, cell = by_cluster[1], by_cluster[2] or ""
            if PART.search(cell) is None:
                found[model, cell] += int(one["value"])
        elif (by_name := BY_NAME.match(name)) is not None:
            kind, model, cell = by_name.groups()
            found[model, cell] += int(one["value"])
            if kind == "sent":
                found[model, ""] -= int(one["value"])  # it went to a cluster that counts it as naming none
    return {key: max(0, count) for key, count in found.items()}


def difference(
    before: Mapping[str, Served], now: Mapping[str, Served], speed: Mapping[str, Speed], seconds: float
) -> tuple[messages.ServedSample, ...]:
    """What happened between two readings; a gateway that started anew counts from zero."""
    samples = []
    for model, served in sorted(now.items()):
        old = before.get(model, Served())
        if served.requests < old.requests:
            old = Served()
        asked, missed = served.requests - old.requests, served.failed - old.failed
        samples.append(
            messages.ServedSample(
                model=model,
                requests_per_second=asked / seconds if seconds > 0 else 0.0,
                error_share=min(1.0, missed / asked) if asked else 0.0,
                latency_ms_p95=speed[model].p95_ms if asked else None,
            )
        )
    return tuple(samples)
