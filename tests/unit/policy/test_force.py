"""A file that says itself that its harm is meant: bound to its content, with a reason."""

from __future__ import annotations

import pytest

from federation.policy import force
from federation.policy.documents import FORCE_ANNOTATION
from federation.policy.load import ParsedFile, parse
from tests.unit.policy.test_load import MODEL


def annotated(text: str, value: str) -> ParsedFile:
    """The file with the annotation."""
    file = parse(
        "a.yaml", text.replace("metadata: {", f'metadata: {{annotations: {{{FORCE_ANNOTATION}: "{value}"}}, ').encode()
    )
    assert not file.problems, file.problems
    return file


PLAIN = parse("a.yaml", MODEL.encode())


def test_the_annotation_that_a_refusal_names_allows_the_file() -> None:
    """A person would copy the annotation from the refusal, and be refused again."""
    assert force.allowed_by(annotated(MODEL, f"{force.shown(force.digest(PLAIN))} it is retired")) == "it is retired"


def test_the_annotation_does_not_change_what_it_allows() -> None:
    """The digest would change by being written down, and nothing could ever be allowed."""
    assert force.digest(annotated(MODEL, "sha256:0 x")) == force.digest(PLAIN)


def test_an_annotation_allows_no_other_content() -> None:
    """A reason of last year would allow whatever the file says today."""
    value = f"{force.shown(force.digest(PLAIN))} it is retired"
    other = MODEL.replace("requestsPerSecond: ", "requestsPerSecond: 1")
    assert other != MODEL
    assert force.allowed_by(annotated(other, value)) == ""


@pytest.mark.parametrize("value", ["", "sha256: x", "s x", "sha256:DIGEST", "yes please"])
def test_half_a_word_allows_nothing(value: str) -> None:
    """A change that stops users' service would be made without a reason, or by a digest that fits every file."""
    whole = value.replace("sha256:DIGEST", force.shown(force.digest(PLAIN)))
    assert force.allowed_by(annotated(MODEL, whole)) == ""
