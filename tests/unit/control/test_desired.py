"""What an agent is told of a policy."""

from __future__ import annotations

import msgspec

from federation.control import desired
from federation.state.keys import PlacementKey
from tests.builders import L4, a_model, a_policy, a_world


def test_an_agent_is_told_whether_it_puts_drift_right() -> None:
    """An operator who asked for hands off would have his change undone."""
    policy = a_policy("chat")
    off = msgspec.structs.replace(policy, spec=msgspec.structs.replace(policy.spec, self_heal="off"))
    for one, expected in ((policy, True), (off, False)):
        documents = a_world("fra", models=(a_model("chat"),), policies=(one,)).documents
        (told,) = desired.workloads(documents, {PlacementKey("chat", "fra", L4): 1}, {}, {})["fra"]
        assert told.self_heal is expected
