"""Files together: what one says must hold beside the others, and a refused file changes nothing."""

from __future__ import annotations

import pytest

from federation.policy import catalogue
from federation.policy.catalogue import PolicySet
from federation.state.shipped import shipped_products
from tests.unit.policy.test_load import CLUSTER, MODEL, POLICY

EMPTY = PolicySet(products=shipped_products())


def accepted(**files: str) -> PolicySet:
    """The set with these files, each accepted in turn."""
    found = EMPTY
    for name, text in files.items():
        found, problems = catalogue.accept(found, f"{name}.yaml", text.encode())
        assert not problems, problems
    return found


def test_a_refused_file_leaves_the_set_as_it_was() -> None:
    """One typing error would take a model's policy out of force."""
    before = accepted(cluster=CLUSTER.replace("spec:", "spec:\n  jurisdictions: [EU]"), model=MODEL, policy=POLICY)
    after, problems = catalogue.accept(before, "policy.yaml", b"kind: PlacementPolicy")
    assert problems
    assert after is before


def test_a_document_is_in_one_file() -> None:
    """Of two definitions of a model one would win by the order of the files' names."""
    _, problems = catalogue.accept(accepted(cluster=CLUSTER, model=MODEL), "again.yaml", MODEL.encode())
    assert "already defined at model.yaml:" in problems[0].message


def test_a_document_moves_between_files_in_one_step() -> None:
    """Renaming a file in a repository would be refused, or withdraw the model for a moment."""
    before = accepted(cluster=CLUSTER, old=MODEL)
    together = catalogue.accept_together(before, {"new.yaml": MODEL.encode()}, gone=["old.yaml"])
    assert (together.accepted, together.replaced, dict(together.problems)) == (("new.yaml",), ("old.yaml",), {})
    assert "old.yaml" not in together.following.files


def test_a_file_that_is_gone_stays_in_force_by_itself() -> None:
    """An empty mount would withdraw every model."""
    before = accepted(cluster=CLUSTER, model=MODEL)
    together = catalogue.accept_together(before, {}, gone=["model.yaml"])
    assert together.following.files == before.files


def test_a_refused_file_is_in_nobodys_way() -> None:
    """One team's error would hold back the changes of all others."""
    together = catalogue.accept_together(
        accepted(cluster=CLUSTER), {"bad.yaml": b"kind: Nothing", "model.yaml": MODEL.encode()}
    )
    assert together.accepted == ("model.yaml",)
    assert set(together.problems) == {"bad.yaml"}


def test_what_was_never_accepted_cannot_be_withdrawn() -> None:
    """A misspelt name would be reported as withdrawn."""
    with pytest.raises(KeyError):
        catalogue.withdraw(accepted(cluster=CLUSTER), "no-such.yaml")
