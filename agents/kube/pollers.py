"""What is asked of the API server at intervals, by tasks of its own: whether it answers, and what changes slowly.

Reports read what was last answered; they ask nothing themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec
import structlog

from agents.inventory import growth, slices
from agents.inventory.objects import NodePool
from agents.inventory.offers import condition
from agents.inventory.pools import NodeFacts
from agents.kube.api import Api, ApiError
from agents.kube.credentials import CredentialsError
from federation.aiokit.clock import Clock
from federation.wire import messages

log = structlog.get_logger("agent")
LIVENESS_S = 2.0
"""How often the API server is asked for its version: mirrors of one that hangs look like those of a quiet cluster."""
SILENT_S = 8.0
"""Without an answer for so long, the API server counts as gone."""
GROWTH_S = 60.0
"""How often autoscalers are asked: they decide within minutes."""
GROWTH_RETRY_S = 2.0
"""How soon they are asked again while nodes cannot be read."""
MAX_GROWTH = 512
AUTOSCALER_STATUS = "/api/v1/namespaces/kube-system/configmaps/cluster-autoscaler-status"
DEVICES = "/apis/resource.k8s.io"
NODE_POOLS = "/apis/karpenter.sh/v1/nodepools"


class _Version(msgspec.Struct, rename="camel"):
    git_version: str = ""


class Liveness:
    """Whether the API server answers, and its version. `version` is that of the last answer, empty before the first."""

    def __init__(self, api: Api, clock: Clock) -> None:
        self.version = ""
        self._api, self._clock = api, clock
        self._failure = "not asked yet"
        self._answered_s = clock.monotonic_s()

    @property
    def problem(self) -> str:
        """Why the API server counts as gone, or nothing."""
        silent_s = self._clock.monotonic_s() - self._answered_s
        if self._failure or silent_s < SILENT_S:
            return self._failure
        return f"API server: no answer for {silent_s:.0f} s"

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.ask()
            await self._clock.sleep(LIVENESS_S)

    async def ask(self) -> None:
        """Ask once."""
        try:
            self.version = msgspec.json.decode(await self._api.get("/version"), type=_Version).git_version
        except (ApiError, CredentialsError, msgspec.MsgspecError) as error:
            self._failure = str(error)
        else:
            self._failure, self._answered_s = "", self._clock.monotonic_s()


class _ConfigMap(msgspec.Struct):
    data: dict[str, str] | None = None


class _GroupVersion(msgspec.Struct):
    version: str = ""


class _Group(msgspec.Struct):
    versions: list[_GroupVersion] = []


class _NodePools(msgspec.Struct):
    items: list[NodePool]


class SlowFacts:
    """What autoscalers could add, and devices in a version of the API that is not read.

    Args: nodes: the cluster's nodes, None while they cannot be read. has_slices: whether the API server knows
        ResourceSlices.
    """

    def __init__(
        self,
        api: Api,
        clock: Clock,
        *,
        nodes: Callable[[], Collection[NodeFacts] | None],
        has_slices: Callable[[], bool],
    ) -> None:
        self.growth: tuple[messages.Growth, ...] = ()
        self.conditions: tuple[messages.Condition, ...] = ()
        self._api, self._clock, self._nodes, self._has_slices = api, clock, nodes, has_slices

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._clock.sleep(GROWTH_S if await self.ask() else GROWTH_RETRY_S)

    async def ask(self) -> bool:
        """Ask each source once; gives whether nodes could be read. A source that does not answer tells nothing."""
        nodes = self._nodes()
        if nodes is None:
            return False
        room: list[messages.Growth] = []
        conditions: list[messages.Condition] = []
        for source in (self._cluster_autoscaler, self._karpenter, self._older_devices):
            try:
                some, told = await source(nodes)
            except ApiError as error:
                if error.status not in (403, 404):  # no such autoscaler, or the agent may not read it
                    log.info("autoscalers and devices cannot be asked for", cause=str(error))
                continue
            except CredentialsError as error:
                log.info("autoscalers and devices cannot be asked for", cause=str(error))
                continue
            except msgspec.MsgspecError as error:
                told, some = (condition("BadAutoscalerStatus", "cluster", str(error)),), ()
            room += some
            conditions += told
        self.growth, self.conditions = tuple(room[:MAX_GROWTH]), tuple(conditions)
        return True

    async def _cluster_autoscaler(self, nodes: Collection[NodeFacts]) -> growth.Found:
        status = msgspec.json.decode(await self._api.get(AUTOSCALER_STATUS), type=_ConfigMap)
        return growth.cluster_autoscaler((status.data or {}).get("status", ""), nodes, self._clock.wall_s())

    async def _karpenter(self, nodes: Collection[NodeFacts]) -> growth.Found:
        pools = msgspec.json.decode(await self._api.get(NODE_POOLS, limit="256"), type=_NodePools)
        return growth.karpenter(pools.items, nodes)

    async def _older_devices(self, nodes: Collection[NodeFacts]) -> growth.Found:
        """Whether there are devices in a version of the API that is not read; without any there is no such group."""
        if self._has_slices():
            return (), ()
        group = msgspec.json.decode(await self._api.get(DEVICES), type=_Group)
        return (), slices.unread(one.version for one in group.versions)
