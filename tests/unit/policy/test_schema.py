"""What is shipped loads, validates, and matches the schema that editors read."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from federation import resources
from federation.policy import catalogue, schema
from federation.state.shipped import shipped_continents, shipped_products, shipped_spot_risks

EXAMPLES = sorted((resources.configs() / "policies").glob("*.yaml"))
DEMO = [resources.configs() / "demo" / name for name in ("clusters.yaml", "models.yaml", "policies.yaml")]


def test_the_schema_is_the_one_that_the_code_gives() -> None:
    """Editors would accept what the controller refuses. `make schemas` writes it anew."""
    shipped = (resources.configs() / "schemas" / schema.FILE).read_text(encoding="utf-8")
    assert shipped == schema.text()


@pytest.mark.parametrize("path", [*EXAMPLES, *DEMO], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_example_validates_and_names_its_schema(path: Path) -> None:
    """The first thing that a user copies would be refused, or get no help from the editor."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=../schemas/isochrone.schema.json")
    validator = jsonschema.Draft202012Validator(json.loads(schema.text()))
    for document in yaml.safe_load_all(text):
        validator.validate(document)


@pytest.mark.parametrize("paths", [EXAMPLES, DEMO], ids=["policies", "demo"])
def test_the_examples_are_accepted_together(paths: list[Path]) -> None:
    """`isochrone controller --policies configs/policies` would start without policies."""
    known = catalogue.PolicySet(products=shipped_products())
    for path in paths:
        known, problems = catalogue.accept(known, path.name, path.read_bytes())
        assert problems == ()
    assert known.documents().models and known.documents().policies and known.documents().clusters


def test_every_spot_pool_of_the_demo_has_a_risk() -> None:
    """Spot would be planned as if it were never taken back."""
    risks = shipped_spot_risks()
    assert all(0 < one.losses_per_hour < 1 and 0 < one.replacement_chance <= 1 for one in risks.values())
    assert ("", "") in risks


def test_every_country_is_on_one_continent_and_the_demo_agrees() -> None:
    """Users would be counted to another continent than theirs, or to none, and be refused for it."""
    text = (resources.configs() / "continents.yaml").read_text(encoding="utf-8")
    countries = [one for part in yaml.safe_load(text)["continents"].values() for one in part.split()]
    known = shipped_continents()
    assert len(countries) == len(set(countries)) == len(known) == 250
    assert known["NO"] == "EU", "no country is read as a truth value"
    places = yaml.safe_load((resources.configs() / "demo" / "places.yaml").read_text(encoding="utf-8"))["places"]
    assert {(one["country"], one["continent"]) for one in places} <= set(known.items())
    for path in (*EXAMPLES, *DEMO):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if document["kind"] == "Cluster":
                assert document["spec"]["location"]["country"] in known
