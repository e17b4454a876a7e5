"""Policy files while the controller runs: changed in the directory, refused, withdrawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.testbed.fleet import Fleet
from tests.testbed.small_world import MODEL, PLACES, POLICY, cluster_document


def named(name: str, **spec: Any) -> dict[str, Any]:
    """The small world's model under another name."""
    return {**MODEL, "metadata": {"name": name}, "spec": {**MODEL["spec"], **spec}}


@pytest.fixture
def quiet(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet; files that the test left in the directory are removed and withdrawn."""
    before = {path.name for path in fleet.policies.iterdir()}
    yield fleet
    for path in fleet.policies.iterdir():
        if path.name not in before:
            path.unlink()
            fleet.request("DELETE", f"/v1/policies/{path.name}?force=true&reason=the+test+ends")


def file_state(fleet: Fleet, name: str) -> dict[str, Any]:
    """What the controller says of a policy file."""
    files: dict[str, dict[str, Any]] = {one["name"]: one for one in fleet.get("/v1/policies")["items"]}
    return files.get(name, {"revision": 0, "problems": [], "documents": []})


def reasons(fleet: Fleet, subject: str) -> list[str]:
    """The events of an object, by their constants."""
    return [one["reason"] for one in fleet.get("/v1/events")["items"] if one["object"] == subject]


def test_a_file_put_into_the_directory_is_in_force_without_a_restart(quiet: Fleet) -> None:
    """A merged policy would do nothing until somebody restarts the controller."""
    (quiet.policies / "new.yaml").write_text(yaml.safe_dump(named("newcomer")))
    state = quiet.until(lambda: file_state(quiet, "new.yaml")["revision"] and file_state(quiet, "new.yaml"), "revision")
    assert state["documents"] == ["Model/newcomer"]
    assert "newcomer" in {one["name"] for one in quiet.get("/v1/models")["items"]}


def test_a_broken_edit_keeps_the_last_good_revision(quiet: Fleet) -> None:
    """A typo saved at night would else take a model out of service."""
    path = quiet.policies / "edited.yaml"
    path.write_text(yaml.safe_dump(named("edited")))
    good = quiet.until(lambda: file_state(quiet, "edited.yaml")["revision"], "revision")
    path.write_text(yaml.safe_dump(named("edited", serviceLatencyMs="60s")))
    state = quiet.until(
        lambda: file_state(quiet, "edited.yaml")["problems"] and file_state(quiet, "edited.yaml"), "refusal"
    )
    assert state["revision"] == good
    assert state["problems"][0]["line"] > 1
    assert "write 60000: the unit is milliseconds" in state["problems"][0]["hint"]
    models = {one["name"] for one in quiet.get("/v1/models")["items"]}
    assert {"edited", "chat-8b"} <= models
    assert reasons(quiet, "policy/edited.yaml") == ["PolicyAccepted", "PolicyRefused"]
    path.write_text(yaml.safe_dump(named("edited", serviceLatencyMs=70)))
    quiet.until(lambda: file_state(quiet, "edited.yaml")["revision"] > good, "next revision")
    assert file_state(quiet, "edited.yaml")["problems"] == []


def test_a_file_gone_from_the_directory_stays_in_force_until_it_is_withdrawn(quiet: Fleet) -> None:
    """A volume that is not mounted must not delete every model of the company."""
    path = quiet.policies / "gone.yaml"
    path.write_text(yaml.safe_dump(named("still-here")))
    quiet.until(lambda: file_state(quiet, "gone.yaml")["revision"], "revision")
    assert quiet.request("DELETE", "/v1/policies/gone.yaml")[0] == 409, "it would come back at the next start"
    path.unlink()
    quiet.until(lambda: "PolicyFileGone" in reasons(quiet, "policy/gone.yaml"), "word that it is gone")
    assert "still-here" in {one["name"] for one in quiet.get("/v1/models")["items"]}
    assert quiet.request("DELETE", "/v1/policies/gone.yaml")[0] == 200
    assert "still-here" not in {one["name"] for one in quiet.get("/v1/models")["items"]}
    assert file_state(quiet, "gone.yaml")["revision"] == 0


def test_a_cluster_with_replicas_does_not_leave_the_catalogue(quiet: Fleet) -> None:
    """Its replicas would run on with nobody to stop them, and its users would be cut off before others are ready."""
    path = quiet.policies / "clusters.yaml"
    whole = path.read_text()
    path.write_text(yaml.safe_dump_all([cluster_document(name) for name in PLACES if name != "fra"]))
    state = quiet.until(
        lambda: file_state(quiet, "clusters.yaml")["problems"] and file_state(quiet, "clusters.yaml"), "refusal"
    )
    assert "cluster fra would leave the catalogue with 7 replicas in it" in state["problems"][0]["message"]
    assert "isochrone drain fra" in state["problems"][0]["hint"]
    assert {one["name"] for one in quiet.get("/v1/clusters")["items"]} == set(PLACES)
    path.write_text(whole)
    quiet.until(lambda: not file_state(quiet, "clusters.yaml")["problems"], "the whole catalogue")


def test_a_withdrawn_model_is_stopped_everywhere(quiet: Fleet) -> None:
    """Replicas that nobody asks for any more would cost money for ever."""
    second = {
        **POLICY,
        "metadata": {"name": "second"},
        "spec": {**POLICY["spec"], "models": {"matchNames": ["second"]}},
    }
    assert quiet.apply("second.yaml", named("second"), second)[0] == 200

    def running() -> int:
        return quiet.do(
            lambda: sum(
                n for backend in quiet.backends.values() for key, n in backend.ready().items() if key[0] == "second"
            )
        )

    quiet.until(lambda: running() >= 3, "the floor of the second model")
    status, _, answer = quiet.request("DELETE", "/v1/policies/second.yaml")
    assert status == 409 and b"second would go to nothing: 3 replicas" in answer, answer
    assert quiet.request("DELETE", "/v1/policies/second.yaml?force=true&reason=retired")[0] == 200
    quiet.until(lambda: running() == 0, "the end of its replicas")
    quiet.until(
        lambda: not [one for one in quiet.get("/v1/placements")["items"] if one["model"] == "second"], "silence"
    )
    quiet.until(quiet.is_settled, "the other model's placement as before")


def test_a_policy_that_another_file_needs_defined_once_is_refused_twice(quiet: Fleet) -> None:
    """Two definitions of a model would be in force by turns."""
    status, answer = quiet.apply("double.yaml", MODEL)
    assert (status, answer["code"]) == (409, "Contradiction")
    assert "Model chat-8b is already defined at chat.yaml:" in answer["message"]


def test_users_who_may_not_leave_their_continent_are_served_on_it(fleet: Fleet) -> None:
    """A cap on other continents would be accepted and bind nobody, as the product would not know who is where."""
    failover = {**POLICY["spec"]["failover"], "maxOtherContinentsPercent": 0}
    capped = {**POLICY, "spec": {**POLICY["spec"], "failover": failover}}

    def ways() -> dict[str, str]:
        view = fleet.get("/v1/explain/cell/chat-8b/New%20York")
        return {way["cluster"]: way["code"] for way in view["ways"]}

    assert "OtherContinent" not in ways().values()
    try:
        assert fleet.apply("chat.yaml", MODEL, capped)[0] == 200
        fleet.until(lambda: ways()["fra"] == ways()["mad"] == "OtherContinent", "a plan under the cap")
        assert ways()["iad"] in ("Serves", "Kept")
        helpers = fleet.get("/v1/route?model=chat-8b&cell=New%20York").get("helpers", ())
        assert not helpers, "both others are in Europe"
    finally:
        assert fleet.apply("chat.yaml", MODEL, POLICY)[0] == 200
        fleet.until(lambda: ways()["fra"] != "OtherContinent", "the cap is gone")
        fleet.until(fleet.is_settled, "placement as before")
