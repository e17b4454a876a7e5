"""How a file says that the harm which its content would do is meant, and where in it a refusal points."""

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
    """What identifies the content of a file, whatever allows it."""
    plain = [msgspec.to_builtins(one.document) for one in file.documents]
    for one in plain:
        one["metadata"].get("annotations", {}).pop(FORCE_ANNOTATION, None)
    return f"sha256:{hashlib.sha256(msgspec.json.encode(plain, order='deterministic')).hexdigest()}"


def shown(digest: str) -> str:
    """As much of a digest as an annotation has to name."""
    return digest[: len("sha256:") + DIGEST_CHARACTERS]


def allowed_by(file: ParsedFile) -> str:
    """The reason that an annotation in the file gives for what its content does, or nothing."""
    wanted = digest(file)
    for one in file.documents:
        named, _, reason = one.document.metadata.annotations.get(FORCE_ANNOTATION, "").partition(" ")
        if len(named) >= len(shown(wanted)) and wanted.startswith(named) and reason.strip():
            return reason.strip()[:500]
    return ""


def how_to_force(file: ParsedFile | None) -> str:
    """What to do when it is meant."""
    by_hand = 'if this is intended, apply it with --force --reason "…"'
    if file is None:
        return by_hand
    return f'{by_hand}, or add to metadata.annotations: {FORCE_ANNOTATION}: "{shown(digest(file))} REASON"'


def problems_of(
    file: ParsedFile, before: ParsedFile | None, refusals: Iterable[tuple[str, str]], hint: str
) -> Iterator[Problem]:
    """What documents of this file would do, each where the document stands that concerns the model: its own or a policy
    that names it, and of these one that differs from the file in force."""
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
