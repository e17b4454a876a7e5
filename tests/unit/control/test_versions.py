"""A new version is tried at one place first; where it does not start, the one before serves on everywhere."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from msgspec import structs

from federation.control import desired, versions
from federation.control.plan import Plan, Versions
from federation.policy import documents
from federation.state.keys import ClusterPool, PlacementKey
from federation.state.reduce import Heard
from federation.wire import messages
from tests.builders import L4, a_model, a_policy, a_report, a_world, heard, told, with_image

FRA: PlacementKey = PlacementKey("chat", "fra", L4)
IAD: PlacementKey = PlacementKey("chat", "iad", L4)
NRT: PlacementKey = PlacementKey("chat", "nrt", L4)
RUNNING = {FRA: 3, IAD: 2, NRT: 1}
OLD, NEW = a_model("chat"), with_image(a_model("chat"), "example/image:2")
PATIENCE_S = 120.0


class Story:
    """A fleet that is told one thing after another; each step is ten seconds, and each agent carries out at once.

    `bad` are images of which no replica becomes ready.
    """

    def __init__(self, bad: tuple[str, ...] = ()) -> None:
        self.bad = bad
        self.world = a_world("fra", "iad", "nrt", models=(OLD,), policies=(a_policy("chat"),))
        self.plan = Plan(epoch=1, generation=1, generations=dict.fromkeys(("fra", "iad", "nrt"), 1))
        self.since_s: dict[str, float] = {}
        self.now_s, self.seq = 0.0, 0
        self.said: list[str] = []
        self.images: dict[str, str] = {}

    def change(self, model: documents.Model) -> None:
        self.world = replace(self.world, documents=structs.replace(self.world.documents, models=(model,)))

    def run(self, seconds: float, running: dict[PlacementKey, int] | None = None) -> None:
        running = RUNNING if running is None else running
        ends_s = self.now_s + seconds
        while self.now_s < ends_s:
            self.now_s += 10.0
            advanced = versions.advance(self.world, self.plan, running, self.since_s, self.now_s)
            if (advanced.settled, advanced.versions) != (self.plan.settled, self.plan.versions):
                generation = self.plan.generation + 1
                told_to = dict.fromkeys(self.plan.generations, generation)
                self.plan = replace(
                    self.plan,
                    settled=advanced.settled,
                    versions=advanced.versions,
                    generation=generation,
                    generations=told_to,
                )
            self.since_s = dict(advanced.since_s)
            self.said += [note.reason for note in advanced.notes]
            self._obey(running)

    def _obey(self, running: dict[PlacementKey, int]) -> None:
        self.seq += 1
        orders = desired.workloads(self.world.documents, running, {}, self.plan.versions)
        for name in ("fra", "iad", "nrt"):
            rows = []
            for order in orders.get(name, ()):
                self.images[name] = order.image
                outdated = order.replicas if order.image in self.bad else 0
                reason = "ErrImagePull" if outdated else ""
                rows.append(
                    messages.ReplicaReport(
                        model="chat",
                        pool=L4,
                        desired=order.replicas,
                        ready=order.replicas,
                        outdated=outdated,
                        reason=reason,
                    )
                )
            ack = messages.Ack(
                cluster=name,
                boot_id="boot-0001",
                epoch=1,
                generation=self.plan.generations[name],
                checksum="",
                ok=True,
                accepted_epoch=1,
                accepted_generation=self.plan.generations[name],
            )
            self.world = told(self.world, Heard(message=ack, now_s=self.now_s - 1))
            self.world = heard(self.world, a_report(name, seq=self.seq, replicas=tuple(rows)), now_s=self.now_s)


def test_a_version_that_starts_at_one_place_follows_everywhere() -> None:
    """A slip in an image would take every replica of the fleet down at once."""
    story = Story()
    story.run(30)
    assert story.plan.settled == {"chat": OLD}
    story.change(NEW)
    story.run(10)
    assert story.images == {"fra": "example/image:2", "iad": "example/image:1", "nrt": "example/image:1"}
    assert story.plan.versions["chat"].trial == ("fra", L4)
    story.run(10)
    assert story.said == ["VersionTried", "VersionReady"]
    story.run(10)
    assert story.images == dict.fromkeys(("fra", "iad", "nrt"), "example/image:2")
    assert story.plan.settled == {"chat": NEW}


def test_a_version_that_starts_nowhere_is_given_up_and_the_one_before_stays() -> None:
    """A bad image would end the replicas that served, or be told to every cluster in turn."""
    story = Story(bad=("example/image:2",))
    story.run(30)
    story.change(NEW)
    seen: set[tuple[str, ...]] = set()
    for _ in range(60):
        story.run(10)
        seen.add(tuple(name for name, image in sorted(story.images.items()) if image == "example/image:2"))
    assert seen == {("fra",), ("iad",), ()}, "one place at a time, and a second one for a cause that may be the first's"
    assert story.said == ["VersionTried", "VersionTried", "VersionRefused"]
    assert story.images == dict.fromkeys(("fra", "iad", "nrt"), "example/image:1")
    assert story.plan.versions["chat"].refused == "ErrImagePull"
    third = with_image(a_model("chat"), "example/image:3")
    story.change(third)
    story.run(60)
    assert story.images == dict.fromkeys(("fra", "iad", "nrt"), "example/image:3"), (
        "a corrected document is tried at once"
    )


def test_it_is_tried_again_after_an_hour() -> None:
    """A registry that was down for a while would refuse a good version for ever."""
    story = Story(bad=("example/image:2",))
    story.run(30)
    story.change(NEW)
    story.run(400)
    assert story.plan.versions["chat"].refused
    story.bad = ()
    story.run(3700)
    assert story.plan.settled == {"chat": NEW}


def test_going_back_to_what_works_needs_no_trial() -> None:
    """An undo would wait for a warm-up."""
    story = Story(bad=("example/image:2",))
    story.run(30)
    story.change(NEW)
    story.run(20)
    story.change(OLD)
    story.run(20)
    assert story.plan.versions == {}
    assert story.images == dict.fromkeys(("fra", "iad", "nrt"), "example/image:1")


def test_what_starts_no_replica_anew_is_told_at_once() -> None:
    """A new objective or price would wait for a trial of nothing."""
    state = Versions(settled=OLD, newest="x", trial=ClusterPool("fra", L4))
    stricter = structs.replace(NEW, spec=structs.replace(NEW.spec, slo=documents.Slo(p95_latency_ms=50)))
    told_in_iad = state.told(stricter, ClusterPool("iad", L4))
    assert told_in_iad.spec.runtime == OLD.spec.runtime
    assert told_in_iad.spec.slo.p95_latency_ms == 50


def test_a_plan_with_versions_survives_a_restart() -> None:
    """A restarted controller would tell every cluster the version that had been given up."""
    story = Story(bad=("example/image:2",))
    story.run(30)
    story.change(NEW)
    story.run(400)
    again = msgspec.json.decode(msgspec.json.encode(story.plan), type=Plan)
    assert (again.settled, again.versions) == (story.plan.settled, story.plan.versions)
