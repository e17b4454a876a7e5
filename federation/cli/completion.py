"""Shell completion and the version."""

from __future__ import annotations

from importlib import metadata

import click
from click.shell_completion import get_completion_class


@click.command(
    epilog="""\b
Examples:
  source <(isochrone completion bash)
  isochrone completion fish > ~/.config/fish/completions/isochrone.fish
"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete isochrone's commands."""
    kind = get_completion_class(shell)
    assert kind is not None, "click knows the three shells that are offered"
    click.echo(kind(ctx.find_root().command, {}, "isochrone", "_ISOCHRONE_COMPLETE").source())


@click.command(epilog="\b\nExamples:\n  isochrone version\n")
def version() -> None:
    """Print the version."""
    click.echo(metadata.version("isochrone"))
