"""What price feeds say is read as they mean it, and what is wrong in them is told and left out alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from federation.prices.formats import parse
from federation.prices.rows import FeedError, Parsed, similarity
from federation.state.shipped import shipped_instances

DATA = Path(__file__).parents[4] / "shared" / "data" / "gpu-prices"
INSTANCES = shipped_instances()


def usd(parsed: Parsed, **wanted: str) -> list[float]:
    """Prices of the offers with these fields."""
    return [
        round(one.usd_per_device_hour, 4)
        for one in parsed.prices
        if all(getattr(one.offer, field) == value for field, value in wanted.items())
    ]


SKYPILOT = """InstanceType,AcceleratorName,AcceleratorCount,vCPUs,Price,Region,GpuInfo,SpotPrice,AvailabilityZone
p5.48xlarge,H100,8.0,192.0,98.32,us-east-1,"{'Gpus': [{'Name': 'H100'}]}",39.2,us-east-1a
m5.large,,,2.0,0.096,us-east-1,,0.03,us-east-1a
Standard_NV6ads_A10_v5,A10,0.16666667,6,0.454,eastus,,,
p4d.24xlarge,A100,8.0,96.0,,us-west-2,,11.57,us-west-2b
"""
AZURE = {
    "BillingCurrency": "USD",
    "Items": [
        {
            "currencyCode": "USD",
            "retailPrice": 3.06,
            "armRegionName": "eastus",
            "armSkuName": "Standard_NC6s_v3",
            "skuName": "NC6s v3",
            "productName": "Virtual Machines NCSv3 Series",
            "type": "Consumption",
            "unitOfMeasure": "1 Hour",
        },
        {
            "currencyCode": "USD",
            "retailPrice": 0.306,
            "armRegionName": "eastus",
            "armSkuName": "Standard_NC6s_v3",
            "skuName": "NC6s v3 Spot",
            "productName": "Virtual Machines NCSv3 Series",
            "type": "Consumption",
        },
        {
            "currencyCode": "USD",
            "retailPrice": 4.1,
            "armRegionName": "eastus",
            "armSkuName": "Standard_NC6s_v3",
            "skuName": "NC6s v3",
            "productName": "Virtual Machines NCSv3 Series Windows",
            "type": "Consumption",
        },
        {
            "currencyCode": "USD",
            "retailPrice": 17_082.0,
            "armRegionName": "eastus",
            "armSkuName": "Standard_NC6s_v3",
            "skuName": "NC6s v3",
            "productName": "Virtual Machines NCSv3 Series",
            "type": "Reservation",
            "reservationTerm": "1 Year",
        },
    ],
}
AWS_SPOT = {
    "SpotPriceHistory": [
        {
            "AvailabilityZone": "us-east-1a",
            "InstanceType": "g5.12xlarge",
            "ProductDescription": "Linux/UNIX",
            "SpotPrice": "2.4",
            "Timestamp": "2026-11-29T10:00:00+00:00",
        },
        {
            "AvailabilityZone": "us-east-1a",
            "InstanceType": "g5.12xlarge",
            "ProductDescription": "Linux/UNIX",
            "SpotPrice": "2.0",
            "Timestamp": "2026-11-28T10:00:00+00:00",
        },
        {
            "AvailabilityZone": "us-east-1a",
            "InstanceType": "g5.12xlarge",
            "ProductDescription": "Windows",
            "SpotPrice": "9.9",
            "Timestamp": "2026-11-29T11:00:00+00:00",
        },
        {
            "AvailabilityZone": "us-west-2-lax-1a",
            "InstanceType": "g4dn.12xlarge",
            "ProductDescription": "Linux/UNIX",
            "SpotPrice": "1.2",
            "Timestamp": "2026-11-29T11:00:00+00:00",
        },
    ]
}
PRODUCT: dict[str, Any] = {
    "sku": "ABC",
    "attributes": {
        "instanceType": "p5.48xlarge",
        "regionCode": "us-east-1",
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    },
}
TERM = {"ABC.X": {"priceDimensions": {"ABC.X.Y": {"unit": "Hrs", "pricePerUnit": {"USD": "55.04"}}}}}
AWS_OFFER = {"products": {"ABC": PRODUCT}, "terms": {"OnDemand": {"ABC": TERM}}}
AWS_PRODUCTS = {"PriceList": [json.dumps({"product": PRODUCT, "terms": {"OnDemand": TERM}})]}


def google_sku(usage: str, nanos: int) -> dict[str, Any]:
    """A GPU in the billing catalogue."""
    return {
        "description": "Nvidia L4 GPU attached to Spot Preemptible VMs running in Americas",
        "category": {"resourceGroup": "GPU", "usageType": usage},
        "serviceRegions": ["us-central1", "us-east1"],
        "pricingInfo": [
            {
                "pricingExpression": {
                    "usageUnit": "h",
                    "tieredRates": [{"unitPrice": {"currencyCode": "USD", "units": "0", "nanos": nanos}}],
                }
            }
        ],
    }


GOOGLE = {"skus": [google_sku("OnDemand", 560_000_000), google_sku("Preemptible", 220_000_000)]}
OPENCOST = """# HELP node_gpu_hourly_cost node_gpu_hourly_cost Hourly cost per GPU
# TYPE node_gpu_hourly_cost gauge
node_gpu_hourly_cost{instance_type="g6.xlarge",node="n1",provider_id="aws:///us-east-1a/i-0",region="us-east-1"} 0.8
node_gpu_hourly_cost{instance_type="m5.large",node="n2",provider_id="aws:///us-east-1a/i-1",region="us-east-1"} 0.0
"""
PROMETHEUS = {
    "status": "success",
    "data": {
        "resultType": "vector",
        "result": [
            {
                "metric": {"instance_type": "g6.xlarge", "region": "us-east-1", "provider_id": "aws:///us-east-1a/i-0"},
                "value": [1_790_000_000.0, "0.8"],
            }
        ],
    },
}
OWN = """prices:
  - {provider: onprem, region: fra, product: NVIDIA-L40S, usdPerDeviceHour: 0.42}
  - {provider: coreweave, region: us-east, instanceType: gd-8xh100, market: reserved, usdPerDeviceHour: 2.2}
"""


def as_bytes(given: object) -> bytes:
    """As it comes over the wire."""
    return (given if isinstance(given, str) else json.dumps(given)).encode()


@pytest.mark.parametrize(
    ("given", "provider", "wanted"),
    [
        (
            SKYPILOT,
            "aws",
            [
                ({"instance_type": "p5.48xlarge", "market": "on-demand"}, [12.29]),
                ({"instance_type": "p5.48xlarge", "market": "spot"}, [4.9]),
                ({"instance_type": "Standard_NV6ads_A10_v5"}, [0.454]),
                ({"instance_type": "p4d.24xlarge"}, [1.4463]),
                ({"instance_type": "m5.large"}, []),
            ],
        ),
        (
            AZURE,
            "",
            [({"market": "on-demand"}, [3.06]), ({"market": "spot"}, [0.306]), ({"market": "reserved"}, [1.95])],
        ),
        (AWS_SPOT, "", [({"zone": "us-east-1a"}, [0.6]), ({"region": "us-west-2"}, [0.3])]),
        (AWS_OFFER, "", [({"region": "us-east-1", "accelerator": "H100"}, [6.88])]),
        (AWS_PRODUCTS, "", [({"region": "us-east-1", "accelerator": "H100"}, [6.88])]),
        (GOOGLE, "", [({"market": "on-demand", "region": "us-east1"}, [0.56]), ({"market": "spot"}, [0.22, 0.22])]),
        (OPENCOST, "", [({"provider": "aws", "instance_type": "g6.xlarge", "region": "us-east-1"}, [0.8])]),
        (PROMETHEUS, "", [({"provider": "aws", "instance_type": "g6.xlarge", "region": "us-east-1"}, [0.8])]),
        (OWN, "", [({"accelerator": "NVIDIA-L40S"}, [0.42]), ({"market": "reserved"}, [2.2])]),
    ],
    ids=["skypilot", "azure", "aws-spot", "aws-offer", "aws-products", "google", "opencost", "prometheus", "own"],
)
def test_a_feed_is_read_as_it_means_it(given: object, provider: str, wanted: list[tuple[dict[str, str], Any]]) -> None:
    """A price of a whole machine would be taken for one device's, or a Windows licence for a GPU."""
    parsed = parse(as_bytes(given), provider, INSTANCES)
    for fields, prices in wanted:
        assert usd(parsed, **fields) == prices, fields


EVERY = {
    "skypilot": SKYPILOT,
    "azure": AZURE,
    "aws-spot": AWS_SPOT,
    "aws-offer": AWS_OFFER,
    "aws-products": AWS_PRODUCTS,
    "google": GOOGLE,
    "opencost": OPENCOST,
    "prometheus": PROMETHEUS,
    "own": OWN,
}
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "blank": lambda text: b" \n\n",
    "cut": lambda text: text[: len(text) * 2 // 3],
    "not UTF-8": lambda text: text[:60] + b"\xff\xfe" + text[60:],
    "a sign-in page": lambda text: b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "no data": lambda text: b'{"error": {"code": 403, "message": "quota"}}',
    "negative": lambda text: text,
    "zero": lambda text: text,
    "NaN": lambda text: text,
    "words": lambda text: text,
    "infinite": lambda text: text,
    "other keys": lambda text: (
        text.replace(b"rice", b"rize").replace(b"usdPer", b"eurPer").replace(b"hourly", b"daily")
    ),
}
NUMBERS = {"negative": "-3.0", "zero": "0", "NaN": "nan", "words": "n/a", "infinite": "1e999"}
PRICES = [
    "98.32",
    "39.2",
    "0.454",
    "11.57",
    "3.06",
    "0.306",
    "17082.0",
    "2.4",
    "2.0",
    "1.2",
    "55.04",
    "0.8",
    "0.42",
    "2.2",
    "560000000",
    "220000000",
]


def damaged(text: bytes, kind: str) -> bytes:
    """The feed with this damage."""
    if kind not in NUMBERS:
        return DAMAGE[kind](text)
    for price in sorted(PRICES, key=len, reverse=True):
        number = NUMBERS[kind]
        quoted = number if number in ("-3.0", "0") or b'"' not in text else f'"{number}"'
        for before, after in ((f'"{price}"', f'"{number}"'), (price, quoted)):
            text = text.replace(before.encode(), after.encode())
    return text


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("form", EVERY)
def test_what_is_damaged_is_told_and_gives_no_price(form: str, kind: str) -> None:
    """A page of a sign-in would price every GPU, or a price of nothing would draw every replica."""
    text = damaged(as_bytes(EVERY[form]), kind)
    try:
        parsed = parse(text, "aws" if form == "skypilot" else "", INSTANCES)
    except FeedError as error:
        assert str(error)
        return
    whole = parse(as_bytes(EVERY[form]), "aws" if form == "skypilot" else "", INSTANCES)
    assert kind in ("cut", "other keys", "not UTF-8"), "every price was damaged"
    assert {*parsed.prices} <= {*whole.prices}, "what is left is as it was"


def test_another_currency_is_not_taken_for_dollars() -> None:
    """A feed in yen would send everything elsewhere, one in pounds would draw it."""
    yen = json.loads(json.dumps(AZURE).replace('"currencyCode": "USD"', '"currencyCode": "JPY"', 1))
    parsed = parse(as_bytes(yen), "", INSTANCES)
    assert usd(parsed, market="on-demand") == []
    assert usd(parsed, market="spot") == [0.306]
    assert "a currency other than USD" in parsed.problems[0]
    chinese = json.loads(json.dumps(AWS_OFFER).replace('"USD"', '"CNY"'))
    with pytest.raises(FeedError, match="a currency other than USD: CNY"):
        parse(as_bytes(chinese), "", INSTANCES)


@pytest.mark.parametrize(
    ("accelerator", "product", "is_same"),
    [
        ("H100", "NVIDIA-H100-80GB-HBM3", True),
        ("H100-NVL", "NVIDIA-H100-NVL", True),
        ("H100-NVL", "NVIDIA-H100-80GB-HBM3", False),
        ("A100-80GB", "NVIDIA-A100-SXM4-80GB", True),
        ("A100 (80 GB)", "NVIDIA-A100-80GB-PCIe", True),
        ("A100", "NVIDIA-A100-SXM4-80GB", False),
        ("A100", "NVIDIA-A100-SXM4-40GB", True),
        ("V100", "Tesla-V100-SXM2-16GB", True),
        ("V100-32GB", "Tesla-V100-SXM2-32GB", True),
        ("V100", "Tesla-V100-SXM2-32GB", False),
        ("Tesla T4", "Tesla-T4", True),
        ("L4", "NVIDIA-L40S", False),
        ("L40", "NVIDIA-L40S", False),
        ("L40S", "NVIDIA-L40S", True),
        ("A10G", "NVIDIA-A10", False),
        ("MI300X", "AMD-Instinct-MI300X-OAM", True),
        ("RTX-PRO-6000", "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", True),
        ("", "NVIDIA-L4", False),
    ],
)
def test_a_feeds_name_finds_its_product_and_no_other(accelerator: str, product: str, is_same: bool) -> None:
    """Eighty gigabytes would be bought at the price of forty."""
    assert bool(similarity(accelerator, product)) is is_same


@pytest.mark.skipif(not DATA.is_dir(), reason="needs shared/data")
@pytest.mark.parametrize(
    ("name", "provider", "least"),
    [
        ("aws_gpu_ondemand_us-east-1_2026-07-20.csv", "", 41),
        ("azure_gpu_ondemand_by_region_2026-06-18.csv", "", 800),
        ("gcp_gpu_ondemand_spot_by_region_2026-08-03.csv", "", 700),
        ("skypilot_v8_aws_l4_l40s_excerpt.csv", "", 90),
        ("fsdl_cloud_gpus.csv", "", 20),
    ],
)
def test_real_files_are_read_whole(name: str, provider: str, least: int) -> None:
    """What platform teams have would be refused."""
    parsed = parse((DATA / name).read_bytes(), provider, INSTANCES)
    assert len(parsed.prices) >= least
    assert all(0.01 < one.usd_per_device_hour < 60.0 for one in parsed.prices)
