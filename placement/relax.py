"""An instance as a linear or mixed-integer programme for HiGHS, built in whole columns.

Columns: n[option], a[option] (replicas started), x[arc], z[group] (unserved).
Rows:    served[group], capacity[node], devices[pool], starts, floor[model], spot[model].
"""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np

from placement import highs
from placement.instance import Floats, Instance, Ints

INFINITE = highspy.kHighsInf
WHOLE = 1e-6
PART = 0.6
"""Of the fractions that are left, so many are rounded before the programme is solved again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxed:
    """An answer. The prices are the duals, all at least zero, in USD per hour; none where it was a MIP.

    `device_usd`: [P] of one more device. `capacity_usd`: [N] of one more request per second. `floor_usd` and
    `spot_usd`: [M].
    """

    objective: float
    bound: float
    replicas: Floats
    flows: Floats
    unserved: Floats
    device_usd: Floats
    capacity_usd: Floats
    floor_usd: Floats
    spot_usd: Floats
    is_proved: bool


class _Rows:
    """Coefficients by row, in any order."""

    def __init__(self) -> None:
        self.count = 0
        self.rows: list[Ints] = []
        self.columns: list[Ints] = []
        self.values: list[Floats] = []
        self.lower: list[Floats] = []
        self.upper: list[Floats] = []

    def add(self, rows: Ints, columns: Ints, values: Floats, lower: Floats, upper: Floats) -> slice:
        """As many rows as `lower` is long; `rows` count from the first of them."""
        first = self.count
        self.rows.append(rows + first)
        self.columns.append(columns)
        self.values.append(values)
        self.lower.append(lower)
        self.upper.append(upper)
        self.count += len(lower)
        return slice(first, self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A programme in the solver, and where its columns and rows are."""

    solver: highspy.Highs
    is_integer: bool
    replicas: slice
    flows: slice
    unserved: slice
    devices: slice
    capacity: slice
    floor: slice
    spot: slice

    def read(self) -> Relaxed:
        info, answer = self.solver.getInfo(), self.solver.getSolution()
        values, duals = np.asarray(answer.col_value), np.asarray(answer.row_dual)
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            values = np.zeros(0)
        if self.is_integer or not len(duals):
            duals = np.zeros(self.solver.getNumRow())
        return Relaxed(
            objective=float(info.objective_function_value),
            bound=float(info.mip_dual_bound if self.is_integer else info.objective_function_value),
            replicas=values[self.replicas],
            flows=values[self.flows],
            unserved=values[self.unserved],
            device_usd=np.maximum(0.0, -duals[self.devices]),
            capacity_usd=np.maximum(0.0, -duals[self.capacity]),
            floor_usd=np.maximum(0.0, duals[self.floor]),
            spot_usd=np.maximum(0.0, -duals[self.spot]),
            is_proved=self.solver.getModelStatus() == highspy.HighsModelStatus.kOptimal,
        )


def solve(
    instance: Instance,
    *,
    integer: bool = False,
    tight: bool = False,
    gap: float = 0.0,
    node_limit: int = 1,
    time_limit_s: float | None = None,
) -> Relaxed:
    """The programme's answer; no replicas when it has none.

    Args: integer: whole replicas. tight: add x <= demand * n per arc, which makes the relaxation of small worlds much
        stronger and large ones slow; only where each node has one option. time_limit_s: for baselines alone: answers
        under it are not the same on every machine.
    """
    made = _build(instance, integer=integer, tight=tight)
    made.solver.setOptionValue("mip_rel_gap", gap)
    made.solver.setOptionValue("mip_max_nodes", node_limit)
    if time_limit_s is not None:
        made.solver.setOptionValue("time_limit", time_limit_s)
    made.solver.run()
    return made.read()


def solve_whole(instance: Instance) -> tuple[Relaxed, Relaxed]:
    """(the answer in fractions, an answer in whole replicas found by rounding a part of them at a time).

    After each part the programme is solved again from where it was, so what one rounding leaves short, or to spare, the
    others make good where it costs least. This is what the large engine's whole numbers come from: a search from all
    rounded at once ends up several times further from the bound.
    """
    made = _build(instance, integer=False, tight=False)
    made.solver.run()
    first = last = made.read()
    lower, upper = instance.option_least.astype(float), instance.option_most.astype(float)
    while len(last.replicas):
        parts = np.abs(last.replicas - np.round(last.replicas))
        left = np.flatnonzero((parts > WHOLE) & (lower < upper))
        if not len(left):
            break
        nearest = left[np.argsort(parts[left], kind="stable")]
        _round_off(instance, last.replicas, nearest[: max(1, int(len(nearest) * PART))], lower, upper)
        every = np.arange(len(lower), dtype=np.int32)
        made.solver.changeColsBounds(len(every), every, lower, upper)
        made.solver.run()
        following = made.read()
        if not len(following.replicas):
            break
        last = following
    return first, last


def _round_off(instance: Instance, values: Floats, options: Ints, lower: Floats, upper: Floats) -> None:
    """Fix `options` at the whole number nearest to `values`, or below it where their pool has not the devices."""
    taken = np.bincount(
        instance.option_pool, weights=lower * instance.option_devices, minlength=len(instance.pool_devices)
    )
    for option in options:
        pool, devices = instance.option_pool[option], instance.option_devices[option]
        free = instance.pool_devices[pool] - taken[pool] + lower[option] * devices
        count = min(np.round(values[option]), np.floor(free / devices + 1e-9), upper[option])
        count = max(count, lower[option])
        taken[pool] += (count - lower[option]) * devices
        lower[option] = upper[option] = count


def _build(instance: Instance, *, integer: bool, tight: bool) -> _Made:
    options, arcs, groups = len(instance.option_model), len(instance.arc_node), len(instance.group_rps)
    nodes, pools, models = len(instance.node_model), len(instance.pool_devices), len(instance.model_min_replicas)
    starting = np.flatnonzero((instance.option_start_usd > 0) & (instance.option_most > instance.option_current))
    starts = len(starting)
    first_x, first_z = options + starts, options + starts + arcs
    arc_group = instance.arc_group
    every = np.arange(options)
    rows = _Rows()
    served = np.concatenate([arc_group, np.arange(groups)])
    rows.add(served, first_x + np.arange(arcs + groups), np.ones(arcs + groups), instance.group_rps, instance.group_rps)
    capacity = rows.add(
        np.concatenate([instance.arc_node, instance.option_node]),
        np.concatenate([first_x + np.arange(arcs), every]),
        np.concatenate([np.ones(arcs), -instance.option_rps]),
        np.full(nodes, -INFINITE),
        np.zeros(nodes),
    )
    fixed = np.bincount(instance.option_pool, weights=instance.option_least * instance.option_devices, minlength=pools)
    devices = rows.add(
        instance.option_pool,
        every,
        instance.option_devices.astype(float),
        np.full(pools, -INFINITE),
        np.maximum(instance.pool_devices.astype(float), fixed),
    )
    rows.add(
        np.tile(np.arange(starts), 2),
        np.concatenate([starting, options + np.arange(starts)]),
        np.repeat([1.0, -1.0], starts),
        np.full(starts, -INFINITE),
        instance.option_current[starting].astype(float),
    )
    floor = rows.add(
        instance.option_model,
        every,
        np.ones(options),
        instance.model_min_replicas.astype(float),
        np.full(models, INFINITE),
    )
    spot = rows.add(
        instance.option_model,
        every,
        instance.option_spot - instance.model_spot_fraction[instance.option_model],
        np.full(models, -INFINITE),
        np.where(instance.model_spot_fraction < 1.0, 0.0, INFINITE),
    )
    if tight:
        option_of = np.full(nodes, -1)
        option_of[instance.option_node] = every
        rows.add(
            np.tile(np.arange(arcs), 2),
            np.concatenate([first_x + np.arange(arcs), option_of[instance.arc_node]]),
            np.concatenate([np.ones(arcs), -instance.arc_most]),
            np.full(arcs, -INFINITE),
            np.zeros(arcs),
        )
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = first_z + groups, rows.count
    lp.col_cost_ = np.concatenate(
        [instance.option_usd, instance.option_start_usd[starting], instance.arc_usd, instance.group_unserved_usd]
    )
    lp.col_lower_ = np.concatenate([instance.option_least.astype(float), np.zeros(starts + arcs + groups)])
    lp.col_upper_ = np.concatenate(
        [
            instance.option_most.astype(float),
            np.full(starts, INFINITE),
            instance.arc_most,
            instance.group_rps,
        ]
    )
    lp.row_lower_, lp.row_upper_ = np.concatenate(rows.lower), np.concatenate(rows.upper)
    _matrix(lp, rows)
    if integer:
        kinds = [highspy.HighsVarType.kInteger] * options
        lp.integrality_ = kinds + [highspy.HighsVarType.kContinuous] * (lp.num_col_ - options)
    solver = highs.quiet()
    solver.passModel(lp)
    return _Made(
        solver=solver,
        is_integer=integer,
        replicas=slice(0, options),
        flows=slice(first_x, first_z),
        unserved=slice(first_z, first_z + groups),
        devices=devices,
        capacity=capacity,
        floor=floor,
        spot=spot,
    )


def _matrix(lp: highspy.HighsLp, rows: _Rows) -> None:
    row = np.concatenate(rows.rows)
    order = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=rows.count)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    lp.a_matrix_.index_ = np.concatenate(rows.columns)[order].astype(np.int32)
    lp.a_matrix_.value_ = np.concatenate(rows.values)[order]
