"""Sphinx configuration: `make docs` builds the site in docs/_build, and fails on any warning."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.util import logging

from docs import reference_pages

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "Isochrone"
author = project_copyright = "The Isochrone authors"
version = release = version_of("isochrone")
extensions = ["myst_parser", "sphinx_click"]
exclude_patterns = ["_build"]
nitpicky = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"Isochrone {version}"
html_copy_source = False
html_show_sphinx = False


log = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    """Append the generated text to the pages that have a generator; warn of markup that is not understood."""

    def extend(_app: Sphinx, name: str, source: list[str]) -> None:
        if name in reference_pages.PAGES:
            source[0] += "\n" + reference_pages.PAGES[name]()

    app.add_lexer("mermaid", TextLexer)  # the source of a diagram is shown as text

    def find_unparsed(_app: Sphinx, doctree: nodes.document, name: str) -> None:
        for paragraph in doctree.findall(nodes.paragraph):
            if paragraph.astext().startswith(".. "):
                log.warning("a directive is shown as text: %s", paragraph.astext()[:60], location=name)

    def outdated(*_: object) -> list[str]:
        return sorted(reference_pages.PAGES)  # their text depends on the code, which Sphinx does not watch

    app.connect("env-get-outdated", outdated)
    app.connect("source-read", extend)
    app.connect("doctree-resolved", find_unparsed)
