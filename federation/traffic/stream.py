"""The xDS conversation with one gateway: what to send next, and what an answer means. Pure; both dialects.

Make before break: first clusters, then their endpoints, then the routes that name them once both are accepted;
unreferenced resources are removed last. A refusal (NACK) stops the sequence until there is something new to send: the
gateway keeps its last good configuration.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from federation.traffic.xds import CDS, EDS, TYPES, Resource, Snapshot

WILDCARD = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A gateway's request, in either dialect.

    Args: names: state of the world: all subscribed resources; incremental: added ones. dropped: incremental: resources
        that it unsubscribes. held: incremental, first on a stream: resources that it has already, name -> version.
        version: state of the world: the last accepted version. error: why it refused the response `nonce`; empty
        otherwise.
    """

    type_url: str
    nonce: str = ""
    error: str = ""
    names: Collection[str] = ()
    dropped: Collection[str] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response to send. `removed` is for the incremental dialect; in the other, omission removes."""

    type_url: str
    nonce: str
    version: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of a response: accepted, or refused with the gateway's own words."""

    type_url: str
    version: str
    error: str = ""


class _Kind:
    """The state of one resource type on this stream."""

    def __init__(self) -> None:
        self.asked = False
        self.answered = False
        self.wildcard = False
        self.names: set[str] = set()
        self.held: dict[str, str] = {}
        self.bodies: dict[str, Resource] = {}
        self.pending: Response | None = None
        self.refused = ""
        """The version of the snapshot that was refused."""
        self.claimed = ""
        """State of the world, after a reconnection: the version that the gateway says it has."""


class Stream:
    """The state of one stream. `delta`: the incremental dialect."""

    def __init__(self, *, delta: bool) -> None:
        self._delta = delta
        self._kinds: dict[str, _Kind] = {type_url: _Kind() for type_url in TYPES}
        self._nonces = 0

    def hear(self, request: Request) -> Verdict | None:
        """Record a request; returns the verdict on an earlier response that it carries, if any."""
        kind = self._kinds.get(request.type_url)
        if kind is None:
            return None  # a type that is not ours: the gateway has it in its bootstrap
        verdict = self._judge(kind, request)
        first, kind.asked = not kind.asked, True
        if self._delta:
            self._subscribe_delta(kind, request, first=first)
        elif request.nonce == "" or verdict is not None or kind.pending is None:
            kind.names = set(request.names)
            kind.wildcard = not kind.names and request.type_url == CDS
            if first:
                kind.claimed = request.version
        return verdict

    def _judge(self, kind: _Kind, request: Request) -> Verdict | None:
        sent = kind.pending
        if sent is None or request.nonce != sent.nonce:
            return None
        kind.pending = None
        if request.error:
            kind.refused = sent.version
            return Verdict(type_url=request.type_url, version=sent.version, error=request.error)
        for one in sent.resources:
            kind.held[one.name] = one.version
            kind.bodies[one.name] = one
        gone = sent.removed
        if request.type_url == CDS and not self._delta:
            gone = tuple(kind.held.keys() - {one.name for one in sent.resources})
        for name in gone:
            kind.held.pop(name, None)
            kind.bodies.pop(name, None)
            if request.type_url == CDS:
                self._kinds[EDS].held.pop(name, None)
        return Verdict(type_url=request.type_url, version=sent.version)

    @staticmethod
    def _subscribe_delta(kind: _Kind, request: Request, *, first: bool) -> None:
        if first:
            kind.held.update(request.held)
            kind.wildcard = request.type_url == CDS and (not request.names or WILDCARD in request.names)
        for name in request.names:
            kind.names.add(name)
            if not first:
                kind.held.pop(name, None)  # asked for again: it is to be told again
        for name in request.dropped:
            kind.names.discard(name)
            kind.held.pop(name, None)

    def refusing(self) -> frozenset[str]:
        """The types whose newest version is refused."""
        return frozenset(type_url for type_url, kind in self._kinds.items() if kind.refused)

    def next(self, snapshot: Snapshot) -> Response | None:
        """The next response; None while there is nothing to send or an answer is awaited."""
        for type_url in TYPES:
            kind = self._kinds[type_url]
            if not kind.asked:
                if type_url == CDS or (type_url == EDS and snapshot.of(EDS)):
                    return None
                continue
            if kind.pending is not None:
                if type_url == CDS:
                    continue  # a gateway says yes to clusters only when it has their endpoints
                return None
            version = snapshot.version(type_url)
            if kind.claimed and kind.claimed == version:
                kind.held = {one.name: one.version for one in snapshot.of(type_url).values()}
                kind.bodies = dict(snapshot.of(type_url))
            kind.claimed = ""
            if kind.refused and kind.refused == version:
                return None
            kind.refused = ""
            wanted = self._wanted(kind, type_url, snapshot)
            changed = [one for name, one in sorted(wanted.items()) if kind.held.get(name) != one.version]
            if changed or (type_url == CDS and not kind.answered and not kind.held):
                return self._send(kind, type_url, version, changed)
            if type_url == EDS and (
                self._kinds[CDS].pending is not None
                or self._kinds[CDS].held.keys() & snapshot.of(EDS).keys() - kind.held.keys()
            ):
                return None  # clusters that are not in use yet: no route may name them
        return self._take_back(snapshot)

    @staticmethod
    def _wanted(kind: _Kind, type_url: str, snapshot: Snapshot) -> dict[str, Resource]:
        return {
            name: one
            for name, one in snapshot.of(type_url).items()
            if kind.wildcard or name in kind.names or (type_url == CDS and WILDCARD in kind.names)
        }

    def _send(self, kind: _Kind, type_url: str, version: str, changed: list[Resource]) -> Response:
        resources = changed
        if type_url == CDS:
            # An updated cluster waits for its endpoints anew, though they may not have changed.
            for one in changed:
                self._kinds[EDS].held.pop(one.name, None)
        if type_url == CDS and not self._delta:
            # The whole state of the world: what is unchanged too, and what is still referred to by older routes.
            fresh = {one.name: one for one in changed}
            resources = [one for _, one in sorted((kind.bodies | fresh).items())]
        return self._pend(kind, Response(type_url=type_url, nonce="", version=version, resources=tuple(resources)))

    def _take_back(self, snapshot: Snapshot) -> Response | None:
        """Remove the clusters that no route names."""
        kind = self._kinds[CDS]
        gone = kind.held.keys() - snapshot.of(CDS).keys()
        if not gone:
            return None
        left = () if self._delta else tuple(one for _, one in sorted(snapshot.of(CDS).items()))
        return self._pend(
            kind,
            Response(
                type_url=CDS,
                nonce="",
                version=snapshot.version(CDS),
                resources=left,
                removed=tuple(sorted(gone)) if self._delta else (),
            ),
        )

    def _pend(self, kind: _Kind, response: Response) -> Response:
        self._nonces += 1
        numbered = Response(
            type_url=response.type_url,
            nonce=str(self._nonces),
            version=response.version,
            resources=response.resources,
            removed=response.removed,
        )
        kind.pending, kind.answered = numbered, True
        return numbered
