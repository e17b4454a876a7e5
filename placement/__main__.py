"""`python -m placement` compiles the loops ahead of time, so that the first large plan is not late."""

from __future__ import annotations

from placement.index import Index
from placement.large import plan as large
from placement.problem import Cell, Cluster, Demand, Model, Path, Pool, Problem, Shape
from placement.routing import transport


def main() -> None:
    """Solve the smallest world there is: one replica for one town."""
    shape = Shape(product="NVIDIA-L4", devices=1, requests_per_second=1.0)
    model = Model(name="m", shapes=(shape,), objective_ms=100.0, late_usd_per_1000=1.0, unserved_usd_per_1000=1e3)
    problem = Problem(
        clusters=(Cluster(name="c", provider="p", region="r"),),
        pools=(Pool(cluster="c", product="NVIDIA-L4", vram_gib=24.0, devices=1, usd_per_device_hour=1.0),),
        models=(model,),
        cells=(Cell(name="u", country="DE"),),
        demands=(Demand(model="m", cell="u", requests_per_second=0.5),),
        paths=(Path(cell="u", cluster="c", rtt_ms=10.0),),
    )
    index = Index(problem)
    counts = large.solve(index).counts
    assert counts == {("m", "c/NVIDIA-L4/on-demand"): 1}, counts
    asked = transport.TransportProblems(index, problem.rtt_matrix()).question(model, {"c": 0.8}, {"c": 0.2}, 9.0, 1.0)
    assert transport.solve(asked).rps.tolist() == [0.5]


if __name__ == "__main__":
    main()
