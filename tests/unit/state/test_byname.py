"""The mapping that worlds share: as a dict reads, and cheap to follow."""

from __future__ import annotations

import sys

from federation.state.byname import PART, ByName


def sum_of(known: ByName[int]) -> list[int]:
    return [sum(known.values())]


NAMES = [f"cluster-{number:05}" for number in range(1000)]


def test_it_reads_as_a_dict_in_the_order_of_names() -> None:
    """Decisions would depend on the order in which clusters were named."""
    known = dict.fromkeys(reversed(NAMES), 1)
    made = ByName(known)
    assert made == known
    assert list(made) == list(made.keys()) == NAMES
    assert list(made.items()) == sorted(known.items())
    assert list(made.values()) == [1] * len(NAMES)
    assert made.get("nobody") is None and "nobody" not in made and len(made) == len(NAMES)


def test_what_follows_shares_all_but_what_is_new() -> None:
    """Of ten thousand clusters each report would copy ten thousand entries, several times."""
    before = ByName(dict.fromkeys(NAMES, 1))
    after = before.following({NAMES[3]: 2, NAMES[500]: 3})
    assert (after[NAMES[3]], after[NAMES[500]], after[NAMES[4]]) == (2, 3, 1)
    assert set(before.values()) == {1}, "who looks at the world before sees it as it was"
    shared = [one for one, other in zip(before._parts, after._parts, strict=True) if one is other]
    assert len(shared) == len(NAMES) // PART + 1 - 2
    assert sys.getsizeof(after._parts) < 1000
    assert after.derived(len) == len(NAMES) and after.derived(sum_of) is after.derived(sum_of)
    assert before.derived(sum_of) != after.derived(sum_of), "of each what is its own"
    assert dict(after.following({"another": 4})) == {**after, "another": 4}
