"""How well round trips are known that nobody measured: real matrices of which a part is shown.

(a) a part of the pairs is shown, the rest predicted; (b) some places are clusters with a full mesh, the others users
of whom few clusters are measured. Errors leave out what was shown. Regret: how much slower than the truly nearest the
cluster is that is taken for the nearest, in milliseconds.

`python -m tests.bench.latency --matrix FILE --places FILE` takes any matrix (CSV `src,dst,rtt_ms`; `name,lat,lon`).
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from federation.control import latency as controller
from federation.latency import public
from federation.latency.estimator import NO_PRIOR, Estimator, Fleet, Pairs, Prior
from federation.latency.line import Line, fit
from federation.latency.sphere import Vectors, between_km, on_the_sphere, paired_km
from federation.resources import configs
from tests.bench import vivaldi

Floats = NDArray[np.float64]
Sites = NDArray[np.int64]
Result = dict[str, object]
DATA = Path(__file__).parents[3] / "shared" / "data"
SEEDS = 10
SHOWN = (0.02, 0.05, 0.10, 0.20)
CLUSTERS = (10, 20, 40)
NEAREST = 6
LIES: tuple[tuple[str, Callable[[Floats], Floats]], ...] = (
    ("1 ms", lambda ms: np.full_like(ms, 1.0)),
    ("10 s", lambda ms: np.full_like(ms, 10_000.0)),
    ("x 0.1", lambda ms: ms * 0.1),
    ("x 0.5", lambda ms: ms * 0.5),
)


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """`rtt_ms` [places, places], NaN where unknown; `prior` is what may be known beforehand of other places."""

    name: str
    at: Vectors
    rtt_ms: Floats
    prior: Prior = NO_PRIOR

    def line(self, km: Floats, rtt_ms: Floats) -> Line:
        """Fitted to measurements, by what may be known beforehand."""
        known = self.prior.pairs
        before = fit(paired_km(self.prior.at[known.one], self.prior.at[known.other]), known.rtt_ms)
        return fit(km, rtt_ms, before)


def read(matrix: Path, places: Path, prior: Prior = NO_PRIOR) -> Matrix:
    """A matrix from two CSV files; of both directions the smaller."""
    with places.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    number = {row["name"]: at for at, row in enumerate(rows)}
    at = on_the_sphere([(float(row["lat"]), float(row["lon"])) for row in rows])
    rtt_ms = np.full((len(rows), len(rows)), np.nan)
    with matrix.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            one, other = number[row["src"]], number[row["dst"]]
            if one != other:
                rtt_ms[one, other] = np.fmin(rtt_ms[one, other], float(row["rtt_ms"]))
    return Matrix(name=matrix.stem, at=at, rtt_ms=np.fmin(rtt_ms, rtt_ms.T), prior=prior)


def shipped(*names: str) -> Prior:
    """Public meshes that the product ships: what is tested on one may know the others."""
    return public.read((configs() / "latency" / f"{name}.yaml").read_text(encoding="utf-8") for name in names)


def aws(prior: Prior = NO_PRIOR) -> Matrix:
    """The matrix of the regions of one cloud."""
    with (DATA / "regions" / "cloud_regions.csv").open(newline="", encoding="utf-8") as file:
        places = {row["region"]: row for row in csv.DictReader(file) if row["provider"] == "aws"}
    data = json.loads((DATA / "latency" / "aws_cloudping_p50_1y.json").read_text(encoding="utf-8"))["data"]
    names = sorted(name for name in data if name in places)
    at = on_the_sphere([(float(places[name]["lat"]), float(places[name]["lon"])) for name in names])
    rtt_ms = np.array([[data[one].get(other, np.nan) for other in names] for one in names], np.float64)
    np.fill_diagonal(rtt_ms, np.nan)
    return Matrix(name="aws", at=at, rtt_ms=np.fmin(rtt_ms, rtt_ms.T), prior=prior)


def pairs_of(rtt_ms: Floats) -> tuple[Sites, Sites]:
    """Every known pair once."""
    one, other = np.triu_indices(len(rtt_ms), 1)
    known = ~np.isnan(rtt_ms[one, other])
    return one[known], other[known]


def latency() -> Iterator[Result]:
    """Both data sets, lies, and the size at which it must work."""
    if not DATA.exists():
        yield {"skipped": f"no data at {DATA.name}"}
        return
    folder = DATA / "latency"
    yield from of_matrix(read(folder / "cities_rtt.csv", folder / "cities_places.csv", shipped("aws")))
    yield from of_matrix(aws(shipped("cities")))
    yield from at_size()


def of_matrix(matrix: Matrix) -> Iterator[Result]:
    """All of one matrix."""
    yield from shown(matrix)
    yield from from_clusters(matrix)
    yield from lies(matrix)


# ---- (a)


def shown(matrix: Matrix) -> Iterator[Result]:
    """A part of the pairs is shown."""
    one, other = pairs_of(matrix.rtt_ms)
    truth = matrix.rtt_ms[one, other]
    for part in SHOWN:
        found: dict[str, list[tuple[float, ...]]] = {}
        for seed in range(SEEDS):
            order = np.random.default_rng(seed).permutation(len(truth))
            seen, hidden = np.split(order, [round(part * len(truth))])
            data = Pairs(one=one[seen], other=other[seen], rtt_ms=truth[seen])
            where = one[hidden], other[hidden]
            for name, predicted in _all_pairs(matrix, data, where, seed):
                found.setdefault(name, []).append(_error(predicted, truth[hidden]))
        yield from _rows(found, matrix=matrix.name, shown=part)


def _all_pairs(matrix: Matrix, data: Pairs, where: tuple[Sites, Sites], seed: int) -> Iterator[tuple[str, Floats]]:
    km = paired_km(matrix.at[data.one], matrix.at[data.other])
    far_km = paired_km(matrix.at[where[0]], matrix.at[where[1]])
    yield "distance", matrix.line(km, data.rtt_ms).at(far_km)
    springs = vivaldi.fit(len(matrix.at), data.one, data.other, data.rtt_ms, seed)
    yield "vivaldi", springs.between(*where)
    yield "controller", controller.BASE_RTT_MS + controller.RTT_MS_PER_KM * far_km
    yield "ours", Fleet(clusters=matrix.at, between=data, prior=matrix.prior).between_clusters(*where)


# ---- (b)


def from_clusters(matrix: Matrix) -> Iterator[Result]:
    """Some places are clusters, the others users."""
    for count in (count for count in CLUSTERS if count < len(matrix.at)):
        for measured in (0, 1, 3):
            found: dict[str, list[tuple[float, ...]]] = {}
            for seed in range(SEEDS):
                for name, figures in _one_draw(matrix, count, measured, seed):
                    found.setdefault(name, []).append(figures)
            yield from _rows(found, matrix=matrix.name, clusters=count, measured=measured)
        found = {"distance": [], "asked": []}
        for seed in range(SEEDS):
            draw = Draw(matrix, count, seed)
            asked = draw.asked(3)
            found["asked"].append(draw.figures(asked.rtt_ms().astype(np.float64), ~np.isnan(asked.measured_ms)))
            found["distance"].append(draw.figures(draw.by_distance(), ~np.isnan(asked.measured_ms)))
        yield from _rows(found, matrix=matrix.name, clusters=count, measured="3 asked for")


class Draw:
    """Which places are clusters, for one seed."""

    def __init__(self, matrix: Matrix, count: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        order = self.rng.permutation(len(matrix.at))
        self.clusters, self.users = np.sort(order[:count]), np.sort(order[count:])
        self.at_clusters, self.at_users = matrix.at[self.clusters], matrix.at[self.users]
        one, other = pairs_of(matrix.rtt_ms[np.ix_(self.clusters, self.clusters)])
        between_ms = matrix.rtt_ms[self.clusters[one], self.clusters[other]]
        self.between = Pairs(one=one, other=other, rtt_ms=between_ms)
        self.truth = matrix.rtt_ms[np.ix_(self.users, self.clusters)]
        self.km = between_km(self.at_users, self.at_clusters)
        self.prior, self.line = matrix.prior, matrix.line

    def by_distance(self) -> Floats:
        """[users, clusters] by a line."""
        km = paired_km(self.at_clusters[self.between.one], self.at_clusters[self.between.other])
        return self.line(km, self.between.rtt_ms).at(self.km)

    def measured(self, each: int) -> Pairs:
        """So many of each user, drawn among the nearest."""
        users, clusters = [], []
        for user, km in enumerate(self.km):
            near = [at for at in np.argsort(km).tolist() if not np.isnan(self.truth[user, at])][:NEAREST]
            drawn = self.rng.permutation(near)[:each].tolist()
            users += [user] * len(drawn)
            clusters += drawn
        return self.pairs(np.array(users, np.int64), np.array(clusters, np.int64))

    def pairs(self, users: Sites, clusters: Sites) -> Pairs:
        """The true round trips of these, where known."""
        known = ~np.isnan(self.truth[users, clusters])
        users, clusters = users[known], clusters[known]
        return Pairs(one=users, other=clusters, rtt_ms=self.truth[users, clusters])

    def estimator(self, own: Pairs, between: Pairs | None = None, *, check_sources: bool = True) -> Estimator:
        """Ours."""
        fleet = Fleet(
            clusters=self.at_clusters,
            users=self.at_users,
            between=self.between if between is None else between,
            own=own,
            prior=self.prior,
            check_sources=check_sources,
        )
        return Estimator(fleet, own)

    def asked(self, rounds: int) -> Estimator:
        """Ours, with measurements that it asked for: one of each user in each round."""
        users, own = np.arange(len(self.users)), self.pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
        made = self.estimator(own)
        for _ in range(rounds):
            made.measured_ms[np.isnan(self.truth)] = np.inf  # nobody can measure what the matrix lacks
            more = self.pairs(users, made.ask())
            own = Pairs(
                one=np.concatenate([own.one, more.one]),
                other=np.concatenate([own.other, more.other]),
                rtt_ms=np.concatenate([own.rtt_ms, more.rtt_ms]),
            )
            made = self.estimator(own)
        return made

    def figures(self, rtt_ms: Floats, was_shown: NDArray[np.bool_]) -> tuple[float, ...]:
        """Median and 90th percentile of relative error in %, and mean regret in ms."""
        hidden = ~np.isnan(self.truth) & ~was_shown
        taken = np.where(np.isnan(self.truth), np.inf, rtt_ms).argmin(axis=1)
        some = ~np.isnan(self.truth).all(axis=1)
        best = np.nanmin(self.truth[some], axis=1)
        regret = float((self.truth[some, taken[some]] - best).mean())
        return (*_error(rtt_ms[hidden], self.truth[hidden]), regret)


def _one_draw(matrix: Matrix, count: int, measured: int, seed: int) -> Iterator[tuple[str, tuple[float, ...]]]:
    draw = Draw(matrix, count, seed)
    own = draw.measured(measured)
    was_shown = np.zeros(draw.truth.shape, dtype=bool)
    was_shown[own.one, own.other] = True

    def figures(rtt_ms: Floats) -> tuple[float, ...]:
        rtt_ms = rtt_ms.copy()
        rtt_ms[own.one, own.other] = own.rtt_ms
        return draw.figures(rtt_ms, was_shown)

    yield "distance", draw.figures(draw.by_distance(), was_shown)
    springs = vivaldi.fit(
        count + len(draw.users),
        np.concatenate([draw.between.one, own.one + count]),
        np.concatenate([draw.between.other, own.other]),
        np.concatenate([draw.between.rtt_ms, own.rtt_ms]),
        seed,
    )
    users, clusters = np.indices(draw.truth.shape).reshape(2, -1)
    yield "vivaldi", figures(springs.between(users + count, clusters).reshape(draw.truth.shape))
    yield "controller", figures(_controllers(draw))
    yield "ours", figures(draw.estimator(own).rtt_ms().astype(np.float64))


def _controllers(draw: Draw) -> Floats:
    """What the nearest cluster measured, with the way there by distance."""
    told = np.full((len(draw.clusters),) * 2, np.nan)
    told[draw.between.one, draw.between.other] = draw.between.rtt_ms
    told = np.fmin(told, told.T)
    near = draw.km.argmin(axis=1)
    ways = controller.BASE_RTT_MS + controller.RTT_MS_PER_KM * draw.km
    through = told[near] + np.take_along_axis(ways, near[:, None], axis=1)
    return np.where(np.isnan(through), ways, through)


# ---- lies


def lies(matrix: Matrix) -> Iterator[Result]:
    """One of 20 clusters falsifies what is measured from and to it: users drawn, beside its honest share; and how many
    honest clusters are refused."""
    count = 20
    honest, refused = [], 0
    drawn: dict[str, list[float]] = {name: [] for name, _ in LIES}
    unchecked: dict[str, list[float]] = {name: [] for name, _ in LIES}
    caught: dict[str, int] = dict.fromkeys(drawn, 0)
    wrongly: dict[str, int] = dict.fromkeys(drawn, 0)
    none = Pairs.none()
    for seed in range(SEEDS):
        draw = Draw(matrix, count, seed)
        own = draw.pairs(none.one, none.other)
        made = draw.estimator(own)
        refused += len(made.fleet.refused)
        shares = np.bincount(made.rtt_ms().argmin(axis=1), minlength=count) / len(draw.users)
        for liar in range(0, count, 4):
            honest.append(float(shares[liar]))
            mine = (draw.between.one == liar) | (draw.between.other == liar)
            for name, lie in LIES:
                ms = np.where(mine, lie(draw.between.rtt_ms), draw.between.rtt_ms)
                between = Pairs(one=draw.between.one, other=draw.between.other, rtt_ms=ms)
                made = draw.estimator(own, between)
                drawn[name].append(float((made.rtt_ms().argmin(axis=1) == liar).mean()))
                caught[name] += any(one.site == liar for one in made.fleet.refused)
                wrongly[name] += sum(one.site != liar for one in made.fleet.refused)
                made = draw.estimator(own, between, check_sources=False)
                unchecked[name].append(float((made.rtt_ms().argmin(axis=1) == liar).mean()))
    trials = len(honest)
    yield {"matrix": matrix.name, "lie": "none", "honest_refused_%": 100 * refused / (SEEDS * count)}
    for name, _ in LIES:
        yield {
            "matrix": matrix.name,
            "lie": name,
            "drawn_%": round(100 * float(np.mean(drawn[name])), 2),
            "honest_%": round(100 * float(np.mean(honest)), 2),
            "unchecked_%": round(100 * float(np.mean(unchecked[name])), 2),
            "caught_%": round(100 * caught[name] / trials, 1),
            "honest_refused_%": round(100 * wrongly[name] / (trials * (count - 1)), 2),
        }


# ---- size


def at_size(clusters: int = 1000, users: int = 10_000, peers: int = 64, each: int = 3) -> Iterator[Result]:
    """Processor time and memory for a made-up fleet, in full and for one user."""
    rng = np.random.default_rng(1)
    at = rng.normal(size=(clusters + users, 3))
    at /= np.linalg.norm(at, axis=1)[:, None]
    one = np.repeat(np.arange(clusters), peers)
    other = (one + rng.integers(1, clusters, len(one))) % clusters
    between = Pairs(one=one, other=other, rtt_ms=_made_up(at[one], at[other], rng))
    who = np.repeat(np.arange(users), each)
    whom = np.argpartition(-(at[clusters:] @ at[:clusters].T), each, axis=1)[:, :each].ravel()
    own = Pairs(one=who, other=whom, rtt_ms=_made_up(at[clusters + who], at[whom], rng))
    before_mib = _peak_mib()
    begun_s = time.process_time()
    made = Estimator(Fleet(clusters=at[:clusters], users=at[clusters:], between=between, own=own), own)
    size: Result = {"clusters": clusters, "users": users, "measurements": len(one) + len(who)}
    yield {**size, "full_s": round(time.process_time() - begun_s, 2), "more_mib": round(_peak_mib() - before_mib)}
    begun_s, turns = time.process_time(), 200
    for user in range(turns):
        made.tell(user, whom[each * user : each * (user + 1)], own.rtt_ms[each * user : each * (user + 1)] * 1.1)
    yield {**size, "user_ms": round(1000 * (time.process_time() - begun_s) / turns, 3)}


def _made_up(one: Vectors, other: Vectors, rng: np.random.Generator) -> Floats:
    km = paired_km(one, other)
    return np.maximum(0.0105 * km + 0.5, (5.0 + 0.016 * km) * np.exp(rng.normal(0.0, 0.2, len(km))))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ---- figures


def _error(predicted: Floats, truth: Floats) -> tuple[float, float]:
    part = 100 * np.abs(predicted - truth) / truth
    return float(np.median(part)), float(np.percentile(part, 90))


def _rows(found: dict[str, list[tuple[float, ...]]], **what: object) -> Iterator[Result]:
    """Means over seeds, and on how many of them ours is below all others."""
    names = ("median_%", "p90_%", "regret_ms")
    ours = np.array(found.get("ours", found.get("asked")))
    others = np.array([rows for name, rows in found.items() if name not in ("ours", "asked")])
    for name, rows in found.items():
        mean = np.array(rows).mean(axis=0)
        row: Result = {**what, "by": name, **{key: round(float(x), 2) for key, x in zip(names, mean, strict=False)}}
        if name in ("ours", "asked"):
            best = (ours < others.min(axis=0)).sum(axis=0)
            row["best_on"] = dict(zip(names, best.tolist(), strict=False))
            row["seeds"] = len(rows)
            if len(mean) > 2:
                row["regret_of_distance"] = round(float(mean[2] / np.array(found["distance"]).mean(axis=0)[2]), 3)
        yield row


def main() -> None:
    """Of files that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--matrix", type=Path, required=True)
    parser.add_argument("--places", type=Path, required=True)
    parser.add_argument(
        "--public", default="aws,cities", help="public meshes that may be known beforehand; empty: none (aws,cities)"
    )
    asked = parser.parse_args()
    prior = shipped(*filter(None, asked.public.split(",")))
    for row in of_matrix(read(asked.matrix, asked.places, prior)):
        print(json.dumps({"case": "latency", **row}), flush=True)


if __name__ == "__main__":
    main()
