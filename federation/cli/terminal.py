"""Output to the terminal: names, reasons and events come from many clusters, and none of them may steer the
terminal."""

from __future__ import annotations

import click

from federation.aiokit.printable import printable


def echo(text: str = "", *, err: bool = False) -> None:
    """Print lines with control characters made visible."""
    click.echo(printable(text), err=err)
