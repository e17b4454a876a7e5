"""The nearest eligible cluster of each cell: the reference for how far requests really go."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from placement.index import Index
from placement.problem import Cell, Model, RttMatrix


def nearest_ms(index: Index, model: Model) -> dict[str, float]:
    """Cell -> round trip in ms to the nearest cluster that is eligible to serve its users of `model`, full or not.

    Eligible: reachable, open for load, with an accelerator that fits and devices for a replica or a replica that runs,
    and permitted by policy. Cells without an eligible cluster or without demand are left out.
    """
    able = {option.pool.cluster for option in index.options(model)}
    able = {name for name in able if index.clusters[name].reachable}
    alike: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for demand in index.demands[model.name]:
        cell = index.cells[demand.cell]
        alike[cell.country, cell.continent].append(cell)
    found: dict[str, float] = {}
    for cells in alike.values():
        clusters = sorted(able & index.allowed(model, cells[0]))
        if isinstance(index.rtt_ms, RttMatrix):
            part = index.rtt_ms.part([one.name for one in cells], clusters)
            least = np.where(np.isnan(part), np.inf, part).min(axis=1, initial=np.inf).tolist()
        else:
            rtt_ms = index.rtt_ms
            least = [min((rtt_ms.get((one.name, name), np.inf) for name in clusters), default=np.inf) for one in cells]
        found |= {one.name: ms for one, ms in zip(cells, least, strict=True) if ms < np.inf}
    return found
