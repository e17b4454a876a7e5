"""Responses: JSON, refusals with a next step, and large bodies without copies."""

from __future__ import annotations

import json

import pytest

from federation.aiokit.http import CHUNK_BYTES, Shared
from federation.api import answers, views


def test_a_refusal_carries_its_code_cause_and_next_step() -> None:
    """A script could not tell refusals apart, and a person would not learn what to do."""
    response = answers.refuse(409, "NeedsReason", "a reason is needed", "add reason=TEXT")
    assert isinstance(response.body, bytes)
    body = json.loads(response.body)
    assert (response.status, body["code"], body["hint"]) == (409, "NeedsReason", "add reason=TEXT")


@pytest.mark.parametrize(("status", "is_temporary"), [(429, True), (503, True), (404, False), (409, False)])
def test_only_what_passes_by_itself_is_to_be_tried_again(status: int, is_temporary: bool) -> None:
    """Clients would repeat what can never succeed, or give up what succeeds a moment later."""
    assert ("Retry-After" in answers.refuse(status, "Code", "text", "").headers) is is_temporary


def test_a_large_body_is_shared_and_not_copied() -> None:
    """A thousand readers of a large fleet's map would take a thousand times its memory."""
    assert isinstance(answers.answer_bytes(b"x" * (CHUNK_BYTES + 1)).body, Shared)
    assert answers.answer_bytes(b"{}").body == b"{}"


def test_a_list_is_wrapped_as_in_kubernetes() -> None:
    """Scripts that read `.items` would find a bare list."""
    response = answers.answer_list([views.WithdrawnView(name="a.yaml", documents=())])
    assert isinstance(response.body, bytes)
    assert list(json.loads(response.body)) == ["items"]
