"""Candidate arcs: for each group the few nodes that a good plan may serve it from.

Nearest alone is fatal when a metropolis is full or a region is lost, so a part of the arcs is kept for the best node of
each of several other regions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from placement.compiled import compiled
from placement.instance import Floats, Ints

BEST = 10
OTHER_REGIONS = 3


@compiled
def pick(
    usd: NDArray[np.float32], allowed: NDArray[np.bool_], region: Ints, regions: int, best: int, others: int
) -> Ints:
    """For each cell the `best` cheapest nodes and the cheapest of each of `others` further regions, or -1.

    Args: usd: [cells, nodes] of one request per second, the device included. allowed: [cells, nodes] by residency and
        known latency. region: [nodes], below `regions`.
    """
    cells, nodes = usd.shape
    found = np.full((cells, best + others), -1, np.int64)
    region_usd = np.empty(regions, np.float32)
    region_node = np.empty(regions, np.int64)
    is_used = np.empty(regions, np.bool_)
    top_usd = np.empty(best + 1, np.float32)
    top = np.empty(best + 1, np.int64)
    for cell in range(cells):
        region_node[:] = -1
        is_used[:] = False
        count = 0
        for node in range(nodes):
            if not allowed[cell, node]:
                continue
            price = usd[cell, node]
            where = region[node]
            if region_node[where] < 0 or price < region_usd[where]:
                region_usd[where] = price
                region_node[where] = node
            if count < best:
                at = count
                count += 1
            elif price < top_usd[best - 1]:
                at = best - 1
            else:
                continue
            while at > 0 and top_usd[at - 1] > price:
                top_usd[at] = top_usd[at - 1]
                top[at] = top[at - 1]
                at -= 1
            top_usd[at] = price
            top[at] = node
        for at in range(count):
            found[cell, at] = top[at]
            is_used[region[top[at]]] = True
        for at in range(count, count + others):
            nearest = -1
            for where in range(regions):
                is_open = not is_used[where] and region_node[where] >= 0
                if is_open and (nearest < 0 or region_usd[where] < region_usd[nearest]):
                    nearest = where
            if nearest < 0:
                break
            is_used[nearest] = True
            found[cell, at] = region_node[nearest]
    return found


def of_model(
    usd: NDArray[np.float32],
    unit_usd: Floats,
    allowed: NDArray[np.bool_],
    region: Ints,
    *,
    best: int = BEST,
    others: int = OTHER_REGIONS,
) -> tuple[Ints, Ints]:
    """(how many arcs each cell has, the nodes of all of them in order) of one model.

    Args: usd: [cells, nodes] of lateness and distance. unit_usd: [nodes] of one request per second on the cheapest
        device there.
    """
    regions = int(region.max()) + 1 if len(region) else 1
    picked = pick(usd + unit_usd.astype(np.float32), allowed, region, regions, best, others)
    nodes = np.sort(np.where(picked < 0, np.iinfo(np.int64).max, picked), axis=1)
    kept = nodes < np.iinfo(np.int64).max
    return kept.sum(axis=1), nodes[kept]
