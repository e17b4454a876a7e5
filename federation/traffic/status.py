"""The status of gateways: which are connected, what they accepted last, and what they refused and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from federation.traffic.stream import Verdict
from federation.traffic.xds import SHORT


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStatus:
    """One gateway by its own name (`node`). `since_s` is monotonic: its last connection or disconnection.

    `accepted` and `refused` are by kind (clusters, endpoints, routes): the version in force, and the gateway's words
    about a refused version. A refused version is not in force: the last accepted one is.
    """

    node: str
    cluster: str
    connected: bool
    since_s: float
    accepted: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def after(self, verdict: Verdict) -> GatewayStatus:
        """The status after this message of the gateway."""
        kind = SHORT[verdict.type_url]
        if verdict.error:
            return replace(self, refused={**self.refused, kind: verdict.error})
        return replace(self, accepted={**self.accepted, kind: verdict.version}).refusing_only(
            [type_url for type_url in SHORT if SHORT[type_url] != kind]
        )

    def refusing_only(self, type_urls: Collection[str]) -> GatewayStatus:
        """The status in which only these types are refused; the same object if that was so already."""
        kinds = {SHORT[type_url] for type_url in type_urls}
        if self.refused.keys() <= kinds:
            return self
        return replace(self, refused={kind: text for kind, text in self.refused.items() if kind in kinds})
