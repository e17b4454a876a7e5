"""Knowledge that outlives a restart, beside the database: prices of feeds, and the behaviour of spot pools.

Its loss costs time, not users, because it is learnt again. Each kind is one file that is replaced whole; a damaged file
is logged and ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from federation.adapters.manifest import sync_directory
from federation.adapters.salvage import private
from federation.prices.book import Believed, Feed
from federation.prices.rows import Offer
from federation.state.keys import ClusterPool
from federation.state.spot import Counts

log = structlog.get_logger("learnt")


class _Price(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    offer: Offer
    usd: float
    read_s: float


class _Feed(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    form: str
    read_s: float
    prices: tuple[_Price, ...]


class _Spot(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    pool: ClusterPool
    counts: Counts


class Learnt:
    """The files in the data directory; None keeps nothing."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def prices(self) -> tuple[Feed, ...]:
        """The feeds with their last good prices."""
        return tuple(
            Feed(
                name=one.name,
                form=one.form,
                read_s=one.read_s,
                prices={row.offer: Believed(row.usd, row.read_s) for row in one.prices},
            )
            for one in self._load("prices.json", _Feed)
        )

    def keep_prices(self, feeds: Iterable[Feed]) -> None:
        """Store the prices of these feeds. A failure is logged; the prices are missing after a restart."""
        rows = [
            _Feed(
                name=one.name,
                form=one.form,
                read_s=one.read_s,
                prices=tuple(_Price(offer=offer, usd=b.usd, read_s=b.read_s) for offer, b in one.prices.items()),
            )
            for one in feeds
            if one.prices
        ]
        self._save("prices.json", rows)

    def spot(self) -> dict[ClusterPool, Counts]:
        """The behaviour of spot pools."""
        return {one.pool: one.counts for one in self._load("spot.json", _Spot)}

    def keep_spot(self, counts: Mapping[ClusterPool, Counts]) -> None:
        """Store the behaviour of spot pools."""
        self._save("spot.json", [_Spot(pool=pool, counts=one) for pool, one in counts.items()])

    def _load(self, name: str, kind: Any) -> list[Any]:
        path = self._directory / name if self._directory is not None else None
        if path is None or not path.is_file():
            return []
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[kind])
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("what was learnt earlier cannot be read", path=str(path), error=str(error))
            return []

    def _save(self, name: str, rows: list[Any]) -> None:
        if self._directory is None:
            return
        path = self._directory / name
        beside = path.with_suffix(".new")
        try:
            with private():
                beside.write_bytes(msgspec.json.encode(rows))
            beside.replace(path)
            sync_directory(path.parent)
        except OSError as error:
            log.warning("what was learnt cannot be kept for the next start", path=str(path), error=str(error))
