"""Whether two checkouts give the same answers: `python -m tests.bench.same --seeds 300 --against DIR`.

Each checkout solves the same seeded worlds with its own copy of this module, and prints for every world a digest of
each answer: plan, routing, explanations, the engine for large worlds on the same world, and the frontier. A change of
structure alone leaves every digest as it is. DIR is another checkout of this repository, such as a `git worktree`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import msgspec
import numpy as np
from msgspec import structs

from placement import engine
from placement.explain.cell import explain_cell
from placement.explain.frontier import Sweep
from placement.explain.model import explain_model, reasons
from placement.index import Index
from placement.large import plan as large
from placement.problem import Problem
from placement.replanner import Replanner
from placement.solution import Solution
from tests.bench.demo_size import quiet_solver
from tests.bench.worlds import a_large_world, a_lumpy_world
from tests.properties import worlds

EVENTS = 4
"""Of a mended world: three with noise on demand, and the loss of a cluster."""
NOISE = 0.03
FRONTIER_POINTS = 3

SMALL: tuple[Callable[[int], Problem], ...] = (
    worlds.a_world,
    worlds.a_harder_world,
    worlds.a_limited_world,
    worlds.a_spread_world,
    worlds.a_world_in_time,
    lambda seed: with_growth(worlds.a_world(seed)),
)
KINDS = ("small",) * 14 + ("lumpy", "middling", "middling", "middling", "large", "mended")
"""Of every twenty worlds; the last ones are slow."""


def digests(seeds: int) -> Iterator[tuple[str, str]]:
    """(name of a world and of an answer, its digest), for worlds 0 to `seeds`."""
    for seed in range(seeds):
        kind = KINDS[seed % len(KINDS)]
        for name, answer in _ANSWERS[kind](seed):
            text = msgspec.json.encode(msgspec.to_builtins(answer, str_keys=True))
            yield f"{kind}-{seed:03d} {name}", hashlib.sha256(text).hexdigest()[:16]


def with_growth(problem: Problem) -> Problem:
    """A third of every second demand is growth that nobody vouches for."""
    demands = [
        structs.replace(one, grown_rps=one.requests_per_second / 3) if at % 2 else one
        for at, one in enumerate(problem.demands)
    ]
    return replace(problem, demands=tuple(demands))


def _small(seed: int) -> Iterator[tuple[str, object]]:
    problem = SMALL[seed % len(SMALL)](seed)
    yield from _by_doors(problem)
    yield "large engine", engine.solution_of(Index(problem), large.solve(Index(problem)))
    if seed % 5 == 0:
        yield from _frontier(problem, engine.solve(problem))


def _lumpy(seed: int) -> Iterator[tuple[str, object]]:
    yield from _by_doors(a_lumpy_world(seed, clusters=14, cells=30, models=3))


def _middling(seed: int) -> Iterator[tuple[str, object]]:
    """A world of more pairs of model and pool than are solved to proven optimality."""
    problem = worlds.a_limited_world(seed, clusters=24, models=6, cells=30, most_devices=8)
    if seed % 2:
        problem = a_large_world(seed, clusters=24, cells=100, models=5, load=0.5)
    yield from _by_doors(problem)
    yield "large engine", engine.solution_of(Index(problem), large.solve(Index(problem)))


def _large(seed: int) -> Iterator[tuple[str, object]]:
    problem = a_large_world(seed, clusters=60, cells=700, models=5, load=0.2 + 0.1 * (seed // len(KINDS) % 4))
    if seed // len(KINDS) % 2:
        protected = tuple(replace(one, survive="region", survive_fraction=0.5) for one in problem.models)
        problem = replace(problem, models=protected)
    yield from _by_doors(problem)


def _mended(seed: int) -> Iterator[tuple[str, object]]:
    problem = a_large_world(seed, clusters=50, cells=700, models=6)
    pools = problem.pools
    planner, rng = Replanner(), np.random.default_rng(seed)
    for event in range(EVENTS):
        solution = planner.solve(problem)
        yield f"event {event}, mended {planner.mended}", solution
        if event == 1:
            lost = rng.choice([one.pool.partition("/")[0] for one in solution.replicas])
            pools = tuple(one for one in problem.pools if one.cluster != lost)
        names = {one.name for one in pools}
        problem = replace(
            problem,
            pools=pools,
            current=tuple(one for one in solution.replicas if one.pool in names),
            demands=tuple(
                structs.replace(one, requests_per_second=one.requests_per_second * float(rng.lognormal(0.0, NOISE)))
                for one in problem.demands
            ),
        )


def _by_doors(problem: Problem) -> Iterator[tuple[str, object]]:
    solution = engine.solve(problem)
    yield "plan", solution
    ready = {(one.model, one.pool): one.replicas for one in solution.replicas}
    whole = engine.route(problem, ready, foreseen=engine.late_parts(solution))
    yield "routing", whole
    half = {key: (count + 1) // 2 for key, count in ready.items()}
    routed = engine.route(problem, half, last=whole)
    yield "routing over half the replicas", routed
    yield "another placement", engine.assess(solution, problem, half, routed.flows, routed.unserved)
    for model in problem.models:
        yield f"why {model.name}", explain_model(problem, solution, model.name)
    yield "reasons", sorted(reasons(problem, solution).items())
    if problem.demands:
        first = problem.demands[0]
        yield "why a cell", explain_cell(problem, solution, first.model, first.cell)


def _frontier(problem: Problem, solution: Solution) -> Iterator[tuple[str, object]]:
    sweep = Sweep(problem, solution)
    for _ in range(FRONTIER_POINTS):
        sweep.step()
    yield "frontier", (sweep.points(), sweep.standing())


_ANSWERS: dict[str, Callable[[int], Iterator[tuple[str, object]]]] = {
    "small": _small,
    "lumpy": _lumpy,
    "middling": _middling,
    "large": _large,
    "mended": _mended,
}


def _of(checkout: Path, seeds: int) -> dict[str, str]:
    """The digests that a checkout's own copy of this module prints. Raises: CalledProcessError where it cannot."""
    command = [sys.executable, "-m", "tests.bench.same", "--seeds", str(seeds)]
    paths = {**os.environ, "PYTHONPATH": str(checkout)}
    found = subprocess.run(command, cwd=checkout, env=paths, check=True, stdout=subprocess.PIPE, text=True)
    return dict(line.rsplit(" ", 1) for line in found.stdout.splitlines())


@click.command(
    epilog="""\b
Exit code: 0 printed, or all the same; 1 answers differ; 2 an option is wrong.
\b
Examples:
  python -m tests.bench.same --seeds 20
  git worktree add --detach ../before HEAD~1 && python -m tests.bench.same --seeds 300 --against ../before
"""
)
@click.option("--seeds", type=click.IntRange(min=1), default=300, show_default=True, help="Worlds to solve.")
@click.option("--against", type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path))
def main(seeds: int, against: Path | None) -> None:
    """Print a digest of each answer; with --against, only where another checkout answers differently."""
    if against is None:
        with quiet_solver() as results:
            for name, digest in digests(seeds):
                click.echo(f"{name} {digest}", file=results)
        return
    ours, theirs = _of(Path.cwd(), seeds), _of(against, seeds)
    others = [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
    for name in others:
        click.echo(f"{name}: here {ours.get(name, 'no answer')}, there {theirs.get(name, 'no answer')}")
    click.echo(f"{len(ours) - len(others)} of {len(ours)} answers of {seeds} worlds are the same")
    sys.exit(1 if others else 0)


if __name__ == "__main__":
    main()
