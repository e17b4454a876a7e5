"""The Markdown files of the repository: where they are, their links, their anchors and their code blocks."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from myst_parser.config.main import MdParserConfig
from myst_parser.mdit_to_docutils.base import DocutilsRenderer
from myst_parser.parsers.mdit import create_md_parser

from docs import reference_pages

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAPERS = sorted(
    [
        *ROOT.glob("*.md"),
        *(path for path in DOCS.rglob("*.md") if "_build" not in path.parts),
        *ROOT.glob("deploy/**/*.md"),
        *ROOT.glob("placement/*.md"),
    ]
)


class Block(NamedTuple):
    """A fenced block: its language, its text, and its first line in the file."""

    language: str
    text: str
    line: int


def name_of(path: Path) -> str:
    """The path from the repository's root: a test's id."""
    return path.relative_to(ROOT).as_posix()


@functools.cache
def text_of(path: Path) -> str:
    """The text of a paper, with what the build appends to it."""
    page = path.relative_to(DOCS).with_suffix("").as_posix() if path.is_relative_to(DOCS) else ""
    generated = reference_pages.PAGES.get(page)
    return path.read_text(encoding="utf-8") + ("\n" + generated() if generated else "")


@functools.cache
def _parser() -> MarkdownIt:
    return create_md_parser(MdParserConfig(enable_extensions={"colon_fence"}), DocutilsRenderer)


def blocks(text: str) -> Iterator[Block]:
    """All fenced blocks."""
    for token in _parser().parse(text):
        if token.type == "fence":
            yield Block(token.info.strip(), token.content, (token.map or [0])[0] + 1)


def links(text: str) -> Iterator[str]:
    """The targets of all links and images."""
    for token in _parser().parse(text):
        for child in token.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if child.type in ("link_open", "image") and isinstance(target, str):
                yield target


@functools.cache
def anchors(text: str) -> frozenset[str]:
    """The anchors of all headings, as GitHub and MyST name them."""
    found: set[str] = set()
    tokens = _parser().parse(text)
    for token, inline in itertools.pairwise(tokens):
        if token.type != "heading_open":
            continue
        title = "".join(child.content for child in inline.children or () if child.type in ("text", "code_inline"))
        slug = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        number = next(number for number in range(1000) if (f"{slug}-{number}" if number else slug) not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return frozenset(found)
