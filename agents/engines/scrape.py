"""Asks ready replicas for their metrics over HTTP, a few at a time, and sums them by model."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping

import aiohttp
import structlog

from agents.engines import metrics
from agents.engines.metrics import Reading
from agents.manifests import presets
from federation.aiokit.clock import Clock
from federation.wire import messages
from federation.wire.conditions import condition

log = structlog.get_logger("agent")
TIMEOUT_S = 2.0
AT_ONCE = 8
MOST_BYTES = 4 * 1024 * 1024
WINDOW_S = 60.0
"""Rates are of so long: engines count in bursts."""


class Engines:
    """The engines of one cluster's replicas. `samples` and `conditions` are of the newest reading."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._before: dict[messages.ReplicaEndpoint, deque[Reading]] = {}
        self.samples: tuple[messages.EngineSample, ...] = ()
        self.conditions: tuple[messages.Condition, ...] = ()

    async def read(
        self, endpoints: Iterable[messages.ReplicaEndpoint], desired: messages.Desired | None
    ) -> tuple[messages.EngineSample, ...]:
        """One sample for each model of which a replica answered.

        Args: desired: what was ordered: a model's runtime says where its metrics are.
        """
        workloads = {one.model: one for one in desired.workloads} if desired is not None else {}
        known = [(one, workloads[one.model]) for one in endpoints if one.model in workloads]
        asked = [(one, presets.of(workload)) for one, workload in known if presets.of(workload).metrics_path]
        if not asked:
            self._before, self.samples, self.conditions = {}, (), ()
            return ()
        limit = asyncio.Semaphore(AT_ONCE)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            readings = await asyncio.gather(*(self._read(client, limit, one, preset) for one, preset in asked))
        found: dict[messages.ReplicaEndpoint, Reading] = {}
        causes: dict[str, str] = {}
        for (endpoint, _), reading in zip(asked, readings, strict=True):
            if isinstance(reading, Reading):
                found[endpoint] = reading
            else:
                causes.setdefault(endpoint.model, reading)
        self.samples = self._sums(found)
        self.conditions = _told(causes, {one.model for one in self.samples})
        return self.samples

    async def _read(
        self,
        client: aiohttp.ClientSession,
        limit: asyncio.Semaphore,
        endpoint: messages.ReplicaEndpoint,
        preset: presets.Preset,
    ) -> Reading | str:
        """What it says, or why that is not known."""
        host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
        url = f"http://{host}:{preset.metrics_port or endpoint.port}{preset.metrics_path}"
        try:
            async with limit, client.get(url, allow_redirects=False) as answer:
                if answer.status != 200:
                    return f"{url} answers {answer.status}"
                body = await answer.content.read(MOST_BYTES)
                reading = metrics.parse(body.decode("utf-8", "replace"), self._clock.monotonic_s())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return f"{url}: {error or 'no answer'}"
        return reading if reading.values else f"{url} has no metrics of an engine that is known"

    def _sums(self, found: Mapping[messages.ReplicaEndpoint, Reading]) -> tuple[messages.EngineSample, ...]:
        rows: dict[str, list[dict[str, float]]] = defaultdict(list)
        kept: dict[messages.ReplicaEndpoint, deque[Reading]] = {}
        for endpoint, now in found.items():
            before = self._before.get(endpoint, deque())
            if before and any(
                now.values.get(name, 0.0) < before[-1].values.get(name, 0.0) for name in metrics.COUNTERS
            ):
                before = deque()  # it started anew
            while len(before) > 1 and now.at_s - before[1].at_s >= WINDOW_S:
                before.popleft()
            gauges = {name: value for name, value in now.values.items() if name not in metrics.COUNTERS}
            rows[endpoint.model].append(gauges | metrics.rates(before[0] if before else None, now))
            before.append(now)
            kept[endpoint] = before
        self._before = kept
        return tuple(_sample(model, of_model) for model, of_model in sorted(rows.items()))


def _sample(model: str, rows: list[dict[str, float]]) -> messages.EngineSample:
    whole = metrics.summed(rows)
    return messages.EngineSample(
        model=model,
        replicas=len(rows),
        requests_per_second=whole.get(metrics.REQUESTS),
        input_tokens_per_second=whole.get(metrics.INPUT_TOKENS),
        output_tokens_per_second=whole.get(metrics.OUTPUT_TOKENS),
        running=whole.get(metrics.RUNNING),
        waiting=whole.get(metrics.WAITING),
        kv_cache_used=whole.get(metrics.KV_CACHE),
    )


def _told(causes: Mapping[str, str], answered: set[str]) -> tuple[messages.Condition, ...]:
    """Models of which no replica could be read: how busy they are is not known."""
    return tuple(
        condition("EngineUnread", f"model/{model}", f"how busy its replicas are is not known: {cause}"[:300])
        for model, cause in sorted(causes.items())
        if model not in answered
    )
