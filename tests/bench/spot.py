"""Recorded spot capacity, replayed: how often a target of replicas is served, and at what price, by us and by others.

`python -m tests.bench.spot --traces DIR` takes any directory of files such as `us-west-2a_v100_1.json`:
`{"metadata": {"gap_seconds": 300}, "data": [4, 4, 0, ...]}`, how many spot instances a zone could hold over time.

A step takes 30 s. Of what a rule asks for, spot is granted up to the zone's capacity, on-demand always; both are paid
from then on, on-demand at three times spot's price, and serve after their warm-up. Measured over ten windows of a day.
"""

from __future__ import annotations

import bisect
import itertools
import json
import random
import statistics
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import click
import numpy as np

from placement import highs, risk
from placement.highs import Programme
from placement.large.arrays import Ints
from tests.bench.demo_size import quiet_solver

DATA = Path(__file__).parents[3] / "shared" / "data" / "spot-traces"
"""Not part of the project: what uses it does without where it is not there."""
TARGETS, WARMUPS_S = (3, 4, 16), (180, 600)
STEP_S = 30
DAY_STEPS = 2_880
WINDOWS = 10
ON_DEMAND_PRICE = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a rule knows at a step: of the step before, for each zone what it asked, held and had ready."""

    asked: Sequence[int]
    held: Sequence[int]
    ready: Sequence[int]
    on_demand: int
    on_demand_ready: int


class Rule(Protocol):
    """Decides a step at a time; a new one for each window."""

    def step(self, seen: Seen) -> tuple[Sequence[int], int]:
        """What to hold from now on: on spot for each zone, and on demand."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Keep `target` replicas serving over these zones."""

    zones: tuple[str, ...]
    target: int
    warmup_s: int

    @property
    def warmup_steps(self) -> int:
        return self.warmup_s // STEP_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Shares of the time, and the price relative to the target on demand."""

    available: float
    dark: float
    cost: float


class OnDemand:
    """Everything on demand."""

    name = "on-demand only"

    def __init__(self, task: Task, chance: random.Random) -> None:
        self.task = task

    def step(self, seen: Seen) -> tuple[Sequence[int], int]:
        return [0] * len(self.task.zones), self.task.target


class EvenSpread:
    """Spot alone, each missing replica in the zone that has fewest."""

    name = "even spread"

    def __init__(self, task: Task, chance: random.Random) -> None:
        self.task = task

    def step(self, seen: Seen) -> tuple[Sequence[int], int]:
        counts = list(seen.held)
        while sum(counts) < self.task.target:
            counts[min(range(len(counts)), key=lambda zone: (counts[zone], zone))] += 1
        return counts, 0


class RoundRobin:
    """Spot alone, each missing replica in the next zone."""

    name = "round robin"

    def __init__(self, task: Task, chance: random.Random) -> None:
        self.task, self.next = task, 0

    def step(self, seen: Seen) -> tuple[Sequence[int], int]:
        counts = list(seen.held)
        while sum(counts) < self.task.target:
            counts[self.next] += 1
            self.next = (self.next + 1) % len(counts)
        return counts, 0


class SpotHedge:
    """SkyServe's rule as its paper has it (arXiv 2411.01438, section 4): one replica more than the target, spread over
    zones that were not in trouble at the last launch; on demand as many as ready spot replicas are missing."""

    name = "SpotHedge"

    def __init__(self, task: Task, chance: random.Random) -> None:
        self.task, self.chance = task, chance
        self.good = set(range(len(task.zones)))

    def step(self, seen: Seen) -> tuple[Sequence[int], int]:
        for zone, (asked, held) in enumerate(zip(seen.asked, seen.held, strict=True)):
            if asked > held:
                self.good.discard(zone)
            elif asked > 0:
                self.good.add(zone)
        if len(self.good) <= min(1, len(self.task.zones) - 3):
            self.good = set(range(len(self.task.zones)))
        counts, wanted = list(seen.held), self.task.target + 1
        while sum(counts) < wanted:
            empty = [zone for zone in sorted(self.good) if not counts[zone]]
            counts[self.chance.choice(empty or sorted(self.good))] += 1
        return counts, max(0, min(self.task.target, wanted - sum(seen.ready)))


class Priced:
    """Ours: `placement.risk`, with what it learns of each zone from what it was granted."""

    name = "ours"

    def __init__(self, task: Task, chance: random.Random) -> None:
        self.task = task
        self.terms = risk.Terms.of(task.target, task.warmup_s, STEP_S)
        self.beliefs = [risk.Belief()] * len(task.zones)
        self.before: Sequence[int] = [0] * len(task.zones)

    def step(self, seen: Seen) -> tuple[Sequence[int], int]:
        self.beliefs = [
            belief.after(STEP_S, held=before, asked=asked, got=held)
            for belief, before, asked, held in zip(self.beliefs, self.before, seen.asked, seen.held, strict=True)
        ]
        self.before = seen.held
        zones = [
            risk.Zone(region=region_of(name), held=held, ready=ready, belief=belief)
            for name, held, ready, belief in zip(self.task.zones, seen.held, seen.ready, self.beliefs, strict=True)
        ]
        ordered = risk.order(self.terms, zones, seen.on_demand, seen.on_demand_ready)
        return ordered.spot, ordered.on_demand


RULES: tuple[type[OnDemand | EvenSpread | RoundRobin | SpotHedge | Priced], ...] = (
    OnDemand,
    EvenSpread,
    RoundRobin,
    SpotHedge,
    Priced,
)


def region_of(zone: str) -> str:
    """`us-west-2a` is in `us-west-2`, `us-west1-b` in `us-west1`."""
    return zone[:-1].rstrip("-")


def replay(rule: Rule, task: Task, capacity: Ints) -> Score:
    """`capacity` [zones, steps]."""
    zones, steps = capacity.shape
    warmup = task.warmup_steps
    asked: Sequence[int] = [0] * zones
    held: Sequence[int] = [0] * zones
    past: deque[list[int]] = deque(maxlen=warmup + 1)
    available = dark = spot_paid = on_demand_paid = 0
    ready = [0] * (zones + 1)
    on_demand = 0
    able = capacity.T.tolist()
    for step in range(steps):
        asked, on_demand = rule.step(
            Seen(asked=asked, held=held, ready=ready[:-1], on_demand=on_demand, on_demand_ready=ready[-1])
        )
        held = [min(want, can) for want, can in zip(asked, able[step], strict=True)]
        past.append([*held, on_demand])
        ready = [min(column) for column in zip(*past, strict=True)] if len(past) > warmup else [0] * (zones + 1)
        if step >= warmup:
            serving = sum(ready)
            available += serving >= task.target
            dark += serving == 0
            spot_paid += sum(held)
            on_demand_paid += on_demand
    counted = steps - warmup
    return Score(
        available=available / counted,
        dark=dark / counted,
        cost=(spot_paid + ON_DEMAND_PRICE * on_demand_paid) / (ON_DEMAND_PRICE * task.target * counted),
    )


def read(directory: Path) -> dict[str, Ints]:
    """Zone -> capacity at each step of 30 s."""
    found = {}
    for file in sorted(directory.glob("*.json")):
        try:
            document = json.loads(file.read_text())
            steps = int(document["metadata"]["gap_seconds"]) // STEP_S
            found[file.name.split("_")[0]] = np.repeat(np.array(document["data"], dtype=np.int64), steps)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: no trace: {error!r}; it needs metadata.gap_seconds and data") from error
    if not found:
        raise ValueError(f"{directory}: no file *.json; each zone needs one, such as us-west-2a_v100_1.json")
    return found


def starts(traces: Mapping[str, Ints], steps: int, seed: int) -> list[int]:
    """Where the windows begin; seed 0 gives those of SkyServe's authors."""
    last = min(len(capacity) for capacity in traces.values()) - steps
    if last < 1:
        raise ValueError(f"the traces are shorter than a window of {steps * STEP_S} s")
    chance = np.random.RandomState(seed)
    return [int(chance.randint(0, last)) for _ in range(WINDOWS)]


def full_knowledge(task: Task, capacity: Ints) -> float:
    """The least price relative to on-demand at which one who knows `capacity` in advance always serves the target.

    A linear programme: of each zone, and on demand, how many are held and how many were launched so far, in the
    stretches between changes of capacity, and a warm-up before and after them.
    """
    able, warmup = np.minimum(capacity, task.target), task.warmup_steps
    zones, steps = able.shape
    changes = [0, warmup, *(np.flatnonzero((able[:, 1:] != able[:, :-1]).any(axis=0)) + 1).tolist()]
    begin = sorted({at + by for at in changes for by in (-warmup, 0, warmup) if 0 <= at + by < steps})
    end = [*begin[1:], steps]
    programme = Programme()
    serving: list[dict[int, float]] = [{} for _ in begin]
    for zone in range(zones + 1):
        price = ON_DEMAND_PRICE if zone == zones else 1.0
        most = [float(task.target) if zone == zones else float(able[zone, at]) for at in begin]
        paid = [price * max(0, till - max(at, warmup)) for at, till in zip(begin, end, strict=True)]
        held = [programme.column(cost, upper=upper) for cost, upper in zip(paid, most, strict=True)]
        launched = [programme.column(0.0) for _ in begin]
        for at, step in enumerate(begin):
            grown = {held[at]: 1.0, launched[at]: -1.0}
            if at:
                grown |= {held[at - 1]: -1.0, launched[at - 1]: 1.0}
                programme.row({launched[at]: 1.0, launched[at - 1]: -1.0}, lower=0.0)
            programme.row(grown, upper=0.0)
            if step >= warmup:
                old = bisect.bisect_right(begin, step - warmup) - 1
                ready = {held[at]: 1.0, launched[at]: -1.0}
                ready[launched[old]] = ready.get(launched[old], 0.0) + 1.0
                programme.row(ready, lower=0.0)
                serving[at] |= ready
    for ready in serving:
        if ready:
            programme.row(ready, lower=float(task.target))
    found = highs.solve(programme)
    assert found is not None  # on demand alone is an answer
    return float(found.objective / (ON_DEMAND_PRICE * task.target * (steps - warmup)))


def compared(
    name: str, traces: Mapping[str, Ints], target: int, warmup_s: int, seed: int
) -> Iterator[dict[str, object]]:
    """A line for each rule and one for full knowledge: means over the windows."""
    task = Task(zones=tuple(traces), target=target, warmup_s=warmup_s)
    windows = [
        np.array([traces[zone][start : start + DAY_STEPS] for zone in task.zones])
        for start in starts(traces, DAY_STEPS, seed)
    ]
    of = {"trace": name, "replicas": target, "warmup_s": warmup_s, "seed": seed}
    for rule in RULES:
        scores = [replay(rule(task, random.Random(at)), task, window) for at, window in enumerate(windows)]
        yield {
            **of,
            "rule": rule.name,
            "available_percent": round(100 * statistics.fmean(score.available for score in scores), 3),
            "nothing_serving_percent": round(100 * statistics.fmean(score.dark for score in scores), 3),
            "cost_of_on_demand": round(statistics.fmean(score.cost for score in scores), 4),
        }
    yield {
        **of,
        "rule": "full knowledge",
        "available_percent": 100.0,
        "nothing_serving_percent": 0.0,
        "cost_of_on_demand": round(statistics.fmean(full_knowledge(task, window) for window in windows), 4),
    }


def spot() -> Iterator[dict[str, object]]:
    """Both recorded traces, three and four replicas, and sixteen where zones hold so many."""
    if not DATA.is_dir():
        yield {"skipped": "the recorded traces are in shared/, which is not here"}
        return
    for directory in sorted(DATA.iterdir()):
        traces = read(directory)
        most = max(int(capacity.max()) for capacity in traces.values())
        for target, warmup_s in itertools.product(TARGETS, WARMUPS_S):
            if target <= most:
                yield from compared(directory.name, traces, target, warmup_s, seed=0)


@click.command(
    epilog="""\b
Exit code: 0 replayed, 1 a trace cannot be read or is too short, 2 an option is wrong.
\b
Examples:
  python -m tests.bench.spot --traces AWS1
  python -m tests.bench.spot --traces AWS2 --replicas 16 --warmup 600 --seed 7
"""
)
@click.option(
    "--traces",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="A directory with a JSON file for each zone, such as us-west-2a_v100_1.json.",
)
@click.option(
    "--replicas", "targets", type=click.IntRange(min=1), multiple=True, default=TARGETS[:2], help="Wanted at all times."
)
@click.option(
    "--warmup", "warmups_s", type=click.IntRange(min=STEP_S), multiple=True, default=WARMUPS_S, help="Seconds."
)
@click.option("--seed", default=0, help="Of the windows; 0 gives those of SkyServe's authors.")
@click.option("--most", type=click.IntRange(min=1), help="A zone that has any holds so many: for traces of 0 and 1.")
def main(directory: Path, targets: tuple[int, ...], warmups_s: tuple[int, ...], seed: int, most: int | None) -> None:
    """Replay recorded spot capacity; a JSON line for each rule, number of replicas and warm-up."""
    try:
        traces = read(directory)
        if most is not None:
            traces = {zone: np.where(capacity > 0, most, 0) for zone, capacity in traces.items()}
        with quiet_solver() as results:
            for target, warmup_s in itertools.product(targets, warmups_s):
                for line in compared(directory.name, traces, target, warmup_s, seed):
                    click.echo(json.dumps(line), file=results)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
