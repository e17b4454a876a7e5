"""The content of a price feed: rows of one price each, and the rows that could not be used."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

Market = Literal["on-demand", "spot", "reserved"]


class Offer(NamedTuple):
    """What a price is for. An empty field is unknown; names, the zone's included, are the provider's own."""

    provider: str
    region: str
    zone: str
    instance_type: str
    accelerator: str
    market: Market

    @property
    def text(self) -> str:
        """A form for people."""
        what = " of ".join(one for one in (self.accelerator, self.instance_type) if one)
        where = " ".join(one for one in (self.provider, self.zone or self.region) if one)
        return f"{what} {self.market} in {where or 'all regions'}"


class Price(NamedTuple):
    """USD per hour of one device as a node offers it: of a fraction of a card where the node has only that."""

    offer: Offer
    usd_per_device_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """One reading of a feed.

    `form`: the format's name. `problems`: omitted rows by kind, with the first place; `left_out` counts the omitted
    rows with an accelerator.
    """

    form: str
    prices: tuple[Price, ...]
    problems: tuple[str, ...] = ()
    left_out: int = 0


class FeedError(ValueError):
    """The feed has no usable price. The message says why and what is expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """The accelerators of an instance type. `count` below one is a fraction of a card."""

    accelerator: str
    count: float


Instances = dict[tuple[str, str], Instance]
"""(provider, instance type) -> its accelerators, for feeds that do not name them."""

MOST_PRICES = 200_000
MOST_PROBLEMS = 20


class Collector:
    """Collects prices and, by kind, omitted rows; of equal offers the last row counts."""

    def __init__(self, form: str) -> None:
        self.form = form
        self._prices: dict[Offer, float] = {}
        self._problems: dict[str, tuple[str, int]] = {}

    def add(self, offer: Offer, usd_per_hour: float, count: float, where: str) -> None:
        """Add the price of a whole instance with this many devices. Raises: FeedError when there are too many."""
        devices = max(1, round(count))
        usd = usd_per_hour / devices
        if not math.isfinite(usd) or usd <= 0:
            self.leave_out(f"a price of {usd_per_hour:g} USD", where)
            return
        self._prices[offer] = usd
        if len(self._prices) > MOST_PRICES:
            raise FeedError(f"more than {MOST_PRICES} prices of accelerators: give a feed for each provider or region")

    def leave_out(self, kind: str, where: str) -> None:
        """Omit a row. Args: kind: why, the same text for all such rows."""
        first, count = self._problems.get(kind, (where, 0))
        self._problems[kind] = (first, count + 1)

    def parsed(self) -> Parsed:
        """The collected prices. Raises: FeedError without a price."""
        told = [
            f"{kind}: {where}" + (f", and {count - 1} more" if count > 1 else "")
            for kind, (where, count) in list(self._problems.items())[:MOST_PROBLEMS]
        ]
        if not self._prices:
            cause = f" ({told[0]})" if told else ""
            raise FeedError(f"no price of an accelerator in it{cause}")
        prices = tuple(Price(offer, usd) for offer, usd in sorted(self._prices.items()))
        left_out = sum(count for _, count in self._problems.values())
        return Parsed(form=self.form, prices=prices, problems=tuple(told), left_out=left_out)


_SEPARATORS = re.compile(r"[^A-Z0-9]+")
_VENDORS = frozenset({"NVIDIA", "TESLA", "AMD", "INTEL", "GEFORCE", "INSTINCT", "GPU", "ACCELERATOR"})
_MEMORY = re.compile(r"([0-9]+)(GB|GIB|G)")
_GIB_UNSAID = {"A100": 40, "V100": 16, "P100": 16}
"""The memory that catalogues mean by a name without memory, where cards of several sizes have the name.

Source: SkyPilot's catalogue, which names A100-80GB and V100-32GB beside A100 and V100.
"""


def similarity(accelerator: str, product: str) -> int:
    """The number of words that a feed's name shares with the product's (a value of nvidia.com/gpu.product); 0 for
    another product.

    `H100` is `NVIDIA-H100-80GB-HBM3`; `A100-80GB` is `NVIDIA-A100-SXM4-80GB`, and `A100` is not.
    """
    wanted, have = _words(accelerator), _words(product)
    names = {one for one in wanted if not _MEMORY.fullmatch(one)}
    if not names or not names <= have:
        return 0
    sizes, theirs = _gib(wanted), _gib(have)
    if not sizes:
        sizes = {size for name, size in _GIB_UNSAID.items() if name in names}
    if sizes and theirs and not sizes & theirs:
        return 0
    return len(wanted)


def _words(name: str) -> set[str]:
    text = re.sub(r"([0-9]+)\s+(GB|GIB)\b", r"\1\2", name.upper())
    return {one for one in _SEPARATORS.split(text) if one} - _VENDORS


def _gib(words: set[str]) -> set[int]:
    return {int(match[1]) for one in words if (match := _MEMORY.fullmatch(one))}
