"""Typed keys of several names. Each equals, hashes and sorts as the tuple of its fields."""

from __future__ import annotations

from typing import NamedTuple, NewType

from federation.wire.messages import PoolKey

ModelCell = NewType("ModelCell", tuple[str, str])
"""(model, cell): the users of a model in one cell. Beliefs have hundreds of thousands of them, so they are plain
tuples, which the cyclic garbage collector does not track; it would track a NamedTuple."""


class PlacementKey(NamedTuple):
    """Replicas of a model in one pool of one cluster."""

    model: str
    cluster: str
    pool: PoolKey

    @property
    def place(self) -> ClusterPool:
        """Where they are."""
        return ClusterPool(self.cluster, self.pool)


class ClusterPool(NamedTuple):
    """One accelerator pool of a cluster."""

    cluster: str
    pool: PoolKey


class ModelCluster(NamedTuple):
    """A model in a cluster, in whatever pools."""

    model: str
    cluster: str


class CellCluster(NamedTuple):
    """The path from the users of a cell to a cluster."""

    cell: str
    cluster: str
