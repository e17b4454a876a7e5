"""Labels, annotations and names of everything an agent makes: how it finds its own again, and nobody else's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from federation.wire import messages, quantity

MANAGER = "isochrone-agent"
"""Field manager of server-side apply."""
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "isochrone"
MODEL_LABEL = "isochrone.dev/model"
TRAFFIC_LABEL = "isochrone.dev/traffic"
"""On what says where requests go, which lives and ends apart from the replicas."""
INSTANCE_LABEL = "isochrone.dev/instance"
POOL_ANNOTATION = "isochrone.dev/pool"
PLAN_ANNOTATION = "isochrone.dev/plan"
AUTOSCALED_ANNOTATION = "isochrone.dev/autoscaled"
"""On a Deployment whose replicas a HorizontalPodAutoscaler rules, or is about to: how many were placed."""
_POOL = re.compile(r"([^:/]+)(?::([^/]+))?/(on-demand|spot|reserved)")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def is_name(model: str) -> bool:
    """Whether objects can be named after a model: a DNS label."""
    return _DNS_LABEL.fullmatch(model) is not None


def instance_name(model: str, pool: messages.PoolKey) -> str:
    """The Deployment of a model in a pool: a DNS label, unique even when it had to be cut."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{model}-{pool.text}".lower()).strip("-")
    digest = hashlib.sha256(f"{model}|{pool.text}".encode()).hexdigest()[:6]
    return f"{slug[:56].rstrip('-')}-{digest}"


def service_name(model: str) -> str:
    """The Service of a model over all its pools here: its own name, or one that begins with a letter, as a Service's
    does."""
    return model if model[:1].isalpha() else unique(f"m-{model}", model)


def unique(readable: str, *parts: str) -> str:
    """A DNS label that begins as `readable` does, of at most 63 characters: no other parts give the same."""
    digest = hashlib.sha256("|".join(parts).encode()).hexdigest()[:8]
    slug = re.sub(r"[^a-z0-9]+", "-", readable.lower()).strip("-")
    return f"{slug[:54].rstrip('-')}-{digest}"


def pool_of(annotations: Mapping[str, str] | None) -> messages.PoolKey | None:
    """The pool that an object was made for, or None when it does not say."""
    match = _POOL.fullmatch((annotations or {}).get(POOL_ANNOTATION, ""))
    if match is None:
        return None
    return messages.PoolKey(product=match[1], mig_profile=match[2] or "", market=match[3])  # type: ignore[arg-type]


def plan_of(annotations: Mapping[str, str] | None) -> tuple[int, int]:
    """The (epoch, generation) that an object was last applied by, or (0, 0)."""
    epoch, _, generation = (annotations or {}).get(PLAN_ANNOTATION, "").partition(".")
    found = quantity.whole(epoch, most=messages.MOST_ORDINAL), quantity.whole(generation, most=messages.MOST_ORDINAL)
    return (0, 0) if found[0] is None or found[1] is None else (found[0], found[1])
