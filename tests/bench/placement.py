"""The engine on large worlds, and HiGHS's LP on the same input beside it where that ends in minutes.

The bound of these lines is over the instance's candidate arcs. `python -m tests.bench.placement --instance FILE` solves
a file of the literature.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from placement import relax, scale
from tests.bench import literature
from tests.bench.demo_size import result
from tests.bench.worlds import a_large_world

SIZES = ((50, 500, 4), (200, 2_000, 8), (1_000, 10_000, 20))
LP_AT_MOST = 20_000
"""Groups: beyond that the LP alone takes longer than a person waits."""


def placement() -> Iterator[dict[str, object]]:
    """A cold plan, then the loss of the fullest pool; the first solve, which compiles, is not measured."""
    scale.solve(a_large_world(0, clusters=10, cells=50, models=2))
    for clusters, cells, models in SIZES:
        for seed in (1, 2, 3):
            instance = a_large_world(seed, clusters=clusters, cells=cells, models=models)
            size = f"{clusters}x{cells}x{models}"
            begun_s = time.perf_counter()
            answer = scale.solve(instance)
            ours_s = time.perf_counter() - begun_s
            lp_s = None
            if len(instance.group_rps) <= LP_AT_MOST:
                begun_s = time.perf_counter()
                relax.solve(instance)
                lp_s = time.perf_counter() - begun_s
            yield result(f"{size} plan", ours_s, "s", "HiGHS LP alone", lp_s, seed)
            yield result(f"{size} cost", answer.usd_per_hour, "USD/h", "bound", answer.prices.bound, seed)
            used = np.bincount(instance.option_pool, weights=answer.replicas * instance.option_devices)
            gone = instance.option_pool == int(used.argmax())
            without = replace(instance, option_most=np.where(gone, 0, instance.option_most))
            begun_s = time.perf_counter()
            mended = scale.repair(without, answer.replicas, answer.flows, answer.prices)
            repair_s = time.perf_counter() - begun_s
            yield result(f"{size} fullest pool lost", repair_s, "s", "cold plan", ours_s, seed)
            changed = float(np.abs(mended.replicas - answer.replicas)[~gone].sum())
            yield result(f"{size} replicas moved", changed, "replicas", "all", float(answer.replicas.sum()), seed)


@click.command(
    epilog="""\b
Exit code: 0 solved, 1 the file cannot be read.
\b
Examples:
  python -m tests.bench.placement --instance cap41.txt --format cap
  python -m tests.bench.placement --instance capa.txt --format cap --capacity 8000 --time-limit 60
"""
)
@click.option("--instance", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--format", "form", type=click.Choice(["cap", "holmberg"]), required=True)
@click.option("--capacity", type=float, help="Of every warehouse, where the file has a word in its place.")
@click.option("--time-limit", "time_limit_s", type=float, help="Seconds; the best plan so far is given.")
def main(path: Path, form: literature.Format, capacity: float | None, time_limit_s: float | None) -> None:
    """Solve a file of the literature; one JSON line with value, bound, gap and seconds."""
    try:
        click.echo(literature.report(path, form, capacity=capacity, time_limit_s=time_limit_s))
    except ValueError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
