"""The one way to the terminal: names, reasons and events come from many clusters, and none of them may steer it."""

from __future__ import annotations

import click

from federation.aiokit.printable import printable


def echo(text: str = "", *, err: bool = False) -> None:
    """Print lines. Control characters are shown, not sent."""
    click.echo(printable(text), err=err)
