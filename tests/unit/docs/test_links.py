"""Every relative link of the papers leads somewhere, and every path that they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bench.__main__ import CASES
from tests.unit.docs import papers
from tests.unit.docs.papers import DOCS, PAPERS, ROOT, name_of

NAMED_PATH = re.compile(r"`((?:configs|deploy|docs|federation|placement|agents|tests)/[\w./-]*[\w/])`")


def broken(path: Path, text: str) -> list[str]:
    """The relative links of `text`, which lies at `path`, that lead nowhere."""
    found = []
    for link in papers.links(text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in papers.anchors(papers.text_of(target))
        ):
            found.append(link)
    return found


@pytest.mark.parametrize("path", PAPERS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    """A reader who follows a link would find nothing."""
    assert broken(path, papers.text_of(path)) == []


def test_a_dead_link_is_found() -> None:
    """The check itself would pass whatever the papers say."""
    text = "[a](no-such-file.md) [b](#no-such-heading) [c](README.md#use-it) [d](README.md#no-such)\n"
    assert broken(ROOT / "CONTRIBUTING.md", text) == ["no-such-file.md", "#no-such-heading", "README.md#no-such"]


@pytest.mark.parametrize("path", PAPERS, ids=name_of)
def test_paths_that_are_named_exist(path: Path) -> None:
    """A reader who opens a file that a page names would not find it, as after a module has moved."""
    text = path.read_text(encoding="utf-8")
    missing = [one for one in NAMED_PATH.findall(text) if not (ROOT / one).exists()]
    assert missing == [] or path.name == "CHANGELOG.md", missing


@pytest.mark.parametrize("path", PAPERS, ids=name_of)
def test_targets_and_benchmarks_that_are_named_exist(path: Path) -> None:
    """A reader who runs `make TARGET` or a benchmark that a page names would get an error."""
    text = path.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z][a-z-]*)", text)) | set(
        re.findall(r"^(?:\$ )?make ([a-z-]+)", text, re.MULTILINE)
    )
    assert named <= targets
    assert set(re.findall(r"make\s+bench\s+CASE=([a-z]+)", text)) - {"name"} <= set(CASES)


def test_every_package_has_a_row_in_the_layers() -> None:
    """A newcomer would find a folder that no page explains."""
    layers = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## Layers")[2].partition("## ")[0]
    packages = [path.parent for root in ("federation", "agents") for path in (ROOT / root).glob("*/__init__.py")]
    assert packages
    assert [one.name for one in packages if not re.search(rf"`(federation/|agents/)?{one.name}`", layers)] == []


def test_pages_are_in_the_table_of_contents() -> None:
    """A page that no table of contents lists is found by nobody; Sphinx only warns of it."""
    listed = {
        (path.parent / line.strip()).resolve()
        for path in DOCS.rglob("*.md")
        if "_build" not in path.parts
        for block in papers.blocks(path.read_text(encoding="utf-8"))
        if block.language == "{toctree}"
        for line in block.text.splitlines()
        if line.strip() and not line.startswith(":")
    }
    pages = {path.with_suffix("") for path in DOCS.rglob("*.md") if "_build" not in path.parts}
    if any("*" in path.name for path in listed):
        pages = {path for path in pages if path.parent.name != "decisions"} | {DOCS / "decisions" / "index"}
    assert pages - {DOCS / "index"} <= listed
