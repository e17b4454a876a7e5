"""Random small worlds for the engine, by seed: the same seed is the same world on any machine."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from msgspec import structs

from placement.problem import (
    Budget,
    Cell,
    Cluster,
    Demand,
    Domain,
    Intake,
    MaxPart,
    Model,
    Path,
    Pin,
    Placed,
    Pool,
    Problem,
    Residency,
    Room,
    Shape,
)

PRODUCTS = ("A", "B")
COUNTRIES = ("DE", "US")
JURISDICTIONS = ("EU", "US")


def a_world(seed: int, *, clusters: int = 4, models: int = 2, cells: int = 3, most_devices: int = 4) -> Problem:
    """A world with up to this many of everything; some rules are tight, some cannot be held."""
    rng = random.Random(seed)
    members = tuple(_cluster(rng, number) for number in range(rng.randint(1, clusters)))
    pools = tuple(pool for member in members for pool in _pools(rng, member, most_devices))
    served = tuple(_model(rng, number, members) for number in range(rng.randint(1, models)))
    places = tuple(Cell(name=f"cell-{n}", country=rng.choice(COUNTRIES)) for n in range(rng.randint(1, cells)))
    current = _current(rng, served, pools)
    members, places, served = _continents(random.Random(-seed - 100_000), members, places, served)
    return Problem(
        clusters=members,
        pools=pools,
        models=served,
        cells=places,
        demands=tuple(
            Demand(model=model.name, cell=cell.name, requests_per_second=round(rng.uniform(0, 25), 2))
            for model in served
            for cell in places
            if rng.random() < 0.8
        ),
        paths=tuple(
            Path(cell=cell.name, cluster=member.name, rtt_ms=round(rng.uniform(1, 200), 1))
            for cell in places
            for member in members
            if rng.random() < 0.9
        ),
        current=current,
        room=_room(random.Random(-seed - 1), served, pools, current),
    )


def a_harder_world(
    seed: int,
    *,
    floors: bool = True,
    clusters: int = 4,
    models: int = 2,
    cells: int = 3,
    most_devices: int = 4,
) -> Problem:
    """The same with priorities, caps and shortages. Args: floors: and with survival, other floors and budgets."""
    problem = a_world(seed, clusters=clusters, models=models, cells=cells, most_devices=most_devices)
    rng, of_budgets = random.Random(7 * seed + 3), random.Random(-7 * seed - 3)
    harder = [_harder(rng, one) for one in problem.models]
    harder = [replace(one, max_starts=of_budgets.choice((one.max_starts, None, 0, 2))) for one in harder]
    times = rng.choice((1.0, 1.0, 3.0, 0.3))
    made = replace(
        problem,
        models=tuple(harder),
        demands=tuple(
            structs.replace(one, requests_per_second=times * one.requests_per_second) for one in problem.demands
        ),
        move_horizon_h=rng.choice((1.0, 24.0)),
    )
    return made if floors else without_floors(made)


def a_limited_world(
    seed: int,
    *,
    floors: bool = True,
    clusters: int = 4,
    models: int = 2,
    cells: int = 3,
    most_devices: int = 4,
) -> Problem:
    """A harder world with the most replicas of some models, and budgets that models share; some leave no room for what
    is held, or for a floor."""
    problem = a_harder_world(
        seed, floors=floors, clusters=clusters, models=models, cells=cells, most_devices=most_devices
    )
    rng = random.Random(11 * seed + 5)
    names = [model.name for model in problem.models]
    shared = (tuple(names),) if rng.random() < 0.6 else tuple((name,) for name in names)
    return replace(
        problem,
        models=tuple(replace(one, max_replicas=rng.choice((None, None, 0, 1, 2, 4))) for one in problem.models),
        budgets=tuple(
            Budget(name=f"budget-{at}", models=models, usd_per_hour=rng.choice((0.0, 0.5, 2.0, 5.0, 12.0)))
            for at, models in enumerate(shared)
            if rng.random() < 0.8
        ),
    )


def a_spread_world(seed: int, **size: int) -> Problem:
    """A world of equal priorities, where of some models no region, zone or provider may hold more than a part."""
    problem = a_world(seed, **size)
    rng = random.Random(13 * seed + 9)
    kinds: tuple[Domain, ...] = ("region", "zone", "provider")
    parts = [MaxPart(domain=rng.choice(kinds), fraction=rng.choice((0.34, 0.5, 0.6, 0.75))) for _ in problem.models]
    return replace(
        problem,
        models=tuple(
            replace(one, max_part=part if rng.random() < 0.8 else None)
            for one, part in zip(problem.models, parts, strict=True)
        ),
    )


def a_world_in_time(seed: int) -> Problem:
    """One model over some regions, zones and providers, each cell in time of some: to be so whatever domain is lost."""
    rng = random.Random(17 * seed + 11)
    members = tuple(
        Cluster(name=f"cluster-{n}", provider=rng.choice("pqr"), region=f"region-{n % 4}", zone=rng.choice("ab"))
        for n in range(rng.randint(3, 5))
    )
    cells = tuple(Cell(name=f"cell-{n}", country="DE") for n in range(rng.randint(2, 5)))
    model = Model(
        name="model",
        shapes=(Shape(product="A", devices=1, requests_per_second=rng.choice((4.0, 6.0))),),
        objective_ms=120.0,
        late_usd_per_1000=0.5,
        unserved_usd_per_1000=20.0,
        survive=rng.choice(("region", "zone", "provider")),
        survive_fraction=rng.choice((0.2, 0.6)),
        survive_within_fraction=rng.choice((0.5, 0.8, 1.0)),
        max_part=rng.choice((None, None, MaxPart(domain="region", fraction=0.5))),
        spot_max_fraction=rng.choice((1.0, 0.5)),
    )
    pools = tuple(
        Pool(
            cluster=one.name,
            product="A",
            market=rng.choice(("on-demand", "spot")),
            vram_gib=24,
            devices=rng.randint(1, 4),
            usd_per_device_hour=round(rng.uniform(0.5, 3.0), 2),
        )
        for one in members
    )
    return Problem(
        clusters=members,
        pools=pools,
        models=(model,),
        cells=cells,
        demands=tuple(
            Demand(model="model", cell=one.name, requests_per_second=round(rng.uniform(0.5, 4.0), 2)) for one in cells
        ),
        paths=tuple(
            Path(cell=cell.name, cluster=one.name, rtt_ms=round(rng.uniform(10, 190), 1))
            for cell in cells
            for one in members
        ),
    )


def without_floors(problem: Problem) -> Problem:
    """The same world, where price alone decides, and all may be started."""
    free: dict[str, Any] = {
        "min_replicas": 0,
        "min_regions": 0,
        "min_on_demand": 0,
        "survive": None,
        "survive_within_fraction": 0.0,
        "max_part": None,
        "target_fraction": 0.0,
        "pins": (),
        "max_starts": None,
    }
    return replace(problem, models=tuple(replace(model, **free) for model in problem.models))


def _harder(rng: random.Random, model: Model) -> Model:
    cap = model.other_continents_max_fraction
    return replace(
        model,
        priority=rng.choice((0, 0, 1, 2, 5)),
        move_usd=rng.choice((model.move_usd, 3.0)),
        survive=rng.choice((model.survive, None, "region", "zone", "provider")),
        other_continents_max_fraction=rng.choice((cap, cap, cap, 0.3, 0.0)),
        spot_max_fraction=rng.choice((model.spot_max_fraction, 0.33)),
        min_replicas=rng.choice((model.min_replicas, 2)),
    )


def _cluster(rng: random.Random, number: int) -> Cluster:
    intake = rng.choices(list(Intake), weights=[7, 1, 1, 1])[0]
    return Cluster(
        name=f"cluster-{number}",
        provider=rng.choice(("p", "q")),
        region=f"region-{rng.randint(0, 2)}",
        zone=rng.choice(("", "a", "b")),
        egress_usd_per_gib=rng.choice((0.0, 0.05, 0.12)),
        jurisdictions=(rng.choice(JURISDICTIONS),),
        intake=intake,
        reachable=intake is not Intake.HELD or rng.random() < 0.5,
    )


def _pools(rng: random.Random, member: Cluster, most_devices: int) -> list[Pool]:
    return [
        Pool(
            cluster=member.name,
            product=product,
            market="spot" if spot else "on-demand",
            vram_gib=rng.choice((16.0, 24.0)),
            devices=rng.randint(0, most_devices),
            usd_per_device_hour=round(rng.uniform(0.1, 3.0), 2),
        )
        for product in PRODUCTS
        for spot in (False, True)
        if rng.random() < 0.45
    ]


def _model(rng: random.Random, number: int, members: tuple[Cluster, ...]) -> Model:
    shapes = tuple(
        Shape(
            product=product,
            devices=rng.choice((1, 1, 2)),
            min_vram_gib=rng.choice((0.0, 20.0)),
            requests_per_second=rng.choice((4.0, 10.0)),
        )
        for product in PRODUCTS
        if rng.random() < 0.8
    )
    residency = (Residency(countries=("DE",), jurisdictions=("EU",)),) if rng.random() < 0.4 else ()
    return Model(
        name=f"model-{number}",
        shapes=shapes or (Shape(product="A", devices=1, requests_per_second=4.0),),
        objective_ms=rng.choice((60.0, 120.0, 250.0)),
        service_latency_ms=20.0,
        target_utilisation=rng.choice((0.8, 1.0)),
        late_usd_per_1000=rng.choice((0.0, 0.2, 2.0)),
        unserved_usd_per_1000=rng.choice((0.05, 5.0, 20.0)),
        move_usd=rng.choice((0.0, 0.1)),
        warmup_s=rng.choice((0.0, 300.0)),
        max_starts=rng.choice((None, None, None, 1, 3)),
        response_kib=rng.choice((0.0, 4.0, 2000.0)),
        min_replicas=rng.choice((0, 0, 1, 3)),
        min_on_demand=rng.choice((0, 0, 0, 1)),
        survive=rng.choice((None,) * 9 + ("region", "zone", "provider")),
        survive_fraction=rng.choice((1.0, 0.5, 0.1)),
        pins=(Pin(cluster=rng.choice(members).name, replicas=1),) if rng.random() < 0.1 else (),
        min_regions=rng.choice((0, 0, 1, 2)),
        spot_max_fraction=rng.choice((1.0, 1.0, 0.5, 0.0)),
        residency=residency,
    )


def _continents(
    rng: random.Random, members: tuple[Cluster, ...], places: tuple[Cell, ...], models: tuple[Model, ...]
) -> tuple[tuple[Cluster, ...], tuple[Cell, ...], tuple[Model, ...]]:
    """Who is on which continent, of some it is not known; some models let other continents serve a part, or nothing."""
    return (
        tuple(replace(one, continent=rng.choice(("EU", "EU", "EU", "NA", "NA", ""))) for one in members),
        tuple(replace(one, continent=rng.choice(("EU", "EU", "EU", "NA", "NA", ""))) for one in places),
        tuple(replace(one, other_continents_max_fraction=rng.choice((1.0,) * 6 + (0.5, 0.2, 0.0))) for one in models),
    )


def _room(
    rng: random.Random, models: tuple[Model, ...], pools: tuple[Pool, ...], current: tuple[Placed, ...]
) -> tuple[Room, ...]:
    """Some pools are fragmented: they take what runs there, and of what more their devices promise only a part."""
    now = {(one.model, one.pool): one.replicas for one in current}
    return tuple(
        Room(model=model.name, pool=pool.name, replicas=now.get((model.name, pool.name), 0) + rng.randint(0, 2))
        for model in models
        for pool in pools
        if rng.random() < 0.2
    )


def _current(rng: random.Random, models: tuple[Model, ...], pools: tuple[Pool, ...]) -> tuple[Placed, ...]:
    """What runs: never more than a pool has, as a world that came to be by plans."""
    free = {pool.name: pool.devices for pool in pools}
    placed = []
    for model in models:
        for pool in pools:
            shape = model.shape_for(pool)
            if shape is None or rng.random() < 0.5:
                continue
            count = rng.randint(0, free[pool.name] // shape.devices)
            if count:
                placed.append(Placed(model=model.name, pool=pool.name, replicas=count))
                free[pool.name] -= count * shape.devices
    return tuple(placed)
