"""Writes the demo's clusters, places and round-trip times from public data.

`python -m tests.testbed.catalogue DATA configs/demo`, where DATA is the folder of public files that the headers of the
written files name. Which sites there are and how many devices each has is decided here; where they lie and what a
device costs comes from the data.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from federation.latency.sphere import great_circle_km

PRODUCTS = {
    # the data's name: (value of nvidia.com/gpu.product, GiB)
    "T4": ("Tesla-T4", 16),
    "A10G": ("NVIDIA-A10G", 24),
    "L4": ("NVIDIA-L4", 24),
    "L40S": ("NVIDIA-L40S", 48),
    "A100-80GB": ("NVIDIA-A100-SXM4-80GB", 80),
    "A100-PCIe": ("NVIDIA-A100-80GB-PCIe", 80),
    "H100": ("NVIDIA-H100-80GB-HBM3", 80),
    "H100-NVL": ("NVIDIA-H100-NVL", 94),
    "RTX-PRO-6000": ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", 96),
}
MIG = {
    # (product, profile): (instances of one device, GiB of one). Source: NVIDIA/mig-parted, mig_profiles.csv
    ("A100-80GB", "1g.10gb"): (7, 10),
    ("H100", "1g.20gb"): (4, 20),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD per device-hour, and the rule that gave it."""

    usd: float
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site of the demo: `pools` is "product on-demand/spot, …", where product may be product:profile."""

    provider: str
    region: str
    country: str
    pools: str
    city: str = ""
    iata: str = ""

    @property
    def name(self) -> str:
        return f"edge-{self.iata.lower()}" if self.iata else f"{self.provider}-{self.region}"


def _clouds(provider: str, *rows: tuple[str, str, str, str]) -> tuple[Site, ...]:
    return tuple(Site(provider=provider, region=r, city=c, country=k, pools=p) for r, c, k, p in rows)


def _edges(provider: str, *rows: tuple[str, str, str]) -> tuple[Site, ...]:
    return tuple(Site(provider=provider, region=i.lower(), iata=i, country=k, pools=p) for i, k, p in rows)


SITES = (
    *_clouds(
        "aws",
        ("us-east-1", "Ashburn", "US", "L4 32/24, T4 24/0, H100 16/0"),
        ("us-east-2", "Columbus", "US", "L4 16/24, L40S 16/16"),
        ("us-west-2", "Portland", "US", "L4 24/16, L40S 8/8"),
        ("sa-east-1", "São Paulo", "BR", "T4 24/16, A10G 16/0"),
        ("eu-central-1", "Frankfurt", "DE", "L4 24/16, L40S 8/8"),
        ("eu-west-2", "London", "GB", "L4 24/16, T4 16/0"),
        ("eu-south-2", "Madrid", "ES", "L4 24/16, L40S 8/8"),
        ("eu-north-1", "Stockholm", "SE", "L4 16/16, L40S 8/8"),
        ("me-central-1", "Dubai", "AE", "L4 24/16"),
        ("ap-south-1", "Mumbai", "IN", "L4 24/16, T4 24/16"),
        ("ap-northeast-1", "Tokyo", "JP", "T4 24/16, L40S 16/16"),
        ("ap-southeast-2", "Sydney", "AU", "L4 16/16"),
    ),
    *_clouds(
        "gcp",
        ("us-central1", "Council Bluffs", "US", "L4 24/24, RTX-PRO-6000 16/8, A100-80GB:1g.10gb 28/0"),
        ("us-east4", "Ashburn", "US", "L4 24/16, H100 16/0"),
        ("us-west1", "The Dalles", "US", "L4 24/16"),
        ("europe-west4", "Eemshaven", "NL", "L4 24/16, RTX-PRO-6000 16/8"),
        ("europe-west3", "Frankfurt", "DE", "L4 16/16"),
        ("europe-west9", "Paris", "FR", "H100:1g.20gb 16/24"),
        ("asia-south1", "Mumbai", "IN", "L4 24/16, RTX-PRO-6000 16/0"),
        ("asia-southeast1", "Singapore", "SG", "L4 24/16, A100-80GB 8/0"),
        ("asia-northeast1", "Tokyo", "JP", "L4 24/16"),
        ("asia-east1", "Changhua", "TW", "L4 24/16, RTX-PRO-6000 16/8"),
    ),
    *_clouds(
        "azure",
        ("southcentralus", "San Antonio", "US", "T4 24/16, A100-PCIe 16/0"),
        ("canadacentral", "Toronto", "CA", "T4 24/16"),
        ("brazilsouth", "São Paulo", "BR", "T4 24/16, A100-PCIe 16/0"),
        ("northeurope", "Dublin", "IE", "T4 24/16, A100-PCIe 16/0"),
        ("germanywestcentral", "Frankfurt", "DE", "T4 24/16, H100-NVL 8/0"),
        ("koreacentral", "Seoul", "KR", "T4 24/16, H100-NVL 8/0"),
        ("centralindia", "Pune", "IN", "T4 24/16, A100-PCIe 8/0"),
        ("southafricanorth", "Johannesburg", "ZA", "A100-80GB:1g.10gb 28/0"),
    ),
    *_edges(
        "cloudflare",
        ("FRA", "DE", "L4 8"),
        ("LHR", "GB", "L4 8"),
        ("EWR", "US", "L4 12"),
        ("ORD", "US", "L4 8"),
        ("NRT", "JP", "L4 16"),
        ("HKG", "HK", "L4 12"),
        ("BOM", "IN", "L4 8"),
        ("GRU", "BR", "L4 8"),
        ("IST", "TR", "L4 12"),
        ("LOS", "NG", "L4 8"),
    ),
    *_edges(
        "akamai",
        ("CDG", "FR", "T4 8"),
        ("LAX", "US", "T4 16"),
        ("MIA", "US", "T4 12"),
        ("MEX", "MX", "T4 16"),
        ("EZE", "AR", "T4 12"),
        ("DEL", "IN", "T4 16"),
        ("CGK", "ID", "T4 12"),
        ("MNL", "PH", "T4 12"),
        ("CAI", "EG", "T4 12"),
    ),
)

EU = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK"
"""The European Union and the EEA: where the GDPR holds without a transfer."""

CELLS = {
    "NA": """New York, Los Angeles, Chicago, Miami, Dallas, Houston, Atlanta, Washington\\, D.C., Boston, San Francisco,
        Seattle, Denver, Toronto, Montreal, Vancouver, Mexico City, Guadalajara""",
    "SA": "Sao Paulo, Rio de Janeiro, Belo Horizonte, Buenos Aires, Lima, Bogota, Santiago, Caracas",
    "EU": """London, Paris, Madrid, Barcelona, Berlin, Frankfurt, Hamburg, Munich, Rome, Milan, Amsterdam, Brussels,
        Vienna, Warsaw, Stockholm, Helsinki, Dublin, Lisbon, Athens, Bucharest, Kiev, Zurich""",
    "AF": "Cairo, Lagos, Kinshasa, Johannesburg, Cape Town, Nairobi, Casablanca, Accra",
    "AS": """Tokyo, Osaka, Seoul, Taipei, Hong Kong, Manila, Jakarta, Singapore, Bangkok, Ho Chi Minh City, Mumbai,
        Delhi, Kolkata, Chennai, Bangalore, Hyderabad, Dhaka, Karachi, Istanbul, Riyadh, Dubai, Tel Aviv-Yafo""",
    "OC": "Sydney, Melbourne, Auckland",
}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Prices:
    """Prices by (provider, product, region, market), read once.

    Where a region's price is not in the data, it is the reference region's price of the product, times the ratio
    between the two regions for a product that both have.
    """

    def __init__(self, data: Path) -> None:
        folder = data / "gpu-prices"
        self._on_demand: dict[tuple[str, str, str], float] = {}
        self._spot: dict[tuple[str, str, str], float] = {}
        for row in _rows(folder / "gcp_gpu_ondemand_spot_by_region_2026-08-03.csv"):
            self._keep("gcp", row["gpu"], row["region"], row["price_per_gpu_hr"], row["spot_per_gpu_hr"])
        for row in _rows(folder / "azure_gpu_ondemand_by_region_2026-06-18.csv"):
            gpu = "A100-PCIe" if "ads_A100_v4" in row["instance_type"] else row["gpu"]
            self._keep("azure", gpu, row["region"], row["price_per_gpu_hr"])
        for row in _rows(folder / "aws_gpu_ondemand_us-east-1_2026-07-20.csv"):
            if row["gpu"] != "L40S":  # taken per device of the four-device type below, like the other regions
                self._keep("aws", row["gpu"], "us-east-1", row["price_per_gpu_hr"])
        spots: dict[tuple[str, str], list[float]] = {}
        for row in _rows(folder / "skypilot_v8_aws_l4_l40s_excerpt.csv"):
            count = int(row["gpu_count"])
            self._keep("aws", row["gpu"], row["region"], str(float(row["price_usd_hr"]) / count))
            spots.setdefault((row["gpu"], row["region"]), []).append(float(row["spot_price_usd_hr"]) / count)
        for (gpu, region), values in spots.items():
            self._spot["aws", gpu, region] = statistics.median(values)
        # The Full Stack's table: spot over on-demand of the smallest type.
        self._discount = {"aws": 0.30, "azure": 0.40}
        ovh = next(r for r in _rows(folder / "fsdl_cloud_gpus.csv") if r["Name"] == "l4-90")
        self.edge_premium = float(ovh["Per-GPU"]) / self._on_demand["aws", "L4", "us-east-1"]

    def _keep(self, provider: str, gpu: str, region: str, usd: str, spot_usd: str = "") -> None:
        """The lowest price per device over the instance types that have it."""
        for table, text in ((self._on_demand, usd), (self._spot, spot_usd)):
            if text and float(text) > 0:
                key = provider, gpu, region
                table[key] = min(table.get(key, float("inf")), float(text))

    def ratio(self, provider: str, region: str) -> Price | None:
        """Price level of a region against the provider's reference region, by a product that both have."""
        reference = {"aws": "us-east-1", "azure": "eastus", "gcp": "us-central1"}[provider]
        for gpu in ("L4", "T4", "L40S", "A100-PCIe", "H100"):
            here = self._on_demand.get((provider, gpu, region))
            there = self._on_demand.get((provider, gpu, reference))
            if here is not None and there is not None:
                return Price(usd=here / there, rule=f"{gpu} in {region} / {reference}")
        return None

    def on_demand(self, provider: str, gpu: str, region: str) -> Price:
        """The region's own price, or the reference region's times the ratio."""
        usd = self._on_demand.get((provider, gpu, region))
        if usd is not None:
            return Price(usd=usd, rule="listed")
        ratio = self.ratio(provider, region) or self.ratio("azure", {"sa-east-1": "brazilsouth"}[region])
        assert ratio is not None
        usd = self._on_demand[provider, gpu, "us-east-1"] * ratio.usd
        return Price(usd=usd, rule=f"us-east-1 x {ratio.usd:.3f} ({ratio.rule})")

    def spot(self, provider: str, gpu: str, region: str) -> Price:
        """The region's own spot price (AWS: median over its zones), or the provider's usual discount."""
        usd = self._spot.get((provider, gpu, region))
        on_demand = self.on_demand(provider, gpu, region)
        if usd is not None and usd < on_demand.usd:
            return Price(usd=usd, rule="listed")
        share = self._discount[provider]
        return Price(usd=on_demand.usd * share, rule=f"on-demand x {share:.2f}")

    def edge(self, gpu: str, ratio: Price) -> Price:
        """AWS us-east-1's price x the price level of the nearest region x what a small site costs more."""
        usd = self._on_demand["aws", gpu, "us-east-1"] * ratio.usd * self.edge_premium
        return Price(usd=usd, rule=f"us-east-1 x {ratio.usd:.3f} ({ratio.rule}) x {self.edge_premium:.3f}")


class Catalogue:
    """The text of the three files."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._prices = Prices(data)
        self._regions = {
            (r["provider"], r["region"]): (float(r["lat"]), float(r["lon"]))
            for r in _rows(data / "regions" / "cloud_regions.csv")
        }
        self._pops = {
            r["iata"]: r for r in _rows(data / "regions" / "edge_pops.csv") if r["network"] == "cloudflare" and r["lat"]
        }

    def clusters(self) -> Iterator[str]:
        yield CLUSTERS_HEAD.format(premium=self._prices.edge_premium)
        for site in SITES:
            yield from self._cluster(site)

    def _cluster(self, site: Site) -> Iterator[str]:
        lat, lon = self._place(site)
        city = site.city or self._pops[site.iata]["city"]
        areas = [site.country] + (["EU"] if site.country in EU.split() else [])
        yield "---"
        yield "apiVersion: isochrone.dev/v1alpha1"
        yield "kind: Cluster"
        yield f"metadata: {{name: {site.name}}}"
        yield "spec:"
        yield f"  provider: {site.provider}"
        yield f"  region: {site.region}"
        yield f"  tier: {'edge' if site.iata else 'cloud'}"
        yield f"  location: {{lat: {lat:.4f}, lon: {lon:.4f}, city: {city}, country: {_quoted(site.country)}}}"
        yield f"  jurisdictions: [{', '.join(_quoted(area) for area in areas)}]"
        yield "  accelerators:"
        for pool in site.pools.split(", "):
            yield from self._pool(site, pool)

    def _place(self, site: Site) -> tuple[float, float]:
        if site.iata:
            pop = self._pops[site.iata]
            return float(pop["lat"]), float(pop["lon"])
        return self._regions[site.provider, site.region]

    def _pool(self, site: Site, text: str) -> Iterator[str]:
        kind, counts = text.split(" ")
        gpu, _, profile = kind.partition(":")
        instances, vram_gib = MIG[gpu, profile] if profile else (1, PRODUCTS[gpu][1])
        for market, count in zip(("on-demand", "spot"), counts.split("/"), strict=False):
            if count == "0":
                continue
            price = self._price(site, gpu, market)
            mig = f", migProfile: {profile}" if profile else ""
            rule = f"{price.rule} / {instances} instances" if profile else price.rule
            yield (
                f"    - {{product: {PRODUCTS[gpu][0]}{mig}, market: {market}, vramGiB: {vram_gib}, devices: {count}, "
                f"usdPerDeviceHour: {price.usd / instances:.4f}}} # {rule}"
            )

    def _price(self, site: Site, gpu: str, market: str) -> Price:
        if market == "spot":
            return self._prices.spot(site.provider, gpu, site.region)
        if not site.iata:
            return self._prices.on_demand(site.provider, gpu, site.region)
        lat, lon = self._place(site)
        near = sorted((great_circle_km(lat, lon, *at), *key) for key, at in self._regions.items() if key[0] != "akamai")
        ratios = (self._prices.ratio(provider, region) for _, provider, region in near)
        return self._prices.edge(gpu, next(ratio for ratio in ratios if ratio is not None))

    def places(self) -> Iterator[str]:
        yield PLACES_HEAD
        known: dict[str, dict[str, str]] = {}
        for row in _rows(self._data / "places" / "natural_earth_50m_populated_places.csv"):
            best = known.get(row["name"])
            if best is None or int(row["pop_max"]) > int(best["pop_max"]):
                known[row["name"]] = row
        yield "places:"
        for continent, names in CELLS.items():
            for name in names.replace("\\,", "\0").split(","):
                row = known[" ".join(name.replace("\0", ",").split())]
                yield (
                    f"  - {{name: {_quoted(row['name'])}, country: {_quoted(row['iso_a2'])}, continent: {continent}, "
                    f"lat: {float(row['lat']):.4f}, lon: {float(row['lon']):.4f}, population: {row['pop_max']}}}"
                )

    def rtt(self) -> Iterator[str]:
        yield RTT_HEAD
        table = json.loads((self._data / "latency" / "aws_cloudping_p50_1y.json").read_text(encoding="utf-8"))["data"]
        names = sorted(table)
        yield "sites:"
        for name in names:
            lat, lon = self._regions["aws", name]
            yield f"  {name}: {{lat: {lat:.4f}, lon: {lon:.4f}}}"
        yield "rttMs:"
        for i, name in enumerate(names):
            row = ((table[name][other] + table[other][name]) / 2 for other in names[: i + 1])
            yield f"  {name}: [{', '.join(f'{value:.1f}' for value in row)}]"


def _quoted(text: str) -> str:
    """Quoted where YAML would read another value or a flow separator (NO is a boolean to many readers)."""
    return f'"{text}"' if text in ("NO", "ON") or "," in text else text


CLUSTERS_HEAD = """\
# yaml-language-server: $schema=../schemas/isochrone.schema.json
#
# The demo's clusters: real cloud regions and edge sites, with the devices sold there and what they cost.
# Written by `python -m tests.testbed.catalogue`; how many devices this federation has is the demo's own choice.
#
# Locations: oaustegard aws-ping (MIT), GoogleCloudPlatform/region-picker (Apache-2.0), vmisson/azure-region-span (MIT;
#   centroids of states and countries, so some lie off the city that is named), Netrvin/cloudflare-colo-list (MIT; edge
#   sites by IATA code, for both edge networks).
# Prices, USD per device-hour, the lowest over the instance types with the device:
#   gcp    cloudpilot-ai/karpenter-provider-gcp, 2026-08-03: on-demand and spot, by region
#   azure  Azure/karpenter-provider-azure, 2026-06-18: on-demand, by region
#   aws    aws/karpenter-provider-aws, 2026-07-20: on-demand, us-east-1;
#          skypilot-org/skypilot-catalog v8: L4 and L40S on-demand and spot, by region (spot: median over the zones)
# The comment after a pool says how its price was had:
#   listed               the region's own price in those files
#   us-east-1 x R (...)  us-east-1's price times the ratio of the two regions for the product in brackets
#   on-demand x D        spot that is in none of the files: the usual discount of the provider
#                        (aws 0.30, azure 0.40: the-full-stack/website, T4 and A10G, A100, March 2025)
#   ... x {premium:.3f}          edge: no network lists prices of single GPUs at its sites. The nearest region's
#                        price level, times what OVHcloud asks for an L4 above AWS us-east-1 (1.00 / 0.8048)
#   ... / N instances    a MIG slice: the device's price over its slices (NVIDIA/mig-parted)"""

PLACES_HEAD = """\
# The demo's users: large cities of every continent, with the population of the urban area.
# Written by `python -m tests.testbed.catalogue`. Source: Natural Earth 50 m populated places (public domain).
# Mainland China is left out: the demo has no cluster there, and none elsewhere may serve it without a licence."""

RTT_HEAD = """\
# Round-trip times between AWS regions, ms: one-year median of TCP, both directions averaged; row by row up to the
# diagonal, columns in the order of the rows. The diagonal is between two zones of one region.
# Written by `python -m tests.testbed.catalogue`.
# Source: cloudping.co, 2025-05-29, by way of oaustegard.github.io (MIT)."""


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(data: str, out: str) -> None:
    """Write the three files."""
    catalogue = Catalogue(Path(data))
    folder = Path(out)
    _write(folder / "clusters.yaml", catalogue.clusters())
    _write(folder / "places.yaml", catalogue.places())
    _write(folder / "rtt.yaml", catalogue.rtt())


if __name__ == "__main__":
    main(*sys.argv[1:])
