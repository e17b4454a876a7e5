"""What does not become ready is not waited for: the plan goes elsewhere, and comes back by and by."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from federation.control import setbacks
from federation.control.problem import formulate
from federation.state.keys import PlacementKey
from federation.state.reduce import SetbacksSeen
from federation.state.world import Brake, Setbacks
from federation.wire import messages
from tests.builders import L4, a_model, a_policy, a_report, a_world, heard, some_demand, told, with_image

FRA: PlacementKey = PlacementKey("chat", "fra", L4)
IAD: PlacementKey = PlacementKey("chat", "iad", L4)
PATIENCE_S = 120.0
"""The warm-up of `a_model` and the margin."""
PULL = "ErrImagePull: manifest unknown"


def rows(ready: int, desired: int, cause: messages.Cause = "image", restarts: int = 0) -> messages.ReplicaReport:
    reason = PULL if ready < desired else ""
    return messages.ReplicaReport(
        model="chat",
        pool=L4,
        desired=desired,
        ready=ready,
        reason=reason,
        cause=cause if reason else "",
        restarts=restarts,
    )


class Story:
    """Reports as they come, and what is concluded of them."""

    def __init__(self, *clusters: str) -> None:
        self.world = a_world(*clusters, models=(a_model("chat"),), policies=(a_policy("chat"),))
        self.clusters = clusters
        self.now_s = 0.0
        self.seq = 0
        self.said: list[str] = []

    def pass_by(
        self, seconds: float, desired: dict[PlacementKey, int], seen: dict[str, messages.ReplicaReport]
    ) -> None:
        ends_s = self.now_s + seconds
        while self.now_s < ends_s:
            self.now_s += 10.0
            self.seq += 1
            demand = (some_demand("chat", "Berlin", 20.0),)
            reports = (
                a_report(name, seq=self.seq, demand=demand, replicas=(seen[name],) if name in seen else ())
                for name in self.clusters
            )
            self.world = heard(self.world, *reports, now_s=self.now_s)
            found, notes = setbacks.look(self.world, desired, self.now_s)
            self.world = told(self.world, SetbacksSeen(setbacks=found, notes=notes))
            self.said += [note.reason for note in notes]

    def most(self, key: PlacementKey) -> int | None:
        return setbacks.most(self.world.setbacks, key, self.now_s)

    def limit(self, key: PlacementKey) -> int | None:
        return setbacks.limits(self.world.setbacks, self.now_s).get(key)


def test_replicas_that_do_not_become_ready_count_as_not_there_after_their_warm_up() -> None:
    """Users would wait beside free, permitted devices for an image that cannot be pulled."""
    story = Story("fra", "iad")
    story.pass_by(PATIENCE_S, {FRA: 3}, {"fra": rows(1, 3)})
    assert story.most(FRA) is None
    story.pass_by(20, {FRA: 3}, {"fra": rows(1, 3)})
    assert story.said == ["ReplicasFailed"]
    (backoff,) = story.world.setbacks.backoffs.values()
    assert (backoff.cause, backoff.kept, backoff.strikes) == ("image", 1, 1)
    formulated = formulate(story.world, target={FRA: 3}, desired={FRA: 3}, now_s=story.now_s)
    assert [(one.pool, one.replicas) for one in formulated.present] == [("fra/NVIDIA-L4/on-demand", 1)]
    assert {one.pool: one.replicas for one in formulated.problem.room} == {"fra/NVIDIA-L4/on-demand": 1}
    assert any(PULL in text and "tried again in" in text for text in formulated.left_out)


def test_it_is_tried_again_by_and_by_and_later_after_each_failure() -> None:
    """A place that healed would get all of its load at once, or one that did not would be tried for ever as often."""
    story = Story("fra", "iad")
    story.pass_by(PATIENCE_S + 20, {FRA: 4}, {"fra": rows(0, 4)})
    waits = []
    for _ in range(3):
        (backoff,) = story.world.setbacks.backoffs.values()
        waits.append(backoff.until_s - story.now_s)
        assert story.most(FRA) == story.limit(FRA) == 0
        story.pass_by(backoff.until_s - story.now_s, {FRA: 0}, {})
        assert story.most(FRA) is None, "a plan that is worth it may want all"
        assert story.limit(FRA) == 1, "and gets one replica first"
        story.pass_by(PATIENCE_S + 20, {FRA: 1}, {"fra": rows(0, 1)})
    assert waits == sorted(waits)
    assert waits[2] >= 2 * waits[1] - 20
    (backoff,) = story.world.setbacks.backoffs.values()
    story.pass_by(backoff.until_s - story.now_s + 10, {}, {})
    allowed = []
    for count in (1, 2, 4):
        story.pass_by(30, {FRA: count}, {"fra": rows(count, count)})
        allowed.append(story.limit(FRA))
    assert allowed == [2, 4, 8]
    story.pass_by(PATIENCE_S + 20, {FRA: 4}, {"fra": rows(4, 4)})
    assert story.limit(FRA) is None
    assert story.said[-1] == "ReplicasRecovered"


def test_what_becomes_ready_later_than_it_should_is_counted_on() -> None:
    """Replicas that serve would be stopped as if they were not there."""
    story = Story("fra", "iad")
    story.pass_by(PATIENCE_S + 20, {FRA: 4}, {"fra": rows(0, 4)})
    assert story.most(FRA) == 0
    story.pass_by(10, {FRA: 4}, {"fra": rows(3, 4)})
    assert story.most(FRA) == 3


def test_what_becomes_ready_in_time_or_is_making_progress_has_not_failed() -> None:
    """A large model that starts one replica after another would be driven from place to place."""
    story = Story("fra")
    for ready in range(6):
        story.pass_by(100, {FRA: 6}, {"fra": rows(ready, 6)})
    assert story.said == []


def test_what_is_not_heard_is_not_known_to_have_failed() -> None:
    """A cut of a few minutes would count every replica that was being started as failed."""
    story = Story("fra", "iad")
    story.pass_by(60, {FRA: 3}, {"fra": rows(0, 3)})
    brake = Brake(since_s=story.now_s, phases={}, silent=("fra",), counted=2)
    braked = replace(story.world, brake=brake)
    assert setbacks.look(braked, {FRA: 3}, story.now_s + 9999) == (story.world.setbacks, ())


@pytest.mark.parametrize("how", ["restarts", "readiness"])
def test_replicas_that_die_again_and_again_are_not_counted_on(how: str) -> None:
    """A crash loop that serves for half a minute each time would keep its users."""
    story = Story("fra", "iad")
    for turn in range(1, 4):
        restarts = turn if how == "restarts" else 0
        story.pass_by(30, {FRA: 2}, {"fra": rows(2, 2)})
        story.pass_by(10, {FRA: 2}, {"fra": rows(2 if how == "restarts" else 1, 2, restarts=restarts)})
    assert story.said == ["ReplicasFailed"]
    assert story.most(FRA) == 0


def test_what_is_ordered_away_one_by_one_has_not_died() -> None:
    """A model that somebody withdrew and gives back would wait, and two clusters that did nothing wrong stand idle."""
    story = Story("fra", "iad")
    for left in (4, 3, 2, 1):
        story.pass_by(20, {FRA: left}, {"fra": rows(left + 1, left)})
        story.pass_by(20, {FRA: left}, {"fra": rows(left, left)})
    assert story.said == []


def test_a_model_that_fails_by_itself_everywhere_is_hunted_no_further() -> None:
    """A bad image would be carried through every cluster of the fleet, each for the length of a warm-up."""
    story = Story("fra", "iad", "nrt")
    story.pass_by(PATIENCE_S + 20, {FRA: 1, IAD: 1}, {"fra": rows(0, 1), "iad": rows(0, 1)})
    assert story.said == ["ReplicasFailed", "ReplicasFailed", "ModelFails"]
    room = {
        one.pool: one.replicas for one in formulate(story.world, target={}, desired={}, now_s=story.now_s).problem.room
    }
    assert room["nrt/NVIDIA-L4/on-demand"] == 0
    assert room["fra/NVIDIA-L4/on-demand"] == 0
    later_s = max(one.until_s for one in story.world.setbacks.backoffs.values())
    again = formulate(story.world, target={}, desired={}, now_s=later_s).problem.room
    assert [one.pool for one in again] == ["nrt/NVIDIA-L4/on-demand"], "it is tried again where it has failed"
    better = with_image(a_model("chat"), "example/image:2")
    mended = replace(story.world, documents=structs.replace(story.world.documents, models=(better,)))
    found, _ = setbacks.look(mended, {FRA: 1, IAD: 1}, story.now_s)
    assert found.backoffs == {}, "a later version has not failed"


@pytest.mark.parametrize("cause", ["unschedulable", "quota"])
def test_a_cause_of_the_cluster_ends_no_hunt(cause: messages.Cause) -> None:
    """Two full clusters would keep a model from a third that has room."""
    story = Story("fra", "iad", "nrt")
    seen = {"fra": rows(0, 1, cause), "iad": rows(0, 1, cause)}
    story.pass_by(PATIENCE_S + 20, {FRA: 1, IAD: 1}, seen)
    room = {
        one.pool: one.replicas for one in formulate(story.world, target={}, desired={}, now_s=story.now_s).problem.room
    }
    assert "nrt/NVIDIA-L4/on-demand" not in room


def test_no_setback_is_no_change() -> None:
    """Each tick of a quiet fleet would be a new belief, and wake every watcher."""
    story = Story("fra")
    story.pass_by(300, {FRA: 2}, {"fra": rows(2, 2)})
    found, notes = setbacks.look(story.world, {FRA: 2}, story.now_s + 5)
    assert found is story.world.setbacks
    assert notes == ()
    assert found != Setbacks()
