"""The same world gives the same bytes, whatever Python's hash seed: plans can be replayed and compared."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAMME = """
import msgspec
from placement import engine
from placement.explain.model import explain_model
from tests.properties.worlds import a_world
for seed, size in ((1, 4), (2, 6), (3, 12)):
    problem = a_world(seed, clusters=size, models=size, cells=2 * size, most_devices=20)
    solution = engine.solve(problem)
    told = [explain_model(problem, solution, model.name) for model in problem.models]
    ready = {(one.model, one.pool): one.replicas for one in solution.replicas}
    print(msgspec.json.encode([solution, told, engine.route(problem, ready)]).decode())
"""


def test_plans_are_the_same_bytes_under_three_hash_seeds() -> None:
    """An engineer could not replay a decision, and two controllers would disagree on the same world."""
    answers = set()
    for seed in ("0", "1", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAMME], env=environment, capture_output=True, text=True, check=True, timeout=100
        )
        answers.add(done.stdout)
    assert len(answers) == 1
    assert len(answers.pop()) > 2_000, "there is something in it"
