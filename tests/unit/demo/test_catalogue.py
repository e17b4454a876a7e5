"""The shipped YAML is what it claims to be, and a broken one is refused with the file's name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from federation.demo import catalogue
from federation.demo.physics import Physics
from federation.policy.catalogue import PolicySet, accept

EU_MEMBER = {"DE": True, "NL": True, "SE": True, "GB": False, "US": False, "IN": False}


def test_as_many_real_sites_as_promised(physics: Physics) -> None:
    """The demo would show a smaller world than it says."""
    specs = [cluster.spec for cluster in physics.clusters.values()]
    assert len(specs) >= 44
    assert len({spec.provider for spec in specs}) >= 4
    assert sum(spec.tier == "cloud" for spec in specs) >= 26
    assert sum(spec.tier == "edge" for spec in specs) >= 18
    assert 70 <= sum(len(spec.accelerators) for spec in specs) <= 120
    assert len(physics.places) >= 78
    assert {place.continent for place in physics.places.values()} == {"AF", "AS", "EU", "NA", "OC", "SA"}


def test_every_device_has_a_price_and_spot_is_cheaper(physics: Physics) -> None:
    """A pool at no price would draw every replica in the world."""
    for name, cluster in physics.clusters.items():
        usd = {(p.product, p.mig_profile, p.market): p.usd_per_device_hour for p in cluster.spec.accelerators}
        assert len(usd) == len(cluster.spec.accelerators), name
        for (product, profile, market), price in usd.items():
            assert 0.05 < price < 20, (name, product)
            if market == "spot":
                assert price < usd[product, profile, "on-demand"], (name, product)


@pytest.mark.parametrize(("country", "is_eu"), EU_MEMBER.items())
def test_jurisdictions_follow_the_country(physics: Physics, country: str, is_eu: bool) -> None:
    """Europeans' requests would be placed outside the EU, or nowhere."""
    here = [one.spec for one in physics.clusters.values() if one.spec.location.country == country]
    assert here
    assert all(country in spec.jurisdictions and ("EU" in spec.jurisdictions) == is_eu for spec in here)


def test_every_model_has_a_policy_and_somewhere_to_run(physics: Physics) -> None:
    """A model without a policy is not placed, and the demo would show nothing of it."""
    presets = {model.spec.runtime.preset for model in physics.models.values()}
    assert presets == {"vllm", "nemo", "triton", "torchserve", "tensorflow-serving"}
    for name in physics.models:
        assert physics.catalogue.documents.policy_of(name) is not None
        assert len({cluster for model, cluster, _ in physics.shapes if model == name}) >= 10


def test_all_users_have_somewhere_permitted_within_the_objective(physics: Physics) -> None:
    """A cell that nothing could ever serve in time would say nothing about any planner."""
    where = {(model, cluster) for model, cluster, _ in physics.shapes}
    for model in physics.models:
        hopeless = [
            cell
            for cell in physics.places
            if not any(
                (model, cluster) in where
                and physics.may_serve(model, cell, cluster)
                and physics.is_within_objective(model, cell, cluster)
                for cluster in physics.clusters
            )
        ]
        assert hopeless == [], model


def test_the_controller_accepts_the_documents(physics: Physics) -> None:
    """The demo's controller would start without models, or with others than the demo scores."""
    policies = PolicySet()
    for name in catalogue.DOCUMENT_FILES:
        policies, problems = accept(policies, name, (catalogue.folder() / name).read_bytes())
        assert problems == ()
    assert policies.documents() == physics.catalogue.documents


BROKEN = [
    pytest.param("places.yaml", "country: US", "country: USA", "places.yaml", id="no-country"),
    pytest.param("day.yaml", "kind: outage", "kind: eclipse", "day.yaml", id="unknown-event"),
    pytest.param("day.yaml", "edge-fra", "edge-xxx", "no cluster is called edge-xxx", id="unknown-cluster"),
    pytest.param("day.yaml", "provider: gcp", "provider: acme", "provider acme", id="unknown-provider"),
    pytest.param("day.yaml", "ranking: ", "rankings: ", "ranking", id="demand-for-no-model"),
    pytest.param("rtt.yaml", "  af-south-1: [4.5]", "  af-south-1: [4.5, 1.0]", "row af-south-1", id="too-long-a-row"),
    pytest.param("models.yaml", "minVramGiB", "minVramGB", "models.yaml", id="unknown-field"),
]


@pytest.mark.parametrize(("file", "old", "new", "message"), BROKEN)
def test_a_broken_file_is_refused(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    """Whoever edits the demo's world would be told nothing, or something about another file."""
    source = catalogue.folder()
    assert isinstance(source, Path)
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        catalogue.load(tmp_path)
