"""The nearest cluster that could serve users: what any way that they really take is measured against."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from placement.index import Index
from placement.problem import Cell, Model, RttMatrix


def nearest_ms(index: Index, model: Model) -> dict[str, float]:
    """Cell -> round trip to the nearest cluster that could serve its users of `model`, full or not.

    That is one that is reachable and takes load, has an accelerator that the model runs on and devices for a replica or
    one that runs, and that policy lets serve these users. Cells that none could serve, or that ask nothing, are not in.
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
