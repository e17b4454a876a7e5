"""The annotation by which a file overrides the refusal of its harm, and the place that a refusal points to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

from federation.policy.documents import FORCE_ANNOTATION, PlacementPolicy
from federation.policy.load import ParsedFile
from federation.yamlkit.explain import Problem, problem_at
from federation.yamlkit.source import START

DIGEST_CHARACTERS = 12


def digest(file: ParsedFile) -> str:
    """A digest of the file's content, without the annotation."""
    plain = [msgspec.to_builtins(one.document) for one in file.documents]
    for one in plain:
        one["metadata"].get("annotations", {}).pop(FORCE_ANNOTATION, None)
    return f"sha256:{hashlib.sha256(msgspec.json.encode(plain, order='deterministic')).hexdigest()}"


def shown(digest: str) -> str:
    """The part of a digest that an annotation has to name."""
    return digest[: len("sha256:") + DIGEST_CHARACTERS]


def allowed_by(file: ParsedFile) -> str:
    """The reason in the file's annotation, if its digest matches the content; otherwise empty."""
    wanted = digest(file)
    for one in file.documents:
        named, _, reason = one.document.metadata.annotations.get(FORCE_ANNOTATION, "").partition(" ")
        if len(named) >= len(shown(wanted)) and wanted.startswith(named) and reason.strip():
            return reason.strip()[:500]
    return ""


def how_to_force(file: ParsedFile | None) -> str:
    """How to override a refusal."""
    by_hand = 'if this is intended, apply it with --force --reason "…"'
    if file is None:
        return by_hand
    return f'{by_hand}, or add to metadata.annotations: {FORCE_ANNOTATION}: "{shown(digest(file))} REASON"'


def problems_of(
    file: ParsedFile, before: ParsedFile | None, refusals: Iterable[tuple[str, str]], hint: str
) -> Iterator[Problem]:
    """The refusals, each at the document that concerns the model: its own or a policy that names it, preferably one
    that differs from the file in force."""
    known = {(one.kind, one.name): one.document for one in before.documents} if before is not None else {}
    for model, text in refusals:
        naming = [
            one
            for one in file.documents
            if (one.kind == "Model" and one.name == model)
            or (isinstance(one.document, PlacementPolicy) and model in one.document.spec.models.match_names)
        ]
        naming.sort(key=lambda one: known.get((one.kind, one.name)) == one.document)
        yield problem_at(file.name, naming[0].mark() if naming else START, text, "", hint)
