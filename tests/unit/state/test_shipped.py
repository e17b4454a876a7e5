"""The tables that the product ships are consistent."""

from __future__ import annotations

from federation.state import shipped


def test_no_country_is_on_two_continents() -> None:
    """A cap on other continents would hold for a country or not, by the order of a file."""
    continents = shipped.shipped_continents()
    assert len(continents) > 200
    assert (continents["DE"], continents["US"], continents["JP"]) == ("EU", "NA", "AS")


def test_spot_has_a_risk_for_every_product() -> None:
    """Spot of a provider that the table lacks would count as never taken back, and plans would put everything on it."""
    risks = shipped.shipped_spot_risks()
    assert ("", "") in risks
    assert all(one.losses_per_hour > 0 and 0 < one.replacement_chance <= 1 for one in risks.values())


def test_partitions_are_spelt_as_agents_report_them() -> None:
    """A MIG slice in a policy would match no pool."""
    profiles = [name for one in shipped.shipped_products().values() for name in one.mig_profiles]
    assert profiles and not any("+" in name for name in profiles)
