"""Policy files, from a directory with hot reload and from the API. An accepted file is durable and in force.

A refused file changes nothing: its last accepted revision stays in force, and other files are not affected. A file that
disappears from the directory stays in force too, and an event reports it: missing data is never an order to delete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
import watchfiles

from federation.adapters.directory import PolicyDirectory
from federation.adapters.store import PolicyRevision, Store, StoreError
from federation.control import blast, staged
from federation.control.placement_cycle import Proposal
from federation.control.plan import Forced
from federation.control.problem import Formulated
from federation.loops import guard
from federation.loops.hub import Hub
from federation.policy import catalogue, sense
from federation.policy.catalogue import PolicySet
from federation.policy.documents import Documents
from federation.policy.force import allowed_by, how_to_force, problems_of
from federation.state.reduce import DocumentsAccepted, Note, reduce
from federation.state.shipped import shipped_products
from federation.state.world import World
from federation.yamlkit.explain import Problem

log = structlog.get_logger("policies")
POLL_S = 5.0
"""The directory is read this often even without a change event: links may lead to places that nobody watches."""
DIRECTORY = "directory"
"""The actor for files of the directory."""
PROBLEMS_TOLD = 10
"""Problems in one event; `get policies` lists all."""
HOW_TO_BE_READ = "a policy file is a regular file, or a link to one, that the controller may read"
HOW_TO_WITHDRAW = "`isochrone delete policy NAME` withdraws it"


class Rejected(Exception):
    """A refused file, and the problems."""

    def __init__(self, name: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems[0].text())
        self.name = name
        self.problems = problems


class NeedsForce(Rejected):
    """A file whose content would do harm: the harm, and how to confirm it."""


class Kept(Exception):
    """A file that stays in force, and what has to be done before it can be withdrawn."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedFile:
    """A file in force. `changed` is false when it was in force already, byte for byte."""

    revision: int
    documents: tuple[str, ...]
    changed: bool
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """A file that was handed in: the part that is in force, and the problems of its newest content."""

    name: str
    revision: int
    accepted_at_s: float | None
    documents: tuple[str, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()
    """Parts of the revision in force that have less effect than they say."""
    carrying_out: str = ""
    """The progress of a forced change, or empty."""


class PolicyIntake:
    """Accepts, keeps and withdraws policy files."""

    def __init__(
        self, hub: Hub, store: Store, solver: guard.Engine | None = None, limits: blast.BlastLimits | None = None
    ) -> None:
        """Args: solver: predicts the effect of documents; None predicts only what needs no engine."""
        self._hub = hub
        self._store = store
        self._guard = guard.Guard(hub, solver, limits or blast.BlastLimits())
        self._set = PolicySet(products=shipped_products())
        self._revisions: dict[str, PolicyRevision] = {}
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._warnings: dict[str, tuple[Problem, ...]] = {}
        self._directory: Path | None = None
        self._reader: PolicyDirectory | None = None
        self._offered: dict[str, bytes] = {}
        """The content of the directory when it was last handed in, by name."""
        self._offered_beside: PolicySet | None = None
        """The files in force after that: a file that was refused beside these may be accepted beside others."""
        self._missed: frozenset[str] = frozenset()
        """Files that an event has reported missing from the directory."""
        self._unread: frozenset[str] = frozenset()
        self._waiting: frozenset[str] = frozenset()
        """Files whose change waits until clusters are heard."""
        self._told_problems: dict[str, tuple[Problem, ...]] = {}
        self._is_directory_lost = False
        self._is_store_failing = False
        self._accepting = asyncio.Lock()

    def restore(self, revisions: Iterable[PolicyRevision]) -> None:
        """Put the files of the store in force. They were checked before; a stricter version must not lose them."""
        for one in revisions:
            following, problems = catalogue.accept(self._set, one.name, one.payload, is_new=False)
            if problems:
                text = f"{one.name} was accepted by an earlier version and is not now: {problems[0].text()}"
                self._hub.tell(Note(type="Warning", reason="PolicyOutdated", object=f"policy/{one.name}", message=text))
            self._set = following
            self._revisions[one.name] = one
        self._believe()

    async def read(self, directory: Path) -> None:
        """Hand in every file of the directory."""
        self._directory, self._reader = directory, PolicyDirectory(directory)
        await self._look(self._reader)

    async def watch(self, directory: Path) -> None:
        """Hand in files as they change, for ever. A problem with one of them is reported and ends nothing."""
        self._directory = directory
        reader = self._reader = self._reader or PolicyDirectory(directory)
        while True:
            try:
                root = await asyncio.to_thread(directory.resolve, strict=True)
                changes = watchfiles.awatch(
                    root,
                    watch_filter=None,
                    step=100,
                    debounce=400,
                    rust_timeout=int(POLL_S * 1000),
                    yield_on_timeout=True,
                    ignore_permission_denied=True,
                )
                async with aclosing(changes):
                    async for _ in changes:
                        await self._look(reader)
                        if await asyncio.to_thread(directory.resolve) != root:
                            break
            except (OSError, RuntimeError) as error:
                log.warning("the policy directory is not watched, and looked at instead", cause=str(error))
                await asyncio.sleep(POLL_S)
                await self._look(reader)

    async def _look(self, reader: PolicyDirectory) -> None:
        """Hand in all changes of the directory together; report files that are gone or unreadable."""
        reading = await asyncio.to_thread(reader.read)
        if not reading.is_there:
            if not self._is_directory_lost:
                text = f"{reader.path} cannot be read ({reading.refused['.']}); what was accepted stays in force"
                self._hub.tell(Note(type="Warning", reason="PolicyDirectoryLost", object="controller", message=text))
            self._is_directory_lost = True
            return
        self._is_directory_lost = False
        for name, cause in sorted(reading.refused.items()):
            self._refuse(name, (Problem(file=name, line=1, column=1, message=cause, hint=HOW_TO_BE_READ),))
        for name in self._unread - reading.refused.keys():
            self._problems.pop(name, None)
        self._unread = frozenset(reading.refused)
        gone = {
            name
            for name, one in self._revisions.items()
            if (one.actor == DIRECTORY or name in self._offered)
            and not (name in reading.files or reading.is_unknown(name))
        }
        beside_others = self._offered_beside is not self._set
        changed = {}
        for name, payload in reading.files.items():
            is_judged = name in self._revisions or name in self._problems
            if self._offered.get(name) != payload or not is_judged or (beside_others and name in self._problems):
                changed[name] = payload
        if changed and not self._have_to_wait(changed):
            await self._hand_in(changed, gone)
        self._offered_beside = self._set
        gone &= self._revisions.keys()
        for name in sorted(gone - self._missed):
            text = f"{name} is gone from the directory; its last accepted revision stays in force: {HOW_TO_WITHDRAW}"
            self._hub.tell(Note(type="Warning", reason="PolicyFileGone", object=f"policy/{name}", message=text))
        self._missed = frozenset(gone)
        self._offered = {name: payload for name, payload in self._offered.items() if name in reading.files}

    def _have_to_wait(self, changed: Mapping[str, bytes]) -> bool:
        """Whether these change serving models before any cluster is heard that could show the effect, as at a start
        beside an edited directory."""
        hub = self._hub
        is_serving = any(one.replicas for one in hub.plan.desired)
        if not is_serving or hub.world.is_settled(hub.clock.monotonic_s()):
            self._waiting = frozenset()
            return False
        new = {
            name
            for name, payload in changed.items()
            if name not in self._revisions or self._revisions[name].payload != payload
        }
        for name in sorted(new - self._waiting):
            text = f"{name} waits until clusters are heard: what it does to users is foreseen then"
            hub.tell(Note(reason="PolicyWaits", object=f"policy/{name}", message=text))
        self._waiting = frozenset(new)
        return bool(new)

    async def _hand_in(self, changed: Mapping[str, bytes], gone: Collection[str]) -> None:
        """Put as many of these files in force as possible, together, so that documents can move from one file to
        another."""
        try:
            async with self._accepting:
                together = catalogue.accept_together(self._set, changed, gone)
                accepted = {name: changed[name] for name in together.accepted}
                if not any(self._lost_in_use(together.following)) and not await self._harm(together.following):
                    await self._put_in_force(together.following, accepted, together.replaced, actor=DIRECTORY)
                    accepted = {}
            for name in sorted(accepted, key=lambda one: (b"kind: Cluster" not in changed[one], one)):
                try:
                    await self.accept(name, changed[name], actor=DIRECTORY)
                except Rejected as error:
                    self._refuse(name, error.problems, again=self._offered.get(name) != changed[name])
            for name, problems in sorted(together.problems.items()):
                self._refuse(name, problems, again=self._offered.get(name) != changed[name])
        except StoreError as error:
            if not self._is_store_failing:
                text = f"changed policy files are not in force, as they cannot be stored: {error}; they are tried again"
                self._hub.tell(Note(type="Warning", reason="PolicyNotStored", object="controller", message=text))
            self._is_store_failing = True
            return
        self._is_store_failing = False
        self._offered |= changed

    def _refuse(self, name: str, problems: tuple[Problem, ...], *, again: bool = False) -> None:
        """Report the problems of a file of the directory: once, or once per content."""
        if self._told_problems.get(name) != problems or again:
            text = f"refused: {'; '.join(one.text() for one in problems[:PROBLEMS_TOLD])}"
            more = f"; and {len(problems) - PROBLEMS_TOLD} more" if len(problems) > PROBLEMS_TOLD else ""
            self._hub.tell(Note(type="Warning", reason="PolicyRefused", object=f"policy/{name}", message=text + more))
        self._problems[name] = self._told_problems[name] = problems

    async def accept(self, name: str, payload: bytes, *, actor: str, force: str = "") -> AcceptedFile:
        """Put a file in force. Args: force: the reason for accepting its harm.

        Raises: Rejected; NeedsForce; StoreError, and then it is not in force.
        """
        async with self._accepting:
            following, problems = catalogue.accept(self._set, name, payload)
            problems = problems or tuple(
                Problem(file=name, line=1, column=1, message=text, hint=hint)
                for text, hint in self._lost_in_use(following)
            )
            if problems:
                raise Rejected(name, problems)
            file = following.files[name]
            force = force or allowed_by(file)
            effect = await self._guard.foresee(following.documents())
            refusals = effect.refusals_of(self._guard.limits)
            if refusals and not force:
                harm = problems_of(file, self._set.files.get(name), refusals, how_to_force(file))
                problems = (*harm, *self._doubts(name, following))  # often they are why
                raise NeedsForce(name, problems)
            self._tell_unforeseen(name, effect)
            ordered = self._ordered(name, effect, actor, force) if refusals else None
            resumed = force and await self._resume(name, actor, force)
            accepted = await self._put_in_force(
                following, {name: payload}, (), actor=actor, force=force if refusals or resumed else "", ordered=ordered
            )
            return accepted[name]

    async def _harm(self, following: PolicySet) -> bool:
        """Whether these files together need a person's confirmation."""
        effect = await self._guard.foresee(following.documents())
        return bool(effect.refusals(self._guard.limits))

    def _ordered(self, name: str, effect: blast.Effect, actor: str, force: str) -> Forced:
        """The order of a person; an event reports it."""
        subject = f"policy/{name}"
        text = f"{name} is forced by {actor} ({force}): {'; '.join(effect.refusals(self._guard.limits))}"
        self._hub.tell(Note(type="Warning", reason="PolicyForced", object=subject, message=text))
        at_s = self._hub.clock.wall_s()
        return staged.order(effect, self._hub.world, subject=subject, actor=actor, reason=force, at_s=at_s)

    def _tell_unforeseen(self, name: str, effect: blast.Effect) -> None:
        if not effect.is_foreseen and effect.why_not:
            text = f"what {name} does to users could only be foreseen in part: {effect.why_not}"
            self._hub.tell(Note(type="Warning", reason="PolicyNotForeseen", object=f"policy/{name}", message=text))

    async def _resume(self, name: str, actor: str, force: str) -> bool:
        """Continue a forced change that was halted, with the present harm as the allowed harm. Returns whether there
        was one."""
        hub, subject = self._hub, f"policy/{name}"
        async with hub.committing:
            halted = [one for one in hub.plan.forced if one.object == subject and one.halted]
            if not halted:
                return False
            unserved_rps = blast.unserved_rps(hub.routes, hub.demand_rps())
            forced = staged.resume(hub.plan.forced, subject, hub.world, unserved_rps, actor=actor, reason=force)
            hub.plan = replace(hub.plan, forced=forced)
        text = f"what {halted[0].actor} forced by {name} goes on by {actor}: {force}"
        hub.tell(Note(type="Warning", reason="ForcedChangeResumed", object=subject, message=text))
        hub.resteer.set("a forced change goes on")
        return True

    async def _put_in_force(
        self,
        following: PolicySet,
        payloads: Mapping[str, bytes],
        replaced: Collection[str],
        *,
        actor: str,
        force: str = "",
        ordered: Forced | None = None,
    ) -> dict[str, AcceptedFile]:
        """Store accepted files, and take them into the beliefs. The files of `replaced` leave, because these have all
        their documents.

        Args: force: the reason for the audit. ordered: the change to carry out in steps.

        Raises: StoreError, and then none of them is in force.
        """
        changed = {
            name: payload
            for name, payload in payloads.items()
            if name not in self._revisions or self._revisions[name].payload != payload
        }
        if changed or replaced:
            at_s = self._hub.clock.wall_s()
            revisions = await self._store.add_policies(changed, replaced=replaced, at_s=at_s, actor=actor, reason=force)
            for name, revision in revisions.items():
                self._revisions[name] = PolicyRevision(
                    revision=revision, name=name, payload=changed[name], accepted_at_s=at_s, actor=actor
                )
        self._set = following
        for name in (*payloads, *replaced):
            self._problems.pop(name, None)
            self._told_problems.pop(name, None)
        if changed or replaced:
            await self._begin(ordered)
        for name in replaced:
            del self._revisions[name]
            self._warnings.pop(name, None)
            text = f"{name} is gone from the directory; other files have all its documents"
            self._hub.tell(Note(reason="PolicyMoved", object=f"policy/{name}", message=text))
        accepted = {}
        for name in payloads:
            names = _names(following, name)
            revision = self._revisions[name].revision
            doubts = self._warnings[name] = self._doubts(name, following)
            accepted[name] = AcceptedFile(revision=revision, documents=names, changed=name in changed, warnings=doubts)
            if name in changed:
                listed = f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
                text = f"{name}: revision {revision} is in force ({listed})"
                self._hub.tell(Note(reason="PolicyAccepted", object=f"policy/{name}", message=text))
                for one in doubts[:PROBLEMS_TOLD]:
                    self._hub.tell(
                        Note(type="Warning", reason="PolicyDoubtful", object=f"policy/{name}", message=one.text())
                    )
        return accepted

    def _doubts(self, name: str, files: PolicySet) -> tuple[Problem, ...]:
        """Parts of a file in force that have less effect than they say, by the reports of agents."""
        reported = {
            cluster: tuple(
                sense.Stock(
                    product=pool.key.product,
                    mig_profile=pool.key.mig_profile,
                    market=pool.key.market,
                    vram_gib=pool.vram_gib if pool.vram_known else None,
                    devices=pool.allocatable,
                )
                for pool in one.report.pools
            )
            for cluster, one in self._hub.world.clusters.items()
            if one.report is not None
        }
        return catalogue.warnings(files, name, reported)

    async def roll_back(self, name: str, revision: int | None, *, actor: str, force: str = "") -> AcceptedFile:
        """Put an earlier content of a file in force: `revision`, or the newest that differs. Args: force: as in
        `accept`.

        Raises: KeyError where no such revision is kept; Kept; Rejected; NeedsForce; StoreError.
        """
        if self._directory is not None and await asyncio.to_thread((self._directory / name).exists):
            raise Kept(f"{name} lies in the policy directory", "change it there, or it would come back")
        found = await self._store.earlier_policy(name, revision)
        if found is None:
            raise KeyError(name)
        return await self.accept(name, found[1], actor=actor, force=force)

    async def withdraw(self, name: str, *, actor: str, force: str = "") -> tuple[str, ...]:
        """Take a file out of force. Returns its documents. Args: force: the reason for accepting the harm.

        Raises: KeyError; Kept; NeedsForce; StoreError, and then it stays.
        """
        async with self._accepting:
            if force and name not in self._set.files and await self._resume(name, actor, force):
                return ()
            following = catalogue.withdraw(self._set, name)
            if self._directory is not None and await asyncio.to_thread((self._directory / name).exists):
                raise Kept(f"{name} lies in the policy directory", "remove it there first, or it would come back")
            for text, hint in self._lost_in_use(following):
                raise Kept(text, hint)
            effect = await self._guard.foresee(following.documents())
            refusals = effect.refusals(self._guard.limits)
            if refusals and not force:
                hint = how_to_force(None)
                raise NeedsForce(
                    name, tuple(Problem(file=name, line=1, column=1, message=one, hint=hint) for one in refusals)
                )
            self._tell_unforeseen(name, effect)
            names = _names(self._set, name)
            ordered = self._ordered(name, effect, actor, force) if refusals else None
            reason = force if refusals else ""
            await self._store.withdraw_policy(name, at_s=self._hub.clock.wall_s(), actor=actor, reason=reason)
            self._set = following
            del self._revisions[name]
            self._problems.pop(name, None)
            self._warnings.pop(name, None)
            await self._begin(ordered)
            text = f"{name} is withdrawn ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
            self._hub.tell(Note(reason="PolicyWithdrawn", object=f"policy/{name}", message=text))
            return names

    async def _begin(self, ordered: Forced | None) -> None:
        """Take the files into the beliefs; a person's order enters the plan before the next step uses them."""
        hub = self._hub
        if ordered is None:
            self._believe()
            return
        async with hub.committing:
            others = tuple(one for one in hub.plan.forced if one.object != ordered.object)
            hub.plan = replace(hub.plan, forced=(*others, ordered))
            self._believe()

    def _lost_in_use(self, following: PolicySet) -> Iterator[tuple[str, str]]:
        """Clusters that would leave the catalogue with replicas in them: (the problem, the next step)."""
        gone = _clusters(self._set) - _clusters(following)
        for cluster, count in blast.lost_in_use(gone, self._hub.plan).items():
            yield (
                f"cluster {cluster} would leave the catalogue with {count} replicas in it",
                f"`isochrone drain {cluster} --reason …` first",
            )

    async def refusals(self, following: Documents, formulated: Formulated, answer: Proposal) -> tuple[str, ...]:
        """Why documents would need a person's confirmation, by the engine's proposal for them; empty where they would
        not."""
        effect = await self._guard.foreseen(following, formulated, answer.solution)
        return effect.refusals(self._guard.limits)

    async def refuses_drain(self, cluster: str) -> tuple[str, ...]:
        """Why a drain would need a person's confirmation; empty where other clusters can serve all its users."""
        return await self._guard.refuses_drain(cluster)

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
        """Each file, accepted or not, and files whose forced change or withdrawal is still carried out."""
        forced = {one.object.removeprefix("policy/"): one.state for one in self._hub.plan.forced}
        return tuple(
            FileState(
                name=name,
                revision=self._revisions[name].revision if name in self._revisions else 0,
                accepted_at_s=self._revisions[name].accepted_at_s if name in self._revisions else None,
                documents=_names(self._set, name),
                problems=self._problems.get(name, ()),
                warnings=self._warnings.get(name, ()),
                carrying_out=forced.get(name, ""),
            )
            for name in sorted(self._revisions.keys() | self._problems.keys() | forced.keys())
        )

    def _believe(self) -> None:
        event = DocumentsAccepted(documents=self._set.documents(), now_s=self._hub.clock.monotonic_s())
        self._hub.apply(event)


def _clusters(files: PolicySet) -> set[str]:
    return {one.name for file in files.files.values() for one in file.documents if one.kind == "Cluster"}


def _names(files: PolicySet, name: str) -> tuple[str, ...]:
    parsed = files.files.get(name)
    return tuple(f"{one.kind}/{one.name}" for one in parsed.documents) if parsed is not None else ()
