"""Files of the literature on capacitated facility location, by the solver and the kernel that the engine has.

A warehouse is a pool of one device: opening it is starting one replica. A customer's demand may be split. That is what
the optima of OR-Library assume; those of Holmberg et al. are for customers that may not be split, so they are upper
bounds of ours.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from placement.exact import kernel_search
from placement.exact.kernel_search import Facility
from placement.highs import Found, Programme

Floats = NDArray[np.float64]

DATA = Path(__file__).parents[3] / "shared" / "data" / "facility-location"
"""Not part of the project: what uses it does without where it is not there."""
Format = Literal["cap", "holmberg"]
NODE_LIMIT = 1_000_000
SMALL_ARCS = 20_000
"""Up to so many the whole programme is searched to the end; of more, the kernel."""
KERNEL_ARCS = 10_000
PROVED = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A programme, and its columns that say which warehouses are open."""

    programme: Programme
    is_open: tuple[int, ...]
    facilities: tuple[Facility, ...]


def read(path: Path, form: Format, *, capacity: float | None = None) -> Instance:
    """The instance in a file. Args: capacity: of every warehouse, where the file has a word in its place.

    Raises: ValueError with what is wrong with the file.
    """
    words: list[str] = []
    try:
        words = path.read_text(encoding="ascii").replace("\0", " ").split()  # some are padded with zeros
        numbers = _cap(words, capacity) if form == "cap" else _holmberg(words)
        return _programme(*numbers)
    except IndexError:
        raise ValueError(f"{path}: no {form} file: it ends before its numbers do") from None
    except ValueError as error:
        hint = "; it names no capacities, give --capacity" if "capacity" in words and capacity is None else ""
        raise ValueError(f"{path}: no {form} file: {error}{hint}") from error


def small_optima() -> dict[str, float]:
    """File of OR-Library -> optimum, for the files that name their capacities."""
    rows = [line.split() for line in _optima_lines()]
    return {row[0]: float(row[1]) for row in rows if len(row) == 2 and row[0].startswith("cap")}


def large_optima() -> list[tuple[str, float, float]]:
    """(file of OR-Library, capacity of every warehouse, optimum) for the others."""
    found, name = [], ""
    for line in _optima_lines():
        words = line.replace("(capacity", "").replace(")", "").split()
        name = words[0] if words and words[0].startswith("cap") else name
        if line.endswith(")"):
            found.append((name, float(words[-1]), float(words[-2])))
    return found


def single_source_optima() -> list[float]:
    """Of each file of Holmberg et al., in order: the optimum when no customer may be split."""
    return [float(word) for word in (DATA / "holmberg" / "os.txt").read_text(encoding="ascii").split()]


def _optima_lines() -> list[str]:
    return [line.strip() for line in (DATA / "orlib_cap" / "capopt.txt").read_text(encoding="ascii").splitlines()]


def _cap(words: list[str], capacity: float | None) -> tuple[Floats, Floats, Floats, Floats]:
    """(capacities [W], opening costs [W], demands [C], costs of the whole demand [C, W])."""
    warehouses, customers = int(words[0]), int(words[1])
    pairs = words[2 : 2 + 2 * warehouses]
    widths = [float(word) if capacity is None or word != "capacity" else capacity for word in pairs[::2]]
    numbers = words[2 + 2 * warehouses :]
    if len(numbers) != customers * (warehouses + 1):
        raise ValueError(f"{customers * (warehouses + 1)} numbers should follow the warehouses, {len(numbers)} do")
    rest = np.array(numbers, dtype=float).reshape(customers, warehouses + 1)
    return np.array(widths), np.array(pairs[1::2], dtype=float), rest[:, 0], rest[:, 1:]


def _holmberg(words: list[str]) -> tuple[Floats, Floats, Floats, Floats]:
    warehouses, customers = int(words[0]), int(words[1])
    numbers = np.array(words[2:], dtype=float)
    pairs, rest = numbers[: 2 * warehouses], numbers[2 * warehouses :]
    costs = rest[customers : customers + warehouses * customers]  # some files have more after the last
    if len(costs) != warehouses * customers:
        raise ValueError(f"{warehouses * customers} costs should follow the demands, {len(costs)} do")
    return pairs[::2], pairs[1::2], rest[:customers], costs.reshape(warehouses, customers).T


def _programme(widths: Floats, opening: Floats, demands: Floats, costs: Floats) -> Instance:
    """Open warehouses and ways as a programme; a way's column is how much of the demand takes it."""
    warehouses, customers = len(widths), len(demands)
    if len(opening) != warehouses or costs.shape != (customers, warehouses):
        raise ValueError("the numbers are not as many as its first line says")
    if not customers or not (demands > 0.0).all():
        raise ValueError("a customer has no demand")
    if not all(np.isfinite(one).all() and (one >= 0.0).all() for one in (widths, opening, demands, costs)):
        raise ValueError("a number is negative or none at all")
    if widths.sum() < demands.sum():
        raise ValueError(f"warehouses of {widths.sum():g} in all cannot serve a demand of {demands.sum():g}")
    programme = Programme()
    is_open = [programme.column(float(usd), upper=1.0, integer=True) for usd in opening]
    into: list[dict[int, float]] = [{one: -float(width)} for one, width in zip(is_open, widths, strict=True)]
    for demand, usd in zip(demands, costs, strict=True):
        ways = [programme.column(float(one) / float(demand), upper=float(demand)) for one in usd]
        programme.row(dict.fromkeys(ways, 1.0), lower=float(demand), upper=float(demand))
        for way, terms in zip(ways, into, strict=True):
            terms[way] = 1.0
    facilities = [
        Facility(row=programme.row(terms, upper=0.0), arcs=tuple(terms)[1:], capacity={one: float(width)})
        for one, width, terms in zip(is_open, widths, into, strict=True)
    ]
    at_least = np.searchsorted(np.cumsum(np.sort(widths)[::-1]), float(demands.sum())) + 1
    programme.row(dict.fromkeys(is_open, 1.0), lower=float(at_least))
    return Instance(programme=programme, is_open=tuple(is_open), facilities=tuple(facilities))


def solve(instance: Instance, *, time_limit_s: float | None = None) -> Found | None:
    """The cheapest set of warehouses; None where none was found.

    A small one is proved, or the best within the time. Of a large one it is the best of its kernel.
    """
    tight = kernel_search.tighten(instance.programme, instance.facilities)
    if tight is None:
        return None
    ways = len(tight.bounds.arc)
    arcs = ways if ways <= SMALL_ARCS else KERNEL_ARCS
    return tight.search(arcs=arcs, gap=1e-9, node_limit=NODE_LIMIT, time_limit_s=time_limit_s)


def is_proved(found: Found) -> bool:
    """Whether nothing cheaper can be, to the solver's tolerance."""
    return found.objective - found.bound <= PROVED * abs(found.objective)


def report(path: Path, form: Format, *, capacity: float | None, time_limit_s: float | None) -> str:
    """One JSON line: value, bound, gap and seconds.

    Raises: ValueError when the file cannot be read, or nothing is found in the time.
    """
    instance = read(path, form, capacity=capacity)
    begun_s = time.perf_counter()
    found = solve(instance, time_limit_s=time_limit_s)
    taken_s = time.perf_counter() - begun_s
    if found is None:
        raise ValueError(f"{path}: nothing was found in {taken_s:.1f} s; give it more with --time-limit")
    line = {
        "instance": path.stem,
        "value": round(found.objective, 6),
        "bound": round(found.bound, 6),
        "gap": (found.objective - found.bound) / abs(found.objective),
        "is_proved": is_proved(found),
        "open": int(sum(found.values[one] > 0.5 for one in instance.is_open)),
        "seconds": round(taken_s, 3),
    }
    return json.dumps(line)
