"""The formats of price feeds, each recognised by its content.

Source: SkyPilot's catalogue (catalogs/v8/CLOUD/vms.csv; prices are of a whole instance); Azure "Retail Prices REST
    API"; AWS "Price List Bulk API" and `GetProducts`, `DescribeSpotPriceHistory`; Google Cloud Billing "Catalog API"
    (services.skus.list; of a GPU alone, machine and memory come on top); OpenCost's `node_gpu_hourly_cost`, as text or
    as the answer of a Prometheus query; and this product's own YAML.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from federation.prices.rows import Collector, FeedError, Instances, Market, Offer, Parsed
from federation.yamlkit import source

MAX_BYTES = 256 * 1024 * 1024
OWN = "an isochrone price file"

_COLUMNS = {
    "provider": ("provider", "cloud"),
    "instance_type": ("instancetype", "instance", "machinetype", "vmsize", "armskuname"),
    "accelerator": ("acceleratorname", "accelerator", "gpu", "gputype", "gpuname"),
    "count": ("acceleratorcount", "gpucount", "gpus"),
    "usd": ("price", "priceusdhr", "pricehr", "ondemand", "usdperhour", "priceperhour", "priceusd"),
    "spot_usd": ("spotprice", "spot", "spotpriceusdhr", "spotusdperhour"),
    "region": ("region", "regioncode", "armregionname", "location"),
    "zone": ("availabilityzone", "zone"),
    "currency": ("currency", "currencycode"),
}


def parse(payload: bytes, provider: str = "", instances: Instances | None = None) -> Parsed:
    """The prices of a feed. Args: provider: of rows that name none. instances: for feeds that name no accelerators.

    Raises: FeedError when the feed has no usable price.
    """
    if len(payload) > MAX_BYTES:
        raise FeedError(f"longer than {MAX_BYTES // 1024**2} MiB: give the part with accelerators")
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FeedError(f"not UTF-8 at byte {error.start}") from error
    if not text.strip():
        raise FeedError("it is empty")
    known = instances or {}
    start = text.lstrip()[:1]
    if start == "<":
        raise FeedError("HTML or XML, maybe the page of a sign-in or of an error: expected CSV, JSON, YAML or metrics")
    if start in ("{", "["):
        return _json(text, provider, known)
    if _is_metrics(text):
        return _metrics(text, provider)
    first = text.lstrip().partition("\n")[0]
    if "," in first and ":" not in first:
        return _csv(text, provider, known)
    return _own(text, provider)


# ---- CSV


def _csv(text: str, provider: str, instances: Instances) -> Parsed:
    rows = csv.reader(io.StringIO(text))
    try:
        header = [re.sub(r"[^a-z]", "", one.lower()) for one in next(rows)]
        at = {
            field: next((header.index(one) for one in names if one in header), None)
            for field, names in _COLUMNS.items()
        }
        if at["usd"] is None and at["spot_usd"] is None:
            raise FeedError("CSV without a column of prices: expected Price or SpotPrice in its first line")
        if at["accelerator"] is None and at["instance_type"] is None:
            raise FeedError("CSV without a column AcceleratorName or InstanceType in its first line")
        found = Collector("CSV, as SkyPilot's catalogue")
        for row in rows:
            _csv_row(
                found,
                {f: row[i].strip() if i is not None and i < len(row) else "" for f, i in at.items()},
                f"line {rows.line_num}",
                provider,
                instances,
            )
    except (csv.Error, StopIteration) as error:
        raise FeedError(f"not CSV: {error}") from error
    return found.parsed()


def _csv_row(found: Collector, row: Mapping[str, str], where: str, provider: str, instances: Instances) -> None:
    cloud = row["provider"].lower() or provider
    name, count = _accelerators(row, cloud, instances)
    if not name:
        return
    if row["currency"] and row["currency"].upper() != "USD":
        found.leave_out("a currency other than USD", f"{row['currency'][:10]} at {where}")
        return
    if count is None or count <= 0:
        found.leave_out("no number of accelerators", where)
        return
    for field, market in (("usd", "on-demand"), ("spot_usd", "spot")):
        if row[field]:
            offer = Offer(cloud, row["region"], row["zone"], row["instance_type"], name, _market(market))
            _add(found, offer, row[field], count, where)


def _accelerators(row: Mapping[str, str], provider: str, instances: Instances) -> tuple[str, float | None]:
    if row["accelerator"]:
        return row["accelerator"], _number(row["count"]) if row["count"] else 1.0
    known = instances.get((provider, row["instance_type"]))
    return (known.accelerator, known.count) if known is not None else ("", None)


def _add(found: Collector, offer: Offer, usd: object, count: float, where: str) -> None:
    value = _number(usd)
    if value is None:
        found.leave_out("a price that is no number", f"{str(usd)[:30]!r} at {where}")
    else:
        found.add(offer, value, count, where)


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    try:
        return float(str(value).strip().removeprefix("$"))
    except ValueError:
        return None


def _market(name: str) -> Market:
    return "spot" if name == "spot" else "reserved" if name == "reserved" else "on-demand"


# ---- JSON


def _json(text: str, provider: str, instances: Instances) -> Parsed:
    try:
        given = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise FeedError(f"not JSON: {error}") from error
    if not isinstance(given, dict):
        raise FeedError("a JSON array: expected the whole answer of a price API")
    forms: tuple[tuple[str, Callable[[dict[str, Any], str, Instances], Parsed]], ...] = (
        ("Items", _azure),
        ("SpotPriceHistory", _aws_spot),
        ("products", _aws_offer),
        ("PriceList", _aws_products),
        ("skus", _google),
        ("data", _prometheus),
        ("prices", _own_document),
    )
    for key, read in forms:
        if key in given:
            try:
                return read(given, provider, instances)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                if isinstance(error, FeedError):
                    raise
                raise FeedError(f"`{key}` is not as that API writes it: {error}") from error
    keys = ", ".join(sorted(map(str, given))[:5])
    raise FeedError(f"JSON of no price API that is known here (it has {keys or 'nothing'})")


def _azure(given: dict[str, Any], provider: str, instances: Instances) -> Parsed:
    found, cloud = Collector("Azure retail prices"), provider or "azure"
    for at, row in enumerate(_rows(given["Items"], found)):
        where = f"Items[{at}]"
        known = instances.get((cloud, str(row.get("armSkuName", ""))))
        if known is None or "Windows" in str(row.get("productName", "")) or row.get("type") == "DevTestConsumption":
            continue
        if str(row.get("currencyCode", "USD")).upper() != "USD":
            found.leave_out("a currency other than USD", f"{str(row['currencyCode'])[:10]} at {where}")
            continue
        sku, usd = str(row.get("skuName", "")), row.get("retailPrice", row.get("unitPrice"))
        market: Market = "spot" if "Spot" in sku else "on-demand"
        if "Low Priority" in sku:
            continue
        if row.get("type") == "Reservation":
            years = re.match(r"([0-9]+) Year", str(row.get("reservationTerm", "")))
            value = _number(usd)
            if years is None or value is None:
                found.leave_out("a reservation without a term", where)
                continue
            market, usd = "reserved", value / (int(years[1]) * 8760.0)
        offer = Offer(cloud, str(row.get("armRegionName", "")), "", str(row["armSkuName"]), known.accelerator, market)
        _add(found, offer, usd, known.count, where)
    return found.parsed()


def _rows(given: Any, found: Collector) -> Iterator[dict[str, Any]]:
    for at, row in enumerate(given if isinstance(given, list) else []):
        if isinstance(row, dict):
            yield row
        else:
            found.leave_out("an entry that is no object", f"[{at}]")
            yield {}


_AWS_ZONE = re.compile(r"([a-z]{2}(?:-[a-z]+)+-[0-9]+)(?:-[a-z]{3}-[0-9]+)?[a-z]")


def _aws_spot(given: dict[str, Any], provider: str, instances: Instances) -> Parsed:
    found, cloud = Collector("AWS spot price history"), provider or "aws"
    newest: dict[Offer, tuple[str, Any, float, str]] = {}
    for at, row in enumerate(_rows(given["SpotPriceHistory"], found)):
        known = instances.get((cloud, str(row.get("InstanceType", ""))))
        if known is None or not str(row.get("ProductDescription", "Linux/UNIX")).startswith("Linux"):
            continue
        zone = str(row.get("AvailabilityZone", ""))
        match = _AWS_ZONE.fullmatch(zone)
        if match is None:
            found.leave_out("no availability zone", f"SpotPriceHistory[{at}]")
            continue
        offer = Offer(cloud, match[1], zone, str(row["InstanceType"]), known.accelerator, "spot")
        told = (str(row.get("Timestamp", "")), row.get("SpotPrice"), known.count, f"SpotPriceHistory[{at}]")
        if offer not in newest or told[0] > newest[offer][0]:
            newest[offer] = told
    for offer, (_, usd, count, where) in newest.items():
        _add(found, offer, usd, count, where)
    return found.parsed()


def _aws_offer(given: dict[str, Any], provider: str, instances: Instances) -> Parsed:
    found = Collector("AWS price list")
    terms = given.get("terms", {})
    for sku, product in given["products"].items():
        _aws_product(found, product, {kind: terms.get(kind, {}).get(sku, {}) for kind in terms}, provider, instances)
    return found.parsed()


def _aws_products(given: dict[str, Any], provider: str, instances: Instances) -> Parsed:
    found = Collector("AWS GetProducts")
    for at, text in enumerate(given["PriceList"]):
        one = json.loads(text) if isinstance(text, str) else text
        if isinstance(one, dict) and isinstance(one.get("product"), dict):
            _aws_product(found, one["product"], one.get("terms", {}), provider, instances)
        else:
            found.leave_out("an entry without a product", f"PriceList[{at}]")
    return found.parsed()


def _aws_product(
    found: Collector, product: Mapping[str, Any], terms: Mapping[str, Any], provider: str, instances: Instances
) -> None:
    told, cloud = product.get("attributes", {}), provider or "aws"
    instance_type = str(told.get("instanceType", ""))
    known = instances.get((cloud, instance_type))
    is_plain = told.get("operatingSystem") == "Linux" and told.get("preInstalledSw", "NA") == "NA"
    is_plain &= told.get("tenancy", "Shared") == "Shared" and told.get("capacitystatus", "Used") == "Used"
    if known is None or not is_plain:
        return
    offer = Offer(cloud, str(told.get("regionCode", "")), "", instance_type, known.accelerator, "on-demand")
    for term in terms.get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            where, price = f"sku {str(product.get('sku', ''))[:20]}", dimension.get("pricePerUnit", {})
            if "USD" not in price:
                found.leave_out("a currency other than USD", f"{', '.join(price)[:20]} of {where}")
            elif float(price["USD"]) > 0:
                found.add(offer, float(price["USD"]), known.count, where)


_GOOGLE_GPU = re.compile(r"Nvidia (?:Tesla )?(.+?) GPU\b")
_GOOGLE_USAGE: dict[str, Market] = {"OnDemand": "on-demand", "Preemptible": "spot", "Commit1Yr": "reserved"}


def _google(given: dict[str, Any], provider: str, instances: Instances) -> Parsed:
    found, cloud = Collector("Google Cloud billing catalogue"), provider or "gcp"
    for at, row in enumerate(_rows(given["skus"], found)):
        where, category = f"skus[{at}]", row.get("category", {})
        match = _GOOGLE_GPU.match(str(row.get("description", "")))
        market = _GOOGLE_USAGE.get(str(category.get("usageType")))
        if category.get("resourceGroup") != "GPU" or match is None or market is None:
            continue
        expression = row["pricingInfo"][-1]["pricingExpression"] if row.get("pricingInfo") else {}
        rates = expression.get("tieredRates") or []
        if expression.get("usageUnit") != "h" or not rates:
            found.leave_out("a price that is not by the hour", where)
            continue
        price = rates[-1].get("unitPrice", {})
        if price.get("currencyCode", "USD") != "USD":
            found.leave_out("a currency other than USD", f"{str(price['currencyCode'])[:10]} at {where}")
            continue
        usd = float(price.get("units", 0)) + float(price.get("nanos", 0)) / 1e9
        for region in row.get("serviceRegions", ()):
            found.add(Offer(cloud, str(region), "", "", match[1], market), usd, 1.0, where)
    return found.parsed()


# ---- metrics

GPU_COST = "node_gpu_hourly_cost"
_PROVIDER_IDS = {"aws": "aws", "gce": "gcp", "azure": "azure"}


def _is_metrics(text: str) -> bool:
    return re.search(rf"^(# (HELP|TYPE) |{GPU_COST}\b)", text, re.MULTILINE) is not None


def _metrics(text: str, provider: str) -> Parsed:
    found = Collector("OpenCost metrics")
    try:
        for family in text_string_to_metric_families(text):
            if family.name == GPU_COST:
                for sample in family.samples:
                    _cost(found, sample.labels, sample.value, provider)
    except (ValueError, KeyError, IndexError) as error:
        raise FeedError(f"not metrics as Prometheus reads them: {error}") from error
    return found.parsed()


def _prometheus(given: dict[str, Any], provider: str, instances: Instances) -> Parsed:
    if given.get("status") != "success":
        raise FeedError(f"the query failed: {str(given.get('error', 'no cause told'))[:200]}")
    found = Collector("Prometheus query")
    for row in given["data"]["result"]:
        sample = row["value"] if "value" in row else row["values"][-1]
        _cost(found, row["metric"], float(sample[1]), provider)
    return found.parsed()


def _cost(found: Collector, labels: Mapping[str, str], usd: float, provider: str) -> None:
    if usd == 0:
        return  # of a node without accelerators
    scheme = labels.get("provider_id", "").partition(":")[0]
    cloud, region = provider or _PROVIDER_IDS.get(scheme, ""), labels.get("region", "")
    market = _market("spot" if labels.get("capacity_type", labels.get("capacityType", "")) == "spot" else "")
    offer = Offer(cloud, region, labels.get("zone", ""), labels.get("instance_type", ""), "", market)
    where = f"node {labels.get('node', labels.get('instance', ''))[:80]}"
    if offer.instance_type:
        found.add(offer, usd, 1.0, where)
    else:
        found.leave_out("a node without the label instance_type", where)


# ---- our own


def _own(text: str, provider: str) -> Parsed:
    try:
        read = source.read(text.encode())
    except source.YamlProblem as error:
        where = f"line {error.mark.line}, column {error.mark.column}"
        raise FeedError(
            f"neither CSV, JSON nor metrics, and YAML that is refused at {where}: {error.message}"
        ) from error
    given = read[0].plain() if len(read) == 1 else None
    if not isinstance(given, dict) or "prices" not in given:
        raise FeedError("YAML without `prices`: expected a list of {provider, region, product, usdPerDeviceHour}")
    return _own_document(given, provider, {})


def _own_document(given: dict[str, Any], provider: str, _: Instances) -> Parsed:
    found = Collector(OWN)
    fields = ("provider", "region", "zone", "instanceType", "product")
    for at, row in enumerate(_rows(given["prices"], found)):
        where = f"prices[{at}]"
        if str(row.get("currency", "USD")).upper() != "USD":
            found.leave_out("a currency other than USD", f"{str(row['currency'])[:10]} at {where}")
            continue
        unknown = row.keys() - {*fields, "market", "usdPerDeviceHour", "currency"}
        market = row.get("market", "on-demand")
        if unknown or market not in ("on-demand", "spot", "reserved"):
            what = f"unknown field {min(map(str, unknown))}" if unknown else f"market {str(market)[:20]!r}"
            found.leave_out(what, where)
            continue
        told = [str(row.get(field, "")) for field in fields]
        offer = Offer(told[0] or provider, told[1], told[2], told[3], told[4], _market(market))
        if not offer.instance_type and not offer.accelerator:
            found.leave_out("neither product nor instanceType", where)
            continue
        _add(found, offer, row.get("usdPerDeviceHour"), 1.0, where)
    return found.parsed()
