"""Holds objects to the order: applies those that differ, and reports which field somebody changed, and who.

It is level-based: it compares wanted and existing objects, as often as it is called. Where both agree it sends no
request. `agents/manifests/drift.py` decides which changes are corrected. It forces only objects with the agent's
labels, against managers that do not insist.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from agents.inventory.offers import condition
from agents.kube.api import Api, ApiError
from agents.manifests import drift, names
from federation.aiokit.clock import Clock
from federation.wire import messages

log = structlog.get_logger("agent")
Object = Mapping[str, Any]
Live = dict[tuple[str, str], Object]
"""(path of the kind's collection, name) -> the agent's existing objects."""
TOLD_S = 60.0
"""How long a drift is reported, so that a controller that misses one report still learns of it."""
MOST_EVENTS = 40
EVENTS_S = 60.0
SAME_EVENT_S = 600.0
"""A change that is left alone creates one Event in this time."""
MOST_MENDS = 10
MENDS_S = 600.0
"""An object is corrected at most `MOST_MENDS` times in this time; further changes are reported instead."""
SHOWN_FIELDS = 3


class Drifts:
    """Changes by others: conditions for reports, and Kubernetes Events in the models' namespace."""

    def __init__(self, api: Api, namespace: str, clock: Clock) -> None:
        self._api, self._namespace, self._clock = api, namespace, clock
        self._told: dict[str, tuple[float, messages.Condition]] = {}
        self._posted: deque[float] = deque(maxlen=MOST_EVENTS)
        self._same: dict[tuple[str, str], float] = {}

    def conditions(self) -> tuple[messages.Condition, ...]:
        """The conditions of the last `TOLD_S`."""
        self._told = {key: one for key, one in self._told.items() if self._clock.monotonic_s() - one[0] < TOLD_S}
        return tuple(one for _, one in sorted(self._told.values(), key=lambda told: told[1]))

    async def tell(self, stored: Object, message: str, *, left: bool) -> None:
        """Report a changed object. Args: stored: the object as it is, or the wanted one."""
        subject = f"{stored['kind']}/{stored['metadata']['name']}"
        log.warning("drifted", object=subject, message=message)
        self._told[subject] = (self._clock.monotonic_s(), condition("Drifted", subject, message))
        await self.post(stored, "Drifted", message, left=left)

    async def post(self, stored: Object, reason: str, message: str, *, left: bool) -> None:
        """Create an Event about the object. An Event beyond the limit per minute, or one that fails, is dropped:
        reports have it."""
        now_s = self._clock.monotonic_s()
        same = (stored["metadata"]["name"], message)
        self._same = {key: at_s for key, at_s in self._same.items() if now_s - at_s < SAME_EVENT_S}
        if (left and same in self._same) or (len(self._posted) == MOST_EVENTS and now_s - self._posted[0] < EVENTS_S):
            return
        self._posted.append(now_s)
        if left:
            self._same[same] = now_s
        regarding = {key: stored["metadata"][key] for key in ("name", "namespace", "uid") if key in stored["metadata"]}
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{stored['metadata']['name']}-", "namespace": self._namespace},
            "eventTime": datetime.fromtimestamp(self._clock.wall_s(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "isochrone.dev/agent",
            "reportingInstance": names.MANAGER,
            "action": "Leave" if left else "PutRight",
            "reason": reason,
            "regarding": {"apiVersion": stored["apiVersion"], "kind": stored["kind"], **regarding},
            "note": message[:1000],
            "type": "Warning",
        }
        try:
            await self._api.create(f"/apis/events.k8s.io/v1/namespaces/{self._namespace}/events", event)
        except ApiError as error:
            log.info("no Event made", cause=str(error))


@dataclass(frozen=True, slots=True)
class _Applied:
    """An applied object, and its fields as the API server stored them."""

    body: Object
    made: Any


class Keeper:
    """The objects of one field manager. Args: label: selects them among all objects of a kind."""

    def __init__(self, api: Api, manager: str, label: str, drifts: Drifts, clock: Clock) -> None:
        self._api, self._manager, self._label, self._drifts, self._clock = api, manager, label, drifts, clock
        self._kept: dict[tuple[str, str, str], _Applied] = {}
        self._mends: dict[tuple[str, str, str], deque[float]] = {}
        self.writes = 0
        """Requests that may have changed an object."""

    async def look(self, path: str, version: str, kind: str) -> Live:
        """The existing objects of one kind. Raises: ApiError, msgspec.MsgspecError."""
        items = await self._api.items(path, labelSelector=self._label)
        # Objects of a list do not say their kind.
        return {(path, one["metadata"]["name"]): {**one, "apiVersion": version, "kind": kind} for one in items}

    def forget(self, is_over: Callable[[str, Object], bool]) -> None:
        """Forget objects that are not ordered any more. Args: is_over: of collection path and body."""
        self._kept = {key: one for key, one in self._kept.items() if not is_over(key[0], one.body)}

    async def settle(self, path: str, body: Object, there: Live, *, heal: bool, part: str = "") -> None:
        """Make one object match `body`; it does nothing where the object matches.

        Args: path: of the collection. there: the existing objects, updated by each apply, because an object may be
            settled twice between two reads. heal: whether changes by others are corrected. part: a subresource, such as
            `status`.

        Raises: ApiError: 409 where an insisting manager holds a field; msgspec.MsgspecError.
        """
        name = body["metadata"]["name"]
        key = (path, name, part)
        before, live = self._kept.get(key), there.get((path, name))
        if live is not None and live["metadata"].get("deletionTimestamp"):
            waits = ", ".join(live["metadata"].get("finalizers") or ()) or "its pods"
            raise ApiError(0, f"it is being deleted and waits for {waits}; it is made again once it is gone")
        paths = _changed(before, body, live)
        if before is not None and before.body == body and live is not None and not paths:
            return
        drifted = before is not None and (live is None or bool(paths))
        said = self._say(paths, live)
        if drifted and before is not None and _alike(before.body, body) and not (heal and self._may_mend(key)):
            why = f"it was put right {MOST_MENDS} times in {MENDS_S / 60:.0f} minutes" if heal else "selfHeal is off"
            await self._drifts.tell(live or body, f"{said}; left as it is: {why}", left=True)
            return
        at = f"{path}/{name}" + (f"/{part}" if part else "")
        self.writes += 1
        try:
            stored = await self._api.apply(at, body, self._manager)
        except ApiError as error:
            holders = drift.owners((one.field, one.message) for one in error.causes) if error.status == 409 else ()
            if error.status != 409 or live is None:
                raise
            if not heal or not holders or any(one.insists for one in holders):
                await self._drifts.post(live, "Conflict", error.message, left=True)
                raise
            self.writes += 1
            stored = await self._api.apply(at, body, self._manager, force=True)
            if not drifted:
                drifted = True
                who = ", ".join(sorted({one.manager for one in holders}))
                said = f"{', '.join(one.field for one in holders[:SHOWN_FIELDS])} changed by {who}"
        there[path, name] = stored
        self._kept[key] = _Applied(body, drift.shown(stored, body))
        if drifted:
            self._mends.setdefault(key, deque(maxlen=MOST_MENDS)).append(self._clock.monotonic_s())
            await self._drifts.tell(stored, f"{said}; put right", left=False)

    def _may_mend(self, key: tuple[str, str, str]) -> bool:
        mends = self._mends.get(key)
        return mends is None or len(mends) < MOST_MENDS or self._clock.monotonic_s() - mends[0] > MENDS_S

    def _say(self, paths: tuple[drift.Path, ...], live: Object | None) -> str:
        if live is None:
            return "deleted, or its labels removed"
        who = ", ".join(drift.by_whom(live["metadata"].get("managedFields") or (), paths, self._manager))
        fields = ", ".join(drift.text(one) for one in paths[:SHOWN_FIELDS])
        more = f" and {len(paths) - SHOWN_FIELDS} more" if len(paths) > SHOWN_FIELDS else ""
        return (
            f"{fields}{more} changed by {who}"
            if who
            else f"{fields}{more} removed; the API server does not keep by whom"
        )


def _changed(before: _Applied | None, body: Object, live: Object | None) -> tuple[drift.Path, ...]:
    """Applied fields that somebody changed to a value that is not wanted."""
    if before is None or live is None:
        return ()
    there, wanted = drift.shown(live, before.body), drift.shown(body, body)
    return tuple(
        path for path in drift.differences(before.made, there) if drift.value(there, path) != drift.value(wanted, path)
    )


def _alike(one: Object, other: Object) -> bool:
    """Whether two bodies order the same, whatever their plan."""
    return bool(_without_plan(one) == _without_plan(other))


def _without_plan(body: Object) -> Any:
    metadata = body["metadata"]
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != names.PLAN_ANNOTATION}
    return {**body, "metadata": {**metadata, "annotations": annotations}}
