"""Keeps secrets out of public places: the arguments of a process are visible to all of a machine, and errors go into
logs."""

from __future__ import annotations

import click
from click.core import ParameterSource


def has_password(url: str) -> bool:
    """Whether the part before an @ may contain a password, however the URL is mistyped."""
    before, at, _ = url.rpartition("@")
    return bool(at) and ":" in before.rpartition("//")[2]


def shown(url: str) -> str:
    """The URL without user and password, for display."""
    before, at, after = url.rpartition("@")
    scheme, slashes, _ = before.partition("://")
    return f"{scheme if slashes else ''}{slashes}…@{after}" if at else url


def given_openly(ctx: click.Context, parameter: click.Parameter) -> bool:
    """Whether the value is among the arguments of this process."""
    return ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE


def no_password(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A callback: refuses a URL with a password as an argument. Raises: click.UsageError."""
    if value and has_password(value) and given_openly(ctx, parameter):
        raise click.UsageError(
            f"{parameter.opts[0]} {shown(value)} has a password, and arguments are read by everyone on this machine: "
            f"give mqtts://USER@HOST:PORT and --broker-password-file, or all of it in ${parameter.envvar}"
        )
    return value


def no_token(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A callback: refuses a token as an argument. Raises: click.UsageError."""
    if value and given_openly(ctx, parameter):
        raise click.UsageError(
            f"{parameter.opts[0]} is read by everyone on this machine while the command runs: give --token-file, or "
            f"set ${parameter.envvar}"
        )
    return value
