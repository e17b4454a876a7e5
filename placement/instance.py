"""A placement question as columns of numbers: what the engine works on when a world has thousands of everything.

Names are gone; position is identity. Shapes are in brackets: P pools, O options, N nodes, G groups, A arcs, M models.

  option  a (model, pool) pair that may hold replicas       node   a (model, cluster) pair: requests go to these
  group   a (model, cell) pair: requests come from these    arc    a node that a group may be served by

Options are sorted by (model, pool), nodes by (model, cluster), groups by (model, cell); the arcs of a group are those
from `arc_start[group]` to `arc_start[group + 1]`, by node. Money is USD per hour, load is requests per second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One placement question.

    `option_rps` is what plans count on of one replica: its throughput times the target utilisation.
    `option_start_usd` is the price of each replica beyond `option_current`. `group_class` keeps apart groups that must
    not be averaged when demand is aggregated (other residency).
    """

    pool_devices: Ints
    """[P]"""
    option_model: Ints
    """[O], as all that begin with option_"""
    option_pool: Ints
    option_node: Ints
    option_region: Ints
    option_spot: Ints
    """1 where the pool can be taken away"""
    option_devices: Ints
    """per replica"""
    option_rps: Floats
    option_usd: Floats
    """of one replica"""
    option_start_usd: Floats
    option_current: Ints
    option_least: Ints
    option_most: Ints
    node_model: Ints
    """[N]"""
    node_region: Ints
    """[N]"""
    group_model: Ints
    """[G], as all that begin with group_"""
    group_class: Ints
    group_rps: Floats
    group_unserved_usd: Floats
    """of one request per second that nobody serves"""
    arc_start: Ints
    """[G + 1]"""
    arc_node: Ints
    """[A]"""
    arc_usd: Floats
    """[A]: lateness, distance and egress of one request per second"""
    arc_most: Floats
    """[A]: the group's demand; of a class of groups, that of the members that have the arc"""
    model_min_replicas: Ints
    """[M], as all that begin with model_"""
    model_min_regions: Ints
    model_spot_fraction: Floats

    @property
    def arc_group(self) -> Ints:
        """[A]: the group of each arc."""
        return np.repeat(np.arange(len(self.group_rps)), np.diff(self.arc_start))

    def sizes(self) -> dict[str, int]:
        """How many there are of each."""
        return {
            "pools": len(self.pool_devices),
            "options": len(self.option_model),
            "nodes": len(self.node_model),
            "groups": len(self.group_rps),
            "arcs": len(self.arc_node),
            "models": len(self.model_min_replicas),
        }


def validate(instance: Instance) -> None:
    """Assert what always holds. Raises: AssertionError naming the first that does not."""
    sizes = instance.sizes()
    for name in Instance.__dataclass_fields__:
        kind, column = name.partition("_")[0], getattr(instance, name)
        wanted = sizes[f"{kind}s"] if name != "arc_start" else sizes["groups"] + 1
        assert column.shape == (wanted,), f"{name} has {column.shape}, not {wanted}"
        assert not np.isnan(column).any(), f"{name} has a NaN"
    assert (instance.option_rps > 0).all(), "a replica serves something"
    assert (instance.option_least <= instance.option_most).all(), "an option has room for its least"
    assert (np.diff(instance.arc_start) >= 0).all() and instance.arc_start[-1] == sizes["arcs"], "arcs are in order"
    assert (instance.node_model[instance.option_node] == instance.option_model).all(), "an option is in its own node"
    assert (instance.node_model[instance.arc_node] == instance.group_model[instance.arc_group]).all(), (
        "an arc leads to a node of its model"
    )
