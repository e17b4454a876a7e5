"""What documents name against what there is: refused where it can never be, told where it does less than it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation import resources
from federation.policy import catalogue, sense
from federation.policy.catalogue import PolicySet
from tests.unit.policy.test_load import CLUSTER, MODEL, POLICY

POOL = "  accelerators: [{product: NVIDIA-L4, vramGiB: 22, devices: 4, usdPerDeviceHour: 1, market: MARKET}]\n"
HERE = CLUSTER + "  jurisdictions: [EU]\n" + POOL.replace("MARKET", "on-demand")
PLAIN = POLICY.replace("minReplicas: 2, minRegions: 2", "minReplicas: 1")


def known(*texts: str) -> PolicySet:
    found = PolicySet()
    for number, text in enumerate(texts):
        found, problems = catalogue.accept(found, f"{number}.yaml", text.encode())
        assert not problems, problems
    return found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PLAIN.replace("[EU]", "[EUU]"), "no cluster declares EUU: these users could be served nowhere"),
        (PLAIN.replace("[EU]", "[EUU]"), "did you mean EU?"),
        (PLAIN.replace("minReplicas: 1", "pinned: [{cluster: fra-2, replicas: 1}]"), "did you mean fra-1?"),
    ],
)
def test_what_no_cluster_could_ever_give_is_refused(text: str, says: str) -> None:
    """A typo in a jurisdiction leaves these users unserved the second that it is in force."""
    before = known(HERE, MODEL)
    _, problems = catalogue.accept(before, "p.yaml", text.encode())
    assert problems and says in problems[0].text(), problems
    assert problems[0].line > 1
    assert catalogue.accept_together(before, {"p.yaml": text.encode()}).problems["p.yaml"] == problems
    alone, none = catalogue.accept(known(MODEL), "p.yaml", text.encode())
    assert not none and "p.yaml" in alone.files, "without a catalogue nothing is known"


def test_a_cell_is_in_one_country() -> None:
    """Two catalogues would have two words on where users are, and residency that of the last."""
    cells = "  cells:\n  - {name: Berlin, country: DE}\n  - {name: Paris, country: FR}\n"
    other = (HERE + cells.replace("country: FR", "country: US")).replace("fra-1", "fra-2")
    _, problems = catalogue.accept(known(HERE + cells), "p.yaml", other.encode())
    assert next(one.text().partition(": ")[2] for one in problems).startswith("cell Paris is in FR by Cluster fra-1")
    assert problems[0].line == 1 + other[: other.index("US")].count("\n")
    assert not catalogue.accept(known(HERE + cells), "p.yaml", (HERE + cells).replace("fra-1", "fra-2").encode())[1]


def test_what_was_accepted_before_stays_when_what_it_names_has_gone() -> None:
    """After a restart its model would be served nowhere, as a cluster had left since."""
    text = PLAIN.replace("[EU]", "[EUU]").encode()
    _, problems = catalogue.accept(known(HERE, MODEL), "p.yaml", text, is_new=False)
    assert not problems


@pytest.mark.parametrize(
    ("cluster", "model", "policy", "says"),
    [
        (HERE, MODEL, PLAIN, None),
        (HERE, MODEL, PLAIN.replace("[chat]", "[chat, chatt]"), "no Model document names chatt"),
        (HERE, MODEL, PLAIN.replace("[EU]", "[EU, UK]"), "no cluster declares UK"),
        (HERE, MODEL, POLICY, "minRegions 2: clusters are in 1 regions"),
        (HERE, MODEL, PLAIN.replace("minReplicas: 1", "survive: region"), "nothing survives its loss"),
        (HERE, MODEL, PLAIN.replace("minReplicas: 1", "minReplicas: 5"), "there are devices for 4 replicas of chat"),
        (HERE, MODEL, PLAIN.replace("minReplicas: 1", "pinned: [{cluster: fra-1, replicas: 9}]"), "fra-1 has devices"),
        (HERE, MODEL.replace("{product: NVIDIA-L4,", "{product: NVIDIA-L4, minVramGiB: 80,"), PLAIN, "placed nowhere"),
        (HERE, MODEL.replace("NVIDIA-L4", "NVIDIA-A10"), PLAIN, "no cluster has an accelerator that fits chat"),
        (
            HERE.replace("NVIDIA-L4,", "NVIDIA-L4-SHARED,"),
            MODEL.replace("{product: NVIDIA-L4,", "{product: NVIDIA-L4-SHARED, count: 2,"),
            PLAIN,
            "count 2 asks for parts of a shared device: they may be one",
        ),
        (
            HERE.replace("NVIDIA-L4,", "NVIDIA-L4, migProfile: 1g.10gb,"),
            MODEL.replace("{product: NVIDIA-L4,", "{product: NVIDIA-L4, migProfile: 1g.10gb, count: 2,"),
            PLAIN,
            "count 2 asks for MIG slices: a process sees one of them",
        ),
        (
            HERE.replace("on-demand", "spot"),
            MODEL,
            PLAIN + "  spot: {maxFraction: 0}\n",
            "all that fits chat is spot: it is placed nowhere",
        ),
    ],
)
def test_what_does_less_than_it_says_is_told(cluster: str, model: str, policy: str, says: str | None) -> None:
    """Who asks for what there is not would believe to have it."""
    files = known(cluster, model, policy)
    told = [one for name in files.files for one in catalogue.warnings(files, name, {})]
    assert bool(told) == (says is not None), told
    if says is not None:
        assert any(says in one.text() for one in told), told
        assert all(one.line > 1 for one in told)


def test_what_agents_report_counts_beside_the_catalogue() -> None:
    """A pool that no document expects would be called missing."""
    files = known(CLUSTER, MODEL)
    assert catalogue.warnings(files, "1.yaml", {})
    pool = sense.Stock(product="NVIDIA-L4", mig_profile="", market="on-demand", vram_gib=None, devices=4)
    assert not catalogue.warnings(files, "1.yaml", {"fra-1": (pool,)})


def test_the_examples_have_no_doubts() -> None:
    """Who starts from them would start with warnings."""
    folder: Path = resources.configs() / "policies"
    names = ("clusters.yaml", "models.yaml", "policies.yaml")
    files = known(*((folder / name).read_text(encoding="utf-8") for name in names))
    assert not [one for name in files.files for one in catalogue.warnings(files, name, {})]


def test_a_part_that_too_few_domains_can_hold_is_told() -> None:
    """A model would be short of its own rule for ever, and nobody would know that two regions cannot be three."""
    two = HERE, HERE.replace("fra-1", "iad-1").replace("region: ", "region: other-")
    text = PLAIN.replace("minReplicas: 1", "maxPartPerDomain: {domain: region, percent: 40}")

    def told(policy: str) -> list[str]:
        files = known(*two, MODEL, policy)
        return [one.text() for name in files.files for one in catalogue.warnings(files, name, {})]

    [problem] = [one for one in told(text) if "40 %" in one]
    assert "clusters are in 2 regions: with at most 40 % in each they cannot hold all of a model" in problem
    assert "50 or more" in problem
    assert not told(text.replace("40", "50"))


def test_a_catalogue_is_not_compared_with_itself() -> None:
    """Ten thousand Cluster documents would take minutes to be accepted, in which nobody is heard."""

    class Unread(dict[str, tuple[sense.Stock, ...]]):
        def get(self, *args: object) -> tuple[sense.Stock, ...]:
            raise AssertionError("what a cluster has says nothing of a Cluster document")

    files = known(HERE, MODEL)
    assert catalogue.warnings(files, "0.yaml", Unread()) == ()
    with pytest.raises(AssertionError):
        catalogue.warnings(files, "1.yaml", Unread())
