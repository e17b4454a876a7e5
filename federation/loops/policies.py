"""Policy files: from a directory with hot reload, and from the API. Accepted means durable, and in force.

A refused file changes nothing: its last accepted revision stays in force and the others are not touched. A file that is
gone from the directory stays in force too, which is said: missing data is never an order to delete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
import watchfiles
import yaml

from federation import resources
from federation.adapters.store import PolicyRevision, Store
from federation.loops.hub import Hub
from federation.policy import catalogue
from federation.policy.catalogue import PolicySet, Product
from federation.policy.documents import Continent, Country
from federation.state.reduce import DocumentsAccepted, Note, reduce
from federation.state.world import World
from federation.yamlkit.explain import Problem
from federation.yamlkit.source import MAX_BYTES

log = structlog.get_logger("policies")
SUFFIXES = (".yaml", ".yml")
HOW_TO_WITHDRAW = "`isochrone delete policy NAME` withdraws it"


class Rejected(Exception):
    """A file that was refused, and why."""

    def __init__(self, name: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems[0].text())
        self.name = name
        self.problems = problems


class Kept(Exception):
    """A file that stays in force, and what has to be done before it can be withdrawn."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A file in force. `changed` is false when it was in force already, byte for byte."""

    revision: int
    documents: tuple[str, ...]
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """A file that was handed in: what of it is in force, and what is wrong with its newest content."""

    name: str
    revision: int
    accepted_at_s: float | None
    documents: tuple[str, ...]
    problems: tuple[Problem, ...]


def shipped_products() -> dict[str, Product]:
    """The accelerators that the product knows by itself."""
    raw = yaml.safe_load((resources.configs() / "accelerators.yaml").read_text(encoding="utf-8"))
    return {
        one["product"]: Product(name=one["product"], mig_profiles=tuple(one.get("migProfiles", ())))
        for one in raw["accelerators"]
    }


def shipped_continents() -> dict[Country, Continent]:
    """The continent of each country that the product knows."""
    raw = yaml.safe_load((resources.configs() / "continents.yaml").read_text(encoding="utf-8"))
    table = msgspec.convert(raw["continents"], dict[Continent, str])
    return {country: continent for continent, countries in table.items() for country in countries.split()}


def read_bounded(path: Path) -> bytes:
    """The file, or as much of it as shows that it is too long."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def read_directory(directory: Path) -> dict[str, bytes]:
    """Every policy file below `directory`, by its path there."""
    paths = [path for path in directory.rglob("*.y*ml") if path.suffix in SUFFIXES and path.is_file()]
    return {path.relative_to(directory).as_posix(): read_bounded(path) for path in sorted(paths)}


class Desk:
    """Where policy files are handed in."""

    def __init__(self, hub: Hub, store: Store) -> None:
        self._hub = hub
        self._store = store
        self._set = PolicySet(products=shipped_products())
        self._revisions: dict[str, PolicyRevision] = {}
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._directory: Path | None = None
        self._accepting = asyncio.Lock()

    def restore(self, revisions: Iterable[PolicyRevision]) -> None:
        """Put in force what was accepted before; it was checked then, and a stricter version must not lose it."""
        for one in revisions:
            following, problems = catalogue.accept(self._set, one.name, one.payload)
            if problems:
                text = f"{one.name} was accepted by an earlier version and is not now: {problems[0].text()}"
                self._hub.tell(Note(type="Warning", reason="PolicyOutdated", object=f"policy/{one.name}", message=text))
            self._set = following
            self._revisions[one.name] = one
        self._believe()

    async def read(self, directory: Path) -> None:
        """Hand in every file of the directory: catalogues first, for what others refer to."""
        self._directory = directory
        payloads = await asyncio.to_thread(read_directory, directory)
        for name in sorted(payloads, key=lambda one: (b"kind: Cluster" not in payloads[one], one)):
            await self._hand_in(name, payloads[name])

    async def watch(self, directory: Path) -> None:
        """Hand in files as they change, for ever."""
        root = await asyncio.to_thread(directory.resolve)
        async for changes in watchfiles.awatch(root, step=100, debounce=400):
            for path in sorted(Path(name) for _, name in changes):
                if path.suffix not in SUFFIXES:
                    continue
                name = path.relative_to(root).as_posix()
                try:
                    payload = await asyncio.to_thread(read_bounded, path)
                except FileNotFoundError:
                    self._gone(name)
                    continue
                await self._hand_in(name, payload)

    def _gone(self, name: str) -> None:
        if name in self._revisions:
            text = f"{name} is gone from the directory; its last accepted revision stays in force: {HOW_TO_WITHDRAW}"
            self._hub.tell(Note(type="Warning", reason="PolicyFileGone", object=f"policy/{name}", message=text))

    async def _hand_in(self, name: str, payload: bytes) -> None:
        try:
            await self.accept(name, payload, actor="directory")
        except Rejected as error:
            self._hub.tell(
                Note(type="Warning", reason="PolicyRefused", object=f"policy/{name}", message=f"refused: {error}")
            )

    async def accept(self, name: str, payload: bytes, *, actor: str) -> Accepted:
        """Put a file in force. Raises: Rejected; StoreError, and then it is not in force."""
        async with self._accepting:
            following, problems = catalogue.accept(self._set, name, payload)
            problems = problems or tuple(
                Problem(file=name, line=1, column=1, message=text, hint=hint)
                for text, hint in self._lost_in_use(following)
            )
            if problems:
                self._problems[name] = problems
                raise Rejected(name, problems)
            self._problems.pop(name, None)
            known = self._revisions.get(name)
            names = _names(following, name)
            if known is not None and known.payload == payload:
                self._set = following
                return Accepted(revision=known.revision, documents=names, changed=False)
            at_s = self._hub.clock.wall_s()
            revision = await self._store.add_policy(name, payload, at_s=at_s, actor=actor)
            self._set = following
            self._revisions[name] = PolicyRevision(revision=revision, name=name, payload=payload, accepted_at_s=at_s)
            self._believe()
            text = f"{name}: revision {revision} is in force ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
            self._hub.tell(Note(reason="PolicyAccepted", object=f"policy/{name}", message=text))
            return Accepted(revision=revision, documents=names, changed=True)

    async def withdraw(self, name: str, *, actor: str) -> tuple[str, ...]:
        """Take a file out of force; gives its documents. Raises: KeyError; Kept; StoreError, and then it stays."""
        async with self._accepting:
            following = catalogue.withdraw(self._set, name)
            if self._directory is not None and await asyncio.to_thread((self._directory / name).exists):
                raise Kept(f"{name} lies in the policy directory", "remove it there first, or it would come back")
            for text, hint in self._lost_in_use(following):
                raise Kept(text, hint)
            names = _names(self._set, name)
            await self._store.withdraw_policy(name, at_s=self._hub.clock.wall_s(), actor=actor)
            self._set = following
            del self._revisions[name]
            self._problems.pop(name, None)
            self._believe()
            text = f"{name} is withdrawn ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
            self._hub.tell(Note(reason="PolicyWithdrawn", object=f"policy/{name}", message=text))
            return names

    def _lost_in_use(self, following: PolicySet) -> Iterator[tuple[str, str]]:
        """Clusters that would leave the catalogue with replicas in them: (what is wrong, what to do)."""
        gone = _clusters(self._set) - _clusters(following)
        running: dict[str, int] = dict.fromkeys(gone, 0)
        for key, count in self._hub.plan.desired_by_key().items():
            if key[1] in gone:
                running[key[1]] += count
        for cluster, count in sorted(running.items()):
            if count:
                yield (
                    f"cluster {cluster} would leave the catalogue with {count} replicas in it",
                    f"`isochrone drain {cluster} --reason …` first",
                )

    def what_if(self, name: str, payload: bytes) -> World:
        """The world as it would be with this file in force.

        Raises: Rejected.
        """
        following, problems = catalogue.accept(self._set, name, payload)
        if problems:
            raise Rejected(name, problems)
        event = DocumentsAccepted(documents=following.documents(), now_s=self._hub.clock.monotonic_s())
        return reduce(self._hub.world, event).world

    def files(self) -> tuple[FileState, ...]:
        """Every file, accepted or not."""
        return tuple(
            FileState(
                name=name,
                revision=self._revisions[name].revision if name in self._revisions else 0,
                accepted_at_s=self._revisions[name].accepted_at_s if name in self._revisions else None,
                documents=_names(self._set, name),
                problems=self._problems.get(name, ()),
            )
            for name in sorted(self._revisions.keys() | self._problems.keys())
        )

    def _believe(self) -> None:
        event = DocumentsAccepted(documents=self._set.documents(), now_s=self._hub.clock.monotonic_s())
        self._hub.apply(event)


def _clusters(files: PolicySet) -> set[str]:
    return {one.name for file in files.files.values() for one in file.documents if one.kind == "Cluster"}


def _names(files: PolicySet, name: str) -> tuple[str, ...]:
    parsed = files.files.get(name)
    return tuple(f"{one.kind}/{one.name}" for one in parsed.documents) if parsed is not None else ()
