"""Min-cost flow of many cells into few clusters, by successive shortest paths over the clusters.

Cells start at their cheapest cluster at some duals. Excess load then moves along the shortest path of clusters to free
capacity. Nodes of the graph are the clusters and *outside*, which stands for free capacity and for unserved demand. The
length of a step between two clusters is the least loss of any cell that moves. Each cell stays at its cheapest cluster
at the present duals (reduced-cost optimality), so the result is optimal over all pairs, which the duals prove. The
closer the first duals are to the last, the fewer paths are needed.

Source: successive shortest paths with node potentials: Ahuja, Magnanti and Orlin, Network Flows (1993), section 9.7.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from placement.jit import compiled

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

UNKNOWN, NOBODY = -1, -2
"""In place of an entry: not computed yet; none exists."""
BY_ROOM, BY_OVERLOAD = -3, -4
"""In place of an entry: a step from or to outside that moves no cell."""
TINY = 1e-10
"""Share of all demand below which a rate is zero."""


class Entries(NamedTuple):
    """Assignments: each entry is a part of one cell's requests at one node, in linked lists that end with -1."""

    cell: Ints
    node: Ints
    rps: Floats
    after: Ints
    """The next entry at the node."""
    before: Ints
    """The one before it there."""
    other: Ints
    """The next entry of the cell."""
    free: Ints
    """A stack of unused entries."""


class Graph(NamedTuple):
    """Nodes are the clusters and, last, outside [K + 1]. Each step keeps its cheapest entry."""

    price: Floats
    head: Ints
    """The first entry at each node."""
    load: Floats
    within: Floats
    """Used capacity of a cluster (all of it where its dual is positive); `beyond`: the same of overload."""
    beyond: Floats
    step_usd: Floats
    """[from, to] cost of a step; minus infinity where not computed yet."""
    step_by: Ints
    """[from, to] the entry of that cost."""


class PathTree(NamedTuple):
    """A shortest-path tree: `distance` of each node, `link` to the node before it, `by` which entry."""

    distance: Floats
    link: Ints
    by: Ints
    seen: Ints


@compiled
def flow(
    usd: Floats, rps: Floats, most: Floats, over: Floats, over_usd: float, prices: Floats
) -> tuple[Ints, Ints, Floats, Floats]:
    """(cell, cluster, requests per second, price of each cluster [K]) of the cheapest flow; what is left out is
    unserved.

    Args: usd: [D, K + 1] of one request per second of a cell in a cluster, infinite where it may not be; the last
        column of an unserved one. rps: [D] above zero. most: [K]. over: [K] what can be taken beyond it, at `over_usd`.
        prices: [K] to begin with, at least zero.
    """
    cells, nodes = usd.shape
    outside = nodes - 1
    tiny = TINY * rps.sum()
    entries, first, graph = _begun(usd, rps, most, over, over_usd, prices)
    spare = len(entries.free) - cells
    way = PathTree(np.empty(nodes), np.empty(nodes, np.int64), np.empty(nodes, np.int64), np.empty(nodes, np.int64))
    for turn in range(2 * outside):
        # First what is too much goes where there is room, then what has a price and room gets some.
        source, onward = turn % outside, turn < outside
        while True:
            excess = graph.load[source] - graph.within[source] - graph.beyond[source]
            if (excess if onward else -excess) <= tiny:
                break
            target = _nearest(usd, most, over, over_usd, entries, graph, way, source, onward, tiny)
            if target < 0:
                break
            for node in range(outside):
                change = way.distance[target] - way.distance[node]
                if change > 0:
                    graph.price[node] = max(0.0, graph.price[node] + (change if onward else -change))
            part = abs(excess)
            if onward and target != outside:
                part = min(part, graph.within[target] + graph.beyond[target] - graph.load[target])
            part = min(part, _bottleneck(most, over, entries, graph, way, source, target, onward))
            if spare < nodes:
                spare += len(entries.cell)
                entries = _more(entries)
            spare = _send(usd, entries, first, graph, way, source, target, onward, part, spare, tiny)
    return _read(entries, first, outside, graph.price[:outside].copy())


@compiled
def _begun(
    usd: Floats, rps: Floats, most: Floats, over: Floats, over_usd: float, prices: Floats
) -> tuple[Entries, Ints, Graph]:
    """Every cell is where it costs least at these prices: its entry [D] is its first."""
    cells, nodes = usd.shape
    outside = nodes - 1
    size = 2 * cells + 16 * nodes
    entries = Entries(
        np.empty(size, np.int64),
        np.empty(size, np.int64),
        np.zeros(size),
        np.empty(size, np.int64),
        np.empty(size, np.int64),
        np.full(size, -1),
        np.arange(size)[::-1].copy(),
    )
    graph = Graph(
        np.append(prices, 0.0),
        np.full(nodes, -1),
        np.zeros(nodes),
        np.zeros(nodes),
        np.zeros(nodes),
        np.full((nodes, nodes), -np.inf),
        np.full((nodes, nodes), UNKNOWN),
    )
    for cell in range(cells):
        best, at = usd[cell, outside], outside
        for node in range(outside):
            paid = usd[cell, node] + prices[node]
            if paid < best:
                best, at = paid, node
        entries.cell[cell], entries.node[cell], entries.rps[cell] = cell, at, rps[cell]
        _link(entries, graph, cell, at)
        graph.load[at] += rps[cell]
    for node in range(outside):
        price, load = prices[node], graph.load[node]
        graph.within[node] = most[node] if price > 0 else min(load, most[node])
        if price > over_usd:
            graph.beyond[node] = over[node]
        elif price == over_usd:
            graph.beyond[node] = min(max(0.0, load - most[node]), over[node])
    return entries, np.arange(cells), graph


@compiled
def _link(entries: Entries, graph: Graph, entry: int, node: int) -> None:
    head = graph.head[node]
    entries.after[entry], entries.before[entry] = head, -1
    if head >= 0:
        entries.before[head] = entry
    graph.head[node] = entry


@compiled
def _more(entries: Entries) -> Entries:
    """Twice as many; the new ones are free, below those that are."""
    size = len(entries.cell)
    none = np.full(size, -1)
    return Entries(
        np.append(entries.cell, none),
        np.append(entries.node, none),
        np.append(entries.rps, np.zeros(size)),
        np.append(entries.after, none),
        np.append(entries.before, none),
        np.append(entries.other, none),
        np.append(np.arange(size, 2 * size), entries.free),
    )


@compiled
def _nearest(
    usd: Floats,
    most: Floats,
    over: Floats,
    over_usd: float,
    entries: Entries,
    graph: Graph,
    way: PathTree,
    source: int,
    onward: bool,
    tiny: float,
) -> int:
    """The nearest node that can take what is too much at the source, outside too; or the one that gives what it can
    take. -1: there is none."""
    price, load, within, beyond = graph.price, graph.load, graph.within, graph.beyond
    distance, seen = way.distance, way.seen
    nodes = len(price)
    outside = nodes - 1
    distance[:] = np.inf
    distance[source], seen[0], count = 0.0, source, 1
    target, nearest = -1, np.inf
    while count:
        at, least = 0, distance[seen[0]]
        for other in range(1, count):
            if distance[seen[other]] < least:
                at, least = other, distance[seen[other]]
        if least >= nearest:
            break
        node = seen[at]
        count -= 1
        seen[at] = seen[count]
        base = least - price[node] if onward else least + price[node]
        for other in range(nodes):
            here, there = (node, other) if onward else (other, node)
            to = price[other] if onward else -price[other]
            if base + graph.step_usd[here, there] + to >= distance[other] and other != outside:
                continue
            if graph.step_by[here, there] == UNKNOWN:
                _cheapest_step(usd, entries, graph, here, there)
            length, by = base + graph.step_usd[here, there] + to, graph.step_by[here, there]
            if other == outside:
                more = over_usd if onward else -over_usd
                has_room = within[node] < most[node] - tiny if onward else within[node] > tiny
                has_overload = beyond[node] < over[node] - tiny if onward else beyond[node] > tiny
                if has_room and base < length:
                    length, by = base, BY_ROOM
                if has_overload and base + more < length:
                    length, by = base + more, BY_OVERLOAD
            length = max(least, length)
            if length >= distance[other] or length >= nearest:
                continue
            if distance[other] == np.inf:
                seen[count] = other
                count += 1
            distance[other], way.link[other], way.by[other] = length, node, by
            if other == outside or (onward and load[other] - within[other] - beyond[other] < -tiny):
                target, nearest = other, length
    return target


@compiled
def _cheapest_step(usd: Floats, entries: Entries, graph: Graph, here: int, there: int) -> None:
    """Who costs least on its way from here to there."""
    found, least, entry = NOBODY, np.inf, graph.head[here]
    while entry >= 0:
        cell = entries.cell[entry]
        more = usd[cell, there] - usd[cell, here]
        if more < least:
            found, least = entry, more
        entry = entries.after[entry]
    graph.step_by[here, there], graph.step_usd[here, there] = found, least


@compiled
def _bottleneck(
    most: Floats, over: Floats, entries: Entries, graph: Graph, way: PathTree, source: int, target: int, onward: bool
) -> float:
    """How much can go all the way."""
    part, node = np.inf, target
    while node != source:
        by, inner = way.by[node], way.link[node]
        if by == BY_ROOM:
            part = min(part, most[inner] - graph.within[inner] if onward else graph.within[inner])
        elif by == BY_OVERLOAD:
            part = min(part, over[inner] - graph.beyond[inner] if onward else graph.beyond[inner])
        else:
            part = min(part, entries.rps[by])
        node = inner
    return part


@compiled
def _send(
    usd: Floats,
    entries: Entries,
    first: Ints,
    graph: Graph,
    way: PathTree,
    source: int,
    target: int,
    onward: bool,
    part: float,
    spare: int,
    tiny: float,
) -> int:
    """So much goes all the way; gives how many entries are free then."""
    node = target
    while node != source:
        by, inner = way.by[node], way.link[node]
        here, there = (inner, node) if onward else (node, inner)
        node = inner
        if by == BY_ROOM:
            graph.within[inner] += part if onward else -part
            continue
        if by == BY_OVERLOAD:
            graph.beyond[inner] += part if onward else -part
            continue
        cell = entries.cell[by]
        moved = entries.rps[by] if entries.rps[by] - part <= tiny else part
        graph.load[here] -= moved
        graph.load[there] += moved
        entry = first[cell]
        while entry >= 0 and entries.node[entry] != there:
            entry = entries.other[entry]
        if entry < 0:
            spare -= 1
            entry = entries.free[spare]
            entries.cell[entry], entries.node[entry], entries.rps[entry] = cell, there, 0.0
            _link(entries, graph, entry, there)
            entries.other[entry] = first[cell]
            first[cell] = entry
            for to in range(len(graph.price)):
                more = usd[cell, to] - usd[cell, there]
                if more < graph.step_usd[there, to]:
                    graph.step_by[there, to], graph.step_usd[there, to] = entry, more
        entries.rps[entry] += moved
        entries.rps[by] -= moved
        if moved > part or entries.rps[by] <= 0.0:
            _leave(entries, first, graph, by)
            entries.free[spare] = by
            spare += 1
    return spare


@compiled
def _leave(entries: Entries, first: Ints, graph: Graph, entry: int) -> None:
    """Nothing is left of this entry."""
    cell, node, after, before = entries.cell[entry], entries.node[entry], entries.after[entry], entries.before[entry]
    if before >= 0:
        entries.after[before] = after
    else:
        graph.head[node] = after
    if after >= 0:
        entries.before[after] = before
    if first[cell] == entry:
        first[cell] = entries.other[entry]
    else:
        other = first[cell]
        while entries.other[other] != entry:
            other = entries.other[other]
        entries.other[other] = entries.other[entry]
    for to in range(len(graph.price)):
        if graph.step_by[node, to] == entry:
            graph.step_by[node, to], graph.step_usd[node, to] = UNKNOWN, -np.inf


@compiled
def _read(entries: Entries, first: Ints, outside: int, price: Floats) -> tuple[Ints, Ints, Floats, Floats]:
    size = len(entries.cell)
    cell, cluster, rps, count = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size), 0
    for at in range(len(first)):
        entry = first[at]
        while entry >= 0:
            if entries.node[entry] != outside:
                cell[count], cluster[count], rps[count] = at, entries.node[entry], entries.rps[entry]
                count += 1
            entry = entries.other[entry]
    return cell[:count].copy(), cluster[:count].copy(), rps[:count].copy(), price


@compiled
def least_usd(usd: Floats, prices: Floats) -> Floats:
    """[D] what one request per second of each cell costs at least at these prices [K]."""
    cells, clusters = len(usd), len(prices)
    made = np.empty(cells)
    for cell in range(cells):
        least = usd[cell, clusters]
        for cluster in range(clusters):
            least = min(least, usd[cell, cluster] + prices[cluster])
        made[cell] = least
    return made


@compiled
def two_best(usd: Floats, prices: Floats) -> tuple[Ints, Ints, Floats]:
    """[D] where each cell costs least at these prices [K] and where it costs least besides, the last column for
    nowhere, and how much more it costs there."""
    cells, clusters = len(usd), len(prices)
    first, second, regret = np.empty(cells, np.int64), np.empty(cells, np.int64), np.empty(cells)
    for cell in range(cells):
        best, at, other, next_at = usd[cell, clusters], clusters, np.inf, clusters
        for cluster in range(clusters):
            paid = usd[cell, cluster] + prices[cluster]
            if paid < best:
                best, at, other, next_at = paid, cluster, best, at
            elif paid < other:
                other, next_at = paid, cluster
        first[cell], second[cell], regret[cell] = at, next_at, other - best
    return first, second, regret
