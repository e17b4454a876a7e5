"""What a request costs by its round trip, over arrays: the same as `costs.served_usd_per_rps` less egress.

`way_usd` and `request_usd` are compiled into loops of other files; `jit.SHARED` names this file for that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from placement import costs
from placement.jit import compiled
from placement.problem import Model

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


def near_usd(models: Sequence[Model]) -> Floats:
    """[M, 1 + 2B] what a millisecond of each model's round trips costs, as `Arrays.near_usd` has it."""
    made = np.zeros((len(models), 1 + 2 * max((len(model.bends) for model in models), default=0)))
    for row, model in zip(made, models, strict=True):
        row[0] = costs.THOUSANDS_PER_HOUR * model.latency_usd_per_1000_per_ms
        for at, bend in enumerate(model.bends):
            row[1 + 2 * at] = bend.latency_ms - model.service_latency_ms
            row[2 + 2 * at] = costs.THOUSANDS_PER_HOUR * bend.more_usd_per_1000_per_ms
    return made


@compiled
def way_usd(rtt_ms: float, near_usd: Floats) -> float:
    """USD per hour of the way of one request per second. Args: near_usd: [1 + 2B] of its model."""
    usd = near_usd[0] * rtt_ms
    for at in range(1, len(near_usd), 2):
        if rtt_ms > near_usd[at]:
            usd += near_usd[at + 1] * (rtt_ms - near_usd[at])
    return float(usd)


@compiled
def request_usd(rtt_ms: float, service_ms: float, objective_ms: float, late_usd: float, near_usd: Floats) -> float:
    """USD per hour of one request per second, egress aside. Args: near_usd: [1 + 2B] of its model."""
    return way_usd(rtt_ms, near_usd) + (late_usd if rtt_ms + service_ms > objective_ms else 0.0)


def ways_usd(rtt_ms: Floats | Singles, near_usd: Floats) -> Floats:
    """[...] the same of many ways. Args: near_usd: [..., 1 + 2B] of the model of each."""
    usd: Floats = near_usd[..., 0] * rtt_ms
    for at in range(1, near_usd.shape[-1], 2):
        usd += near_usd[..., at + 1] * np.maximum(0.0, rtt_ms - near_usd[..., at])
    return usd
