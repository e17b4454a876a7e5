"""Plans of other tools, as the demo compares with: for every bench that has rivals."""

from __future__ import annotations

from federation.demo.rivals import (
    BASELINES,
    Baseline,
    Planner,
    Replicas,
    greedy,
    karmada_dynamic,
    karmada_overflow,
    skyserve,
)

__all__ = [
    "BASELINES",
    "Baseline",
    "Planner",
    "Replicas",
    "greedy",
    "karmada_dynamic",
    "karmada_overflow",
    "skyserve",
]
