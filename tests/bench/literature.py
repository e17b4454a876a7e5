"""Files of the literature on capacitated facility location, as instances of the engine's own.

A warehouse is a pool of one device with one option; opening it is starting one replica. A customer is a group, which
may be split over warehouses. That is what the optima of OR-Library assume; those of Holmberg et al. are for customers
that may not be split, so they are upper bounds of ours.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Literal

import numpy as np

from placement import relax
from placement.instance import Floats, Instance

Format = Literal["cap", "holmberg"]
NODE_LIMIT = 1_000_000
UNSERVED_TIMES = 100.0
"""An unserved unit costs so many times the dearest warehouse and way: nothing that can be served is left."""


def read(path: Path, form: Format, *, capacity: float | None = None) -> Instance:
    """The instance in a file. Args: capacity: of every warehouse, where the file has a word in its place.

    Raises: ValueError with what is wrong with the file.
    """
    words = path.read_text(encoding="ascii").replace("\0", " ").split()  # some are padded with zeros
    try:
        return _instance(*(_cap(words, capacity) if form == "cap" else _holmberg(words)))
    except (IndexError, ValueError) as error:
        hint = "; it names no capacities, give --capacity" if "capacity" in words and capacity is None else ""
        raise ValueError(f"{path}: no {form} file: {error}{hint}") from error


def _cap(words: list[str], capacity: float | None) -> tuple[Floats, Floats, Floats, Floats]:
    """(capacities [W], opening costs [W], demands [C], costs of the whole demand [C, W])."""
    warehouses, customers = int(words[0]), int(words[1])
    pairs = words[2 : 2 + 2 * warehouses]
    widths = [float(word) if capacity is None or word != "capacity" else capacity for word in pairs[::2]]
    rest = np.array(words[2 + 2 * warehouses :], dtype=float).reshape(customers, warehouses + 1)
    return np.array(widths), np.array(pairs[1::2], dtype=float), rest[:, 0], rest[:, 1:]


def _holmberg(words: list[str]) -> tuple[Floats, Floats, Floats, Floats]:
    warehouses, customers = int(words[0]), int(words[1])
    numbers = np.array(words[2:], dtype=float)
    pairs, rest = numbers[: 2 * warehouses], numbers[2 * warehouses :]
    costs = rest[customers : customers + warehouses * customers]  # some files have more after the last
    return pairs[::2], pairs[1::2], rest[:customers], costs.reshape(warehouses, customers).T


def _instance(widths: Floats, opening: Floats, demands: Floats, costs: Floats) -> Instance:
    warehouses, customers = len(widths), len(demands)
    if len(opening) != warehouses or costs.shape != (customers, warehouses):
        raise ValueError("the numbers are not as many as its first line says")
    zeros, ones = np.zeros(warehouses, np.int64), np.ones(warehouses, np.int64)
    demand = np.maximum(demands, 1e-9)
    unit = costs / demand[:, None]
    unserved = UNSERVED_TIMES * (unit.max() + opening.max())
    return Instance(
        pool_devices=ones,
        option_model=zeros,
        option_pool=np.arange(warehouses),
        option_node=np.arange(warehouses),
        option_region=zeros,
        option_spot=zeros,
        option_devices=ones,
        option_rps=widths,
        option_usd=opening,
        option_start_usd=np.zeros(warehouses),
        option_current=zeros,
        option_least=zeros,
        option_most=ones,
        node_model=zeros,
        node_region=zeros,
        group_model=np.zeros(customers, np.int64),
        group_class=np.zeros(customers, np.int64),
        group_rps=demand,
        group_unserved_usd=np.full(customers, unserved),
        arc_start=np.arange(0, customers * warehouses + 1, warehouses),
        arc_node=np.tile(np.arange(warehouses), customers),
        arc_usd=unit.reshape(-1),
        arc_most=np.repeat(demand, warehouses),
        model_min_replicas=np.zeros(1, np.int64),
        model_min_regions=np.zeros(1, np.int64),
        model_spot_fraction=np.ones(1),
    )


def solve(instance: Instance, *, time_limit_s: float | None = None) -> relax.Relaxed:
    """The cheapest set of warehouses: proved, or the best within the time."""
    return relax.solve(instance, integer=True, tight=True, gap=1e-9, node_limit=NODE_LIMIT, time_limit_s=time_limit_s)


def report(path: Path, form: Format, *, capacity: float | None, time_limit_s: float | None) -> str:
    """One JSON line: value, bound, gap and seconds. Raises: ValueError when the file cannot be read."""
    instance = read(path, form, capacity=capacity)
    begun_s = time.perf_counter()
    answer = solve(instance, time_limit_s=time_limit_s)
    taken_s = time.perf_counter() - begun_s
    is_found = len(answer.replicas) > 0 and math.isfinite(answer.objective)
    line = {
        "instance": path.stem,
        "value": round(answer.objective, 6) if is_found else None,
        "bound": round(answer.bound, 6) if math.isfinite(answer.bound) else None,
        "gap": (answer.objective - answer.bound) / abs(answer.objective) if is_found else None,
        "is_proved": answer.is_proved,
        "open": int((answer.replicas > 0.5).sum()) if is_found else None,
        "seconds": round(taken_s, 3),
    }
    return json.dumps(line)
