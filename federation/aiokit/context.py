"""The context file by which the command line finds its controller: the controller writes it, commands read it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The address of a controller, and its token."""

    server: str
    token: str
    ca_file: str | None = None


def path() -> Path:
    """`$ISOCHRONE_CONFIG`, else `isochrone/config.json` in the user's configuration directory."""
    named = os.environ.get("ISOCHRONE_CONFIG")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "isochrone" / "config.json"


def write(context: Context) -> None:
    """Write the context, readable by this user alone."""
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f"{file.name}.new")
    temporary.touch(mode=0o600)
    temporary.chmod(0o600)
    temporary.write_bytes(msgspec.json.encode(context))
    temporary.replace(file)


def read() -> Context | None:
    """The context, or None. Raises: ValueError when the file is damaged, with its path."""
    file = path()
    try:
        return msgspec.json.decode(file.read_bytes(), type=Context)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ValueError(f"{file}: {error}; remove it and give --server and --token-file") from error
