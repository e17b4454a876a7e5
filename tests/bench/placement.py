"""The engine on large worlds, and HiGHS alone on the same input beside it.

The bound of these lines is over every pair. `python -m tests.bench.placement --instance FILE` solves
a file of the literature.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import highspy
import numpy as np

from placement import engine, highs
from placement.exact.formulation import formulate
from placement.index import Index
from placement.large import aggregation, duals
from placement.large import plan as large
from placement.large.encoding import encode
from placement.large.master import RestrictedMaster
from placement.problem import Problem
from placement.solution import Solution
from tests.bench import literature
from tests.bench.demo_size import quiet_solver, result
from tests.bench.worlds import a_large_world, a_lumpy_world

SIZES = ((50, 500, 4), (200, 2_000, 8), (1_000, 10_000, 20))
LP_TIMES = 20.0
"""HiGHS's linear programme is given up when it has taken so many times as long as ours."""
MIP_SIZE, MIP_S = "200x2000x8", 120.0
LARGEST = (3_000, 30_000, 20)
LUMPY_WORLDS = 20
ALONE_S, ALONE_NODES = 60.0, 1_000_000_000
WAYS_ALONE = 16
"""Of each group, in the programme that HiGHS solves alone; ours may use every pair."""


def placement() -> Iterator[dict[str, object]]:
    """A cold plan, its distance to the bound, and HiGHS alone; the first solve is not measured."""
    large.solve(Index(a_large_world(0, clusters=10, cells=50, models=2)))
    for clusters, cells, models in SIZES:
        for seed in (1, 2, 3):
            problem = a_large_world(seed, clusters=clusters, cells=cells, models=models)
            size, index = f"{clusters}x{cells}x{models}", Index(problem)
            solution, ours_s = _planned(index)
            lp_s, _, is_done = alone(index, whole=False, time_limit_s=LP_TIMES * ours_s)
            yield result(
                f"{size} plan", ours_s, "s", f"HiGHS LP alone, {'done' if is_done else 'not done'}", lp_s, seed
            )
            yield from _quality(size, problem, solution, seed)
            if size == MIP_SIZE:
                _, usd, _ = alone(index, whole=True, time_limit_s=MIP_S)
                yield result(f"{size} cost", solution.cost.total, "USD/h", f"HiGHS MIP in {MIP_S:g} s", usd, seed)


def largest() -> Iterator[dict[str, object]]:
    """The largest world: time, distance to the bound, and the memory that all of it took."""
    clusters, cells, models = LARGEST
    large.solve(Index(a_large_world(0, clusters=10, cells=50, models=2)))
    problem = a_large_world(1, clusters=clusters, cells=cells, models=models)
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = f"{clusters}x{cells}x{models}"
    solution, ours_s = _planned(Index(problem))
    after_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield result(f"{size} plan", ours_s, "s", "", None, 1)
    yield result(f"{size} memory", after_mib, "MiB", "before the plan", before_mib, 1)
    yield from _quality(size, problem, solution, 1)


def _planned(index: Index) -> tuple[Solution, float]:
    """The plan, and the engine's seconds."""
    begun_s = time.perf_counter()
    answer = large.solve(index)
    taken_s = time.perf_counter() - begun_s
    return engine.solution_of(index, answer), taken_s


def _quality(size: str, problem: Problem, solution: Solution, seed: int) -> Iterator[dict[str, object]]:
    yield result(f"{size} cost", solution.cost.total, "USD/h", "bound", solution.bound_usd_per_hour, seed)
    missing = sum(one.requests_per_second for one in solution.unserved)
    asked = sum(one.requests_per_second for one in problem.demands)
    yield result(f"{size} unserved", missing, "requests/s", "asked", asked, seed)


def lumpy() -> Iterator[dict[str, object]]:
    """Edge worlds of about one replica per pool and model, beside HiGHS's MIP on the same input: 20 minutes of it."""
    for seed in range(1, LUMPY_WORLDS + 1):
        problem = a_lumpy_world(seed)
        begun_s = time.perf_counter()
        solution = engine.solve(problem)
        ours_s = time.perf_counter() - begun_s
        alone = highs.solve(formulate(Index(problem)).programme, node_limit=ALONE_NODES, time_limit_s=ALONE_S)
        alone_usd = alone.objective if alone is not None else None
        yield result("lumpy cost", solution.cost.total, "USD/h", f"HiGHS MIP alone in {ALONE_S:g} s", alone_usd, seed)
        yield result("lumpy plan", ours_s, "s", "HiGHS MIP alone at most", ALONE_S, seed)


def from_literature() -> Iterator[dict[str, object]]:
    """The large files of OR-Library beside their optima; Holmberg's beside the best without splitting a customer."""
    for name, capacity, optimum in literature.large_optima():
        path = literature.DATA / "orlib_cap" / f"{name}.txt"
        yield from _of_file(f"{name}-{capacity:g}", path, "cap", capacity, "optimum", optimum)
    for file, single in enumerate(literature.single_source_optima(), start=1):
        path = literature.DATA / "holmberg" / f"p{file}.txt"
        yield from _of_file(f"holmberg p{file}", path, "holmberg", None, "single-source optimum", single)


def _of_file(
    name: str, path: Path, form: literature.Format, capacity: float | None, baseline: str, known: float
) -> Iterator[dict[str, object]]:
    instance = literature.read(path, form, capacity=capacity)
    begun_s = time.perf_counter()
    found = literature.solve(instance)
    taken_s = time.perf_counter() - begun_s
    if found is not None:
        line = result(f"{name} value", found.objective, "cost", baseline, known)
        yield {**line, "bound": found.bound, "seconds": round(taken_s, 3)}


def survive() -> Iterator[dict[str, object]]:
    """What surviving the loss of any region costs, how near the bound with that rule, and whom a loss then leaves."""
    for clusters, cells, models in ((100, 1_000, 6), (200, 2_000, 8)):
        for seed in (1, 2, 3):
            problem = a_large_world(seed, clusters=clusters, cells=cells, models=models)
            protected = replace(problem, models=tuple(replace(one, survive="region") for one in problem.models))
            size = f"{clusters}x{cells}x{models}"
            plain, safe = (engine.solution_of(Index(one), large.solve(Index(one))) for one in (problem, protected))
            yield result(f"{size} surviving", safe.cost.total, "USD/h", "without", plain.cost.total, seed)
            yield result(f"{size} surviving", safe.cost.total, "USD/h", "bound", safe.bound_usd_per_hour, seed)
            region = {cluster.name: cluster.region for cluster in problem.clusters}
            worst = 0.0
            for lost in sorted(set(region.values())):
                ready = {
                    (one.model, one.pool): one.replicas
                    for one in safe.replicas
                    if region[one.pool.partition("/")[0]] != lost
                }
                missing = engine.route(problem, ready).unserved
                worst = max(worst, sum(one.requests_per_second for one in missing))
            asked = sum(one.requests_per_second for one in problem.demands)
            yield result(f"{size} unserved by the worst loss", worst, "requests/s", "asked", asked, seed)


def alone(index: Index, *, whole: bool, time_limit_s: float) -> tuple[float, float | None, bool]:
    """(seconds, USD per hour of the answer, whether it ended) of HiGHS on the programme with every group by itself.

    Args: whole: replicas in whole numbers.
    """
    world = encode(index).arrays
    programme = RestrictedMaster(world, aggregation.whole(world, duals.none(world), None))
    programme.add_best(duals.none(world), WAYS_ALONE)
    solver, options = programme.solver, np.arange(len(world.option_node), dtype=np.int32)
    solver.setOptionValue("time_limit", time_limit_s)
    if whole:
        solver.changeColsIntegrality(len(options), options, np.full(len(options), highspy.HighsVarType.kInteger))
    begun_s = time.perf_counter()
    solver.run()
    taken_s = time.perf_counter() - begun_s
    info = solver.getInfo()
    is_feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    is_done = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return taken_s, float(info.objective_function_value) if is_feasible else None, is_done


@click.command(
    epilog="""\b
Exit code: 0 solved, 1 the file cannot be read or nothing was found, 2 an option is wrong.
\b
Examples:
  python -m tests.bench.placement --instance cap41.txt --format cap
  python -m tests.bench.placement --instance capa.txt --format cap --capacity 8000 --time-limit 60
"""
)
@click.option("--instance", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--format", "form", type=click.Choice(["cap", "holmberg"]), required=True)
@click.option(
    "--capacity",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Of every warehouse, where the file has a word in its place.",
)
@click.option(
    "--time-limit",
    "time_limit_s",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Seconds of the search, which begins when the relaxation is solved; the best plan so far is given.",
)
def main(path: Path, form: literature.Format, capacity: float | None, time_limit_s: float | None) -> None:
    """Solve a file of the literature; one JSON line with value, bound, gap and seconds."""
    try:
        with quiet_solver() as results:
            click.echo(literature.report(path, form, capacity=capacity, time_limit_s=time_limit_s), file=results)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
