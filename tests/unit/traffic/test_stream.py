"""The conversation with a gateway: order, refusals, and silence when there is nothing new."""

from __future__ import annotations

import pytest

from federation.traffic.stream import Request, Response, Stream
from federation.traffic.xds import CDS, EDS, RDS, SHORT, Resource, Snapshot


def snapshot(*names: str, shares: str = "1", routes: str = "") -> Snapshot:
    """Clusters of these names with endpoints, and a route that names them all."""

    def one(type_url: str, name: str, content: str) -> Resource:
        return Resource(name=name, type_url=type_url, version=content, body=content.encode())

    return Snapshot(
        by_type={
            CDS: {name: one(CDS, name, "cluster") for name in names},
            EDS: {name: one(EDS, name, shares) for name in names},
            RDS: {"isochrone": one(RDS, "isochrone", routes or ",".join(names))},
        }
    )


class Gateway:
    """Envoy's half of the conversation: subscribes as it is told of things, and says yes unless it is to refuse."""

    def __init__(self, *, delta: bool, held: dict[str, dict[str, str]] | None = None) -> None:
        self.delta = delta
        self.stream = Stream(delta=delta)
        self.clusters: set[str] = set()
        self.refuses: dict[str, str] = {}
        self.said: list[str] = []
        held = held or {}
        self.clusters |= set(held.get(CDS, {}))
        self.stream.hear(Request(type_url=CDS, held=held.get(CDS, {})))
        if held.get(EDS):
            self.stream.hear(Request(type_url=EDS, names=tuple(held[EDS]), held=held[EDS]))
        self.stream.hear(Request(type_url=RDS, names=("isochrone",), held=held.get(RDS, {})))

    def take(self, wanted: Snapshot) -> list[str]:
        """Everything that is sent until there is nothing more, as `kind names -removed`; refusals end in `!`."""
        self.said = []
        waiting: list[Response] = []
        for _ in range(50):
            response = self.stream.next(wanted)
            if response is None and not waiting:
                return self.said
            if response is None:
                self._answer(waiting.pop(0))
                continue
            names = " ".join(one.name for one in response.resources)
            gone = " ".join(f"-{name}" for name in response.removed)
            self.said.append(" ".join(part for part in (SHORT[response.type_url], names, gone) if part))
            if response.type_url == CDS and CDS not in self.refuses:
                self._subscribe(response)
            waiting.append(response)
        raise AssertionError(f"no end: {self.said}")

    def _subscribe(self, response: Response) -> None:
        names = {one.name for one in response.resources}
        before = set(self.clusters)
        self.clusters = self.clusters - set(response.removed) | names if self.delta else names
        if self.clusters != before:
            added = self.clusters - before if self.delta else self.clusters
            dropped = before - self.clusters if self.delta else ()
            self.stream.hear(Request(type_url=EDS, names=tuple(sorted(added)), dropped=tuple(dropped)))

    def _answer(self, response: Response) -> None:
        error = self.refuses.get(response.type_url, "")
        if error:
            self.said[-1] += "!"
        names = () if self.delta or response.type_url == CDS else tuple(self.clusters)
        if response.type_url == RDS and not self.delta:
            names = ("isochrone",)
        verdict = self.stream.hear(Request(type_url=response.type_url, nonce=response.nonce, error=error, names=names))
        assert verdict is not None
        assert (verdict.version, verdict.error) == (response.version, error)


@pytest.mark.parametrize("delta", [True, False], ids=["incremental", "state-of-the-world"])
def test_make_before_break(delta: bool) -> None:
    """Requests would be routed to clusters that the gateway does not know yet, or no more."""
    gateway = Gateway(delta=delta)
    assert gateway.take(snapshot("a")) == ["clusters a", "endpoints a", "routes isochrone"]
    last = "clusters -a" if delta else "clusters b"
    first = "clusters b" if delta else "clusters a b"
    assert gateway.take(snapshot("b")) == [first, "endpoints b", "routes isochrone", last]


@pytest.mark.parametrize("delta", [True, False])
def test_what_is_unchanged_is_not_sent(delta: bool) -> None:
    """Every cycle would cost every gateway of the world a full configuration."""
    gateway = Gateway(delta=delta)
    gateway.take(snapshot("a", "b"))
    for _ in range(10):
        assert gateway.take(snapshot("a", "b")) == []
    assert gateway.take(snapshot("a", "b", shares="2")) == ["endpoints a b"]


@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize("kind", [CDS, EDS])
def test_after_a_refusal_no_route_follows_until_there_is_something_new(delta: bool, kind: str) -> None:
    """The last good configuration must go on: a route to what was refused would send users nowhere."""
    gateway = Gateway(delta=delta)
    gateway.take(snapshot("a"))
    gateway.refuses = {kind: "weights overflow"}
    said = gateway.take(snapshot("a", "bad", shares="9"))
    assert said[-1].endswith("!")
    assert not any("routes" in one for one in said)
    assert gateway.take(snapshot("a", "bad", shares="9")) == [], "a refused version is not sent again"
    gateway.refuses = {}
    assert "routes isochrone" in gateway.take(snapshot("a", "good", shares="3"))


def test_a_gateway_that_comes_back_is_told_only_what_it_lacks() -> None:
    """A restart of the controller would make every gateway of the world take everything anew at once."""
    world = snapshot("a", "b")
    held = {type_url: {name: one.version for name, one in world.of(type_url).items()} for type_url in (CDS, EDS, RDS)}
    assert Gateway(delta=True, held=held).take(world) == []
    assert Gateway(delta=True, held=held).take(snapshot("a", "b", shares="2")) == ["endpoints a b"]
    assert Gateway(delta=True, held=held).take(snapshot("a")) == ["routes isochrone", "clusters -b"]


def test_state_of_the_world_that_comes_back_names_its_version() -> None:
    """A restarted controller would send every gateway everything again."""
    world = snapshot("a")
    stream = Stream(delta=False)
    stream.hear(Request(type_url=CDS, version=world.version(CDS)))
    stream.hear(Request(type_url=EDS, version=world.version(EDS), names=("a",)))
    stream.hear(Request(type_url=RDS, version=world.version(RDS), names=("isochrone",)))
    assert stream.next(world) is None


def test_endpoints_come_before_the_gateway_says_yes_to_their_cluster() -> None:
    """Envoy accepts clusters only when it has their endpoints: who waits for the other waits for ever."""
    stream = Stream(delta=True)
    stream.hear(Request(type_url=CDS))
    sent = stream.next(snapshot("a"))
    assert sent is not None
    stream.hear(Request(type_url=EDS, names=("a",)))
    following = stream.next(snapshot("a"))
    assert following is not None
    assert following.type_url == EDS


def test_a_gateway_that_gets_nothing_is_told_so() -> None:
    """Envoy would not open its door before it has heard of clusters, were it of none."""
    stream = Stream(delta=True)
    stream.hear(Request(type_url=CDS))
    answer = stream.next(snapshot())
    assert answer is not None
    assert (answer.type_url, answer.resources) == (CDS, ())


def test_an_answer_to_something_older_changes_nothing() -> None:
    """A late refusal would stop the newest configuration of a gateway."""
    gateway = Gateway(delta=True)
    gateway.take(snapshot("a"))
    assert gateway.stream.hear(Request(type_url=CDS, nonce="77", error="late")) is None
    assert gateway.take(snapshot("a")) == []
