"""How this cluster's replicas answered, by its own gateway: read from Envoy's admin API over a window."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import structlog

from federation.aiokit.clock import Clock
from federation.wire import messages

log = structlog.get_logger("agent")
FILTER = r"^cluster\..*\|local\.(upstream_rq_total|upstream_rq_5xx|upstream_rq_time)$"
NAME = re.compile(r"^cluster\.(.+)\|local\.(upstream_rq_total|upstream_rq_5xx|upstream_rq_time)$")
TIMEOUT_S = 2.0


class GatewayStats:
    """Differences between two readings. `url` None measures nothing, as a gateway that does not answer."""

    def __init__(self, url: str | None, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._before: Mapping[str, tuple[int, int]] = {}
        self._before_s = 0.0
        self._complained = False

    async def read(self) -> tuple[messages.ServedSample, ...]:
        """One sample for each model since the last reading; none at the first, or when the gateway does not answer."""
        if self._url is None:
            return ()
        try:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            query = {"format": "json", "filter": FILTER, "histogram_buckets": "summary"}
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
        counts, p95_ms = parse(stats)
        samples = difference(self._before, counts, p95_ms, now_s - self._before_s) if self._before_s else ()
        self._before, self._before_s = counts, now_s
        return samples


def parse(stats: Any) -> tuple[dict[str, tuple[int, int]], dict[str, float]]:
    """(model -> (requests, failed) since the gateway started, model -> p95 in ms of its last interval)."""
    totals: dict[str, int] = {}
    failed: dict[str, int] = {}
    p95_ms: dict[str, float] = {}
    for one in stats:
        found = NAME.match(one.get("name", ""))
        if found is not None:
            target = totals if found[2] == "upstream_rq_total" else failed
            target[found[1]] = int(one["value"])
        histograms = one.get("histograms", {})
        quantiles = histograms.get("supported_quantiles", [])
        for row in histograms.get("computed_quantiles", []):
            found = NAME.match(row.get("name", ""))
            if found is None or 95 not in quantiles:
                continue
            interval = row["values"][quantiles.index(95)]["interval"]
            if interval is not None:
                p95_ms[found[1]] = float(interval)
    return {model: (count, failed.get(model, 0)) for model, count in totals.items()}, p95_ms


def difference(
    before: Mapping[str, tuple[int, int]],
    now: Mapping[str, tuple[int, int]],
    p95_ms: Mapping[str, float],
    seconds: float,
) -> tuple[messages.ServedSample, ...]:
    """What happened between two readings; a gateway that started anew counts from zero."""
    samples = []
    for model, (total, failed) in sorted(now.items()):
        old_total, old_failed = before.get(model, (0, 0))
        if total < old_total:
            old_total, old_failed = 0, 0
        asked, missed = total - old_total, failed - old_failed
        samples.append(
            messages.ServedSample(
                model=model,
                requests_per_second=asked / seconds if seconds > 0 else 0.0,
                error_share=min(1.0, missed / asked) if asked else 0.0,
                latency_ms_p95=p95_ms.get(model) if asked else None,
            )
        )
    return tuple(samples)
