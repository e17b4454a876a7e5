"""How often somebody may, is bounded in rate and in memory."""

from __future__ import annotations

from federation.aiokit.allowance import Allowance


def test_what_is_saved_up_is_used_up_and_comes_back() -> None:
    """One page in a loop would use up what is there for everybody."""
    allowance = Allowance(per_s=0.5, most=3.0, known=10)
    assert [allowance.takes(b"a", 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert allowance.takes(b"b", 0.0)
    assert [allowance.takes(b"a", 2.0), allowance.takes(b"a", 2.0)] == [True, False]
    assert not allowance.takes(b"a", 1.0), "a clock that went back brings nothing"


def test_so_many_are_told_apart_and_no_more() -> None:
    """Addresses by the million would fill the memory."""
    allowance = Allowance(per_s=0.0, most=1.0, known=100)
    for number in range(10_000):
        assert allowance.takes(number.to_bytes(4, "big"), 0.0)
    assert len(allowance._left) == 100
