"""The tables that the product ships: accelerators, continents, the risk of spot, round trips, and instance types."""

from __future__ import annotations

import msgspec
import yaml

from federation import resources
from federation.latency import public
from federation.latency.estimator import Prior
from federation.policy.catalogue import Product
from federation.policy.documents import Continent, Country
from federation.prices.rows import Instance, Instances
from federation.state.spot import SpotRisk
from federation.wire.messages import partition_name


def shipped_products() -> dict[str, Product]:
    """The accelerators that the product knows by itself."""
    raw = yaml.safe_load((resources.configs() / "accelerators.yaml").read_text(encoding="utf-8"))
    return {
        one["product"]: Product(
            name=one["product"], mig_profiles=tuple(map(partition_name, one.get("migProfiles", ())))
        )
        for one in raw["accelerators"]
    }


def shipped_continents() -> dict[Country, Continent]:
    """The continent of each country that the product knows."""
    raw = yaml.safe_load((resources.configs() / "continents.yaml").read_text(encoding="utf-8"))
    table = msgspec.convert(raw["continents"], dict[Continent, str])
    return {country: continent for continent, countries in table.items() for country in countries.split()}


def shipped_latency() -> Prior:
    """Round trips between public places, that the product knows."""
    paths = sorted((resources.configs() / "latency").glob("*.yaml"))
    return public.read(path.read_text(encoding="utf-8") for path in paths)


def shipped_spot_risks() -> dict[tuple[str, str], SpotRisk]:
    """What the product knows of spot, by (provider, product); either may be empty: for all others."""
    raw = yaml.safe_load((resources.configs() / "spot.yaml").read_text(encoding="utf-8"))
    return {
        (one.get("provider", ""), one.get("product", "")): SpotRisk(
            losses_per_hour=one["lossesPerHour"], replacement_chance=one["replacementChance"]
        )
        for one in raw["spot"]
    }


def shipped_instances() -> Instances:
    """The accelerators of the instance types that the product knows."""
    raw = yaml.load((resources.configs() / "instances.yaml").read_bytes(), Loader=yaml.CSafeLoader)
    return {
        (provider, name): Instance(accelerator=one["accelerator"], count=float(one["count"]))
        for provider, types in raw["instances"].items()
        for name, one in types.items()
    }
