"""What has become of an object since it was applied, by whom, and whether it may be put right. Pure.

Compared are the fields that we apply and nothing else, in the API server's own words: with what it answered when they
were applied, so that defaults, rounded quantities and what admission adds are no drift.

The rule. A field that was changed by an `Update` (`kubectl edit`, `scale`, `set image`, a script) is put right. A field
that another manager holds by `Apply` (a GitOps controller, `kubectl apply --server-side`) is left to it, as is the
count of a Deployment that a HorizontalPodAutoscaler or KEDA scales: two that insist would change it for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Path = tuple[str, ...]
"""Keys from the object's root; an element of a list that has names is `[NAME]`."""
AUTOSCALERS = ("kube-controller-manager", "keda", "keda-operator")
"""Field managers of what scales Deployments by itself, by the subresource `scale`."""
REPLICAS = ".spec.replicas"
_SAID = re.compile(
    r'conflict with "(?P<manager>[^"]*)"(?: with subresource "(?P<subresource>[^"]*)")?(?P<update> using )?'
)
_ABSENT: Any = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who holds a field, by an API server's words. `update` is false of one who applied it."""

    field: str
    manager: str
    subresource: str = ""
    update: bool = False

    @property
    def insists(self) -> bool:
        """Whether it would set the field again and again: then it is left to it."""
        return not self.update or (self.subresource == "scale" and self.manager in AUTOSCALERS)


def owners(causes: Iterable[tuple[str, str]]) -> tuple[Owner, ...]:
    """Who holds what, by the causes (field, message) of a conflict. What is not understood counts as applied."""
    found = []
    for field, message in causes:
        said = _SAID.search(message)
        if said is None:
            found.append(Owner(field=field, manager=message))
            continue
        update = said["update"] is not None
        found.append(Owner(field=field, manager=said["manager"], subresource=said["subresource"] or "", update=update))
    return tuple(found)


def shown(live: Any, body: Any) -> Any:
    """Of `live` what `body` names, in the same shape. A list is taken whole, unless its elements have names."""
    if isinstance(body, Mapping) and isinstance(live, Mapping):
        return {key: shown(live[key], part) for key, part in body.items() if key in live}
    if isinstance(body, list) and isinstance(live, list) and _has_names(body) and _has_names(live):
        named = {one["name"]: one for one in live}
        return {f"[{one['name']}]": shown(named[one["name"]], one) for one in body if one["name"] in named}
    return live


def _has_names(items: list[Any]) -> bool:
    names = [one.get("name") for one in items if isinstance(one, Mapping)]
    return bool(items) and len(names) == len(items) == len(set(names)) and all(isinstance(one, str) for one in names)


def differences(made: Any, live: Any, at: Path = ()) -> Iterator[Path]:
    """Where what is there differs from what was made; both as `shown` gives them."""
    if isinstance(made, Mapping) and isinstance(live, Mapping):
        for key in sorted(made.keys() | live.keys()):
            yield from differences(made.get(key, _ABSENT), live.get(key, _ABSENT), (*at, key))
    elif made is _ABSENT or live is _ABSENT or made != live:
        yield at


def text(path: Path) -> str:
    """As people write it: `.spec.template.spec.containers[model].image`."""
    return "".join(one if one.startswith("[") else f".{one}" for one in path)


def value(of: Any, path: Path) -> Any:
    """What is at a path of something `shown`; `_ABSENT` where there is nothing."""
    for key in path:
        if not isinstance(of, Mapping) or key not in of:
            return _ABSENT
        of = of[key]
    return of


def by_whom(managed: Iterable[Mapping[str, Any]], paths: Iterable[Path], own: str) -> tuple[str, ...]:
    """Field managers that hold one of these paths, sorted. Who removed something holds nothing."""
    others = [one for one in managed if one.get("manager") != own and one.get("subresource") != "status"]
    return tuple(
        sorted({str(one.get("manager")) for path in paths for one in others if _holds(one.get("fieldsV1", {}), path)})
    )


def _holds(fields: Any, path: Path) -> bool:
    """Whether a FieldsV1 set has this path, or one above or below it that is held whole."""
    for key in path:
        if not isinstance(fields, Mapping):
            return False
        if not fields:
            return True
        if not key.startswith("["):
            fields = fields.get(f"f:{key}")
            continue
        name = key[1:-1]
        fields = next((part for at, part in fields.items() if at.startswith("k:") and _is_named(at[2:], name)), None)
    return fields is not None


def _is_named(key: str, name: str) -> bool:
    try:
        return bool(json.loads(key).get("name") == name)
    except (ValueError, AttributeError):
        return False
