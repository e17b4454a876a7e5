"""`python -m tests.sim --seeds 100 --jobs 2` runs hostile stories; `--seed 17` runs one of them again."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.sim import hostile
from tests.sim.loop import SimLoop
from tests.sim.quiet import quiet

FEW = 50
"""So many seeds are told one by one."""
EVERY_S = 10.0
"""Between two lines of progress."""


def run(seed: int) -> tuple[hostile.Figures | None, str]:
    """One story in a loop of its own; its figures, or what was broken."""
    with tempfile.TemporaryDirectory() as directory, quiet(), asyncio.Runner(loop_factory=SimLoop) as runner:
        try:
            return runner.run(hostile.story(seed, Path(directory))), ""
        except Exception as error:  # a story that ends otherwise than by the oracle has failed too
            text = str(error)
            line = hostile.reproduction(seed)
            return None, text if line in text else f"{type(error).__name__}: {text}\nreproduce: {line}"


def results(seeds: list[int], jobs: int) -> Iterator[tuple[int, hostile.Figures | None, str]]:
    """Each story as it ends."""
    if jobs == 1:
        for seed in seeds:
            yield seed, *run(seed)
        return
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        going = {pool.submit(run, seed): seed for seed in seeds}
        for done in as_completed(going):
            yield going[done], *done.result()


def main() -> int:
    """Exit code 1 when a story failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="run this one")
    which.add_argument("--seeds", type=int, help="run so many")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (1)")
    asked = parser.parse_args()
    seeds = [asked.seed] if asked.seed is not None else list(range(asked.first, asked.first + asked.seeds))
    started_s = told_s = time.monotonic()
    figures: list[hostile.Figures] = []
    failed: list[int] = []
    for seed, found, broken in results(seeds, asked.jobs):
        if found is not None:
            figures.append(found)
            if len(seeds) <= FEW:
                print(f"seed {seed}: {found.took_s:.2f} s, {found.stops} stops, {found.said}", flush=True)
        else:
            failed.append(seed)
            print(f"seed {seed} FAILED: {broken}\n", flush=True)
        if time.monotonic() - told_s >= EVERY_S:
            told_s = time.monotonic()
            mean_s = sum(one.took_s for one in figures) / max(1, len(figures))
            text = f"{len(figures) + len(failed)} of {len(seeds)} seeds, {len(failed)} failed"
            print(f"{text}, {mean_s:.2f} s of the processor each", flush=True)
    took = sorted(one.took_s for one in figures) or [0.0]
    dearest = sorted(figures, key=lambda one: -one.took_s)[:3]
    print(
        f"{len(seeds)} seeds, {len(failed)} failed, in {time.monotonic() - started_s:.1f} s with {asked.jobs} jobs; "
        f"seconds of the processor per seed: mean {sum(took) / len(took):.2f}, half of them up to "
        f"{took[len(took) // 2]:.2f}, most {', '.join(f'{one.took_s:.2f} ({one.seed})' for one in dearest)}; "
        f"{sum(one.stops for one in figures)} orders that stop ready replicas, "
        f"{sum(one.ordered for one in figures)} of them a person's, "
        f"{sum(one.braked_s for one in figures)} s braked, {sum(one.refused for one in figures)} messages refused"
    )
    for seed in sorted(failed):
        print(f"reproduce: {hostile.reproduction(seed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
