"""The table of phases is complete where it must be."""

from __future__ import annotations

import pytest

from federation.state.phases import TABLE, Phase, Sign


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("sign", [Sign.HEARD, Sign.SILENT, Sign.WILL])
def test_what_can_happen_to_a_cluster_at_any_time_has_a_row(phase: Phase, sign: Sign) -> None:
    """A message of an agent would end the loop that hears all of them."""
    assert (phase, sign) in TABLE


@pytest.mark.parametrize("phase", Phase)
def test_a_cluster_that_is_heard_is_ready(phase: Phase) -> None:
    """A cluster that came back would stay lost."""
    assert TABLE[phase, Sign.HEARD] is Phase.READY


def test_only_toleration_loses_a_cluster() -> None:
    """Replicas would be replaced at the first lost connection."""
    assert {sign for (before, sign), after in TABLE.items() if after is Phase.LOST is not before} == {Sign.TOLERATED}
