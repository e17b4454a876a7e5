"""The generated reference is complete: whatever the code has is in it, with a meaning."""

from __future__ import annotations

import ast
import re

from docs import reference_pages
from federation.api import openapi
from federation.metrics import Metrics
from federation.policy import schema
from federation.state.phases import Phase
from federation.state.reasons import EVENTS
from federation.wire.conditions import CONDITIONS
from tests.unit.docs.papers import DOCS, ROOT, text_of


def test_every_generated_page_has_an_introduction() -> None:
    """A generator whose page is missing would be called by nobody, and its part of the reference would be absent."""
    assert all((DOCS / f"{page}.md").is_file() for page in reference_pages.PAGES)


def test_every_metric_is_listed_with_a_meaning() -> None:
    """Whoever writes an alert would not know that the metric exists, or what it counts."""
    text = reference_pages.metrics()
    names = {family.name for family in Metrics().registry.collect()}
    assert names
    assert [name for name in names if f"`{name}" not in text] == []
    assert all(meaning and kind != "unknown" for _, kind, _, meaning in reference_pages.metric_rows())


def test_labels_of_a_metric_are_listed() -> None:
    """A query by a label that the reference does not name would have to be guessed from a scrape."""
    labels = {name: labels for name, _, labels, _ in reference_pages.metric_rows()}
    assert labels["isochrone_model_replicas"] == "model, state"
    assert labels["isochrone_connections_refused_total"] == "door"
    assert labels["isochrone_plan_epoch"] == ""


def test_every_event_and_condition_is_listed() -> None:
    """An operator who looks up what a cluster reports would not find it."""
    events, conditions = reference_pages.events(), reference_pages.conditions()
    assert [name for name in EVENTS if f"| `{name}` |" not in events] == []
    assert [name for name in CONDITIONS if f"| `{name}` |" not in conditions] == []


def test_every_policy_field_is_listed() -> None:
    """Whoever writes a policy would not know of a field."""
    text = reference_pages.policy()
    _, definitions = schema.components("{name}")
    for title, definition in definitions.items():
        section = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
        assert [name for name in definition.get("properties", {}) if f"| `{name}` |" not in section] == []


def test_every_policy_field_and_every_setting_has_a_meaning() -> None:
    """Whoever sets a field would have to read the sources to know what it does."""
    rows = [*reference_pages.policy().splitlines(), *reference_pages.settings().splitlines()]
    assert [row for row in rows if row.startswith("| `") and row.endswith("|  |")] == []


def test_a_default_that_may_be_null_is_shown() -> None:
    """A reader would take a field with a default for one without, and set what needs no setting."""
    assert "| `minGainPercent` | number ≥ 0, ≤ 100 | `5.0` |" in reference_pages.policy()


def test_every_operation_is_listed() -> None:
    """Whoever writes a script against the API would not know of an operation."""
    text = reference_pages.api().replace("\\{", "{")
    assert [one.path for one in openapi.OPERATIONS if f"### {one.method.upper()} {one.path}\n" not in text] == []


def test_the_glossary_has_no_word_that_the_api_lacks() -> None:
    """The glossary would keep words of fields that are gone, and a reader of the sources would look for them."""
    text = reference_pages.api()
    assert [name for name in reference_pages.GLOSSARY if f"| `{name}` |" not in text] == []


def test_every_environment_variable_of_the_sources_is_listed() -> None:
    """A variable that a command reads and no page names changes a deployment without anybody knowing why."""
    text = text_of(DOCS / "reference" / "settings.md")
    sources = [path for folder in ("federation", "agents") for path in (ROOT / folder).rglob("*.py")]
    named = {name for path in sources for name in re.findall(r'"(ISOCHRONE_[A-Z_]+)"', path.read_text("utf-8"))}
    assert "ISOCHRONE_BROKER" in named
    assert [name for name in sorted(named) if f"`{name}`" not in text] == []


def test_every_command_is_listed() -> None:
    """A command that the reference does not name is found by nobody who reads it."""
    text = reference_pages.command_line()
    groups = {path.split()[1] for path, _ in reference_pages.commands() if " " in path}
    assert [name for name in groups if f"   :prog: isochrone {name}\n" not in text] == []


def test_docstrings_of_fields_are_read_from_the_source() -> None:
    """Meanings in the settings' tables would be empty, or stand beside another setting."""
    docs = reference_pages.attribute_docs(Phase)
    assert docs["READY"] == "Its agent reports."
    assert set(docs) == {"UNKNOWN", "READY", "UNREACHABLE", "LOST"}


def test_the_guide_names_every_code_of_an_explanation() -> None:
    """An operator who looks up why a model is not in a cluster would not find the code."""
    source = ast.parse((ROOT / "placement" / "explain" / "model.py").read_text(encoding="utf-8"))
    given = {
        node.value
        for node in ast.walk(source)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[A-Z][a-z]+([A-Z][a-z]+)*", node.value)
    }
    guide = (DOCS / "guides" / "why-not-there.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", guide.partition("## The plan in force")[0]))
    assert given == named
