"""An HTTP connection to the controller: views as JSON, and errors that name the next step."""

from __future__ import annotations

import http.client
import json
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import click
import msgspec

from federation.aiokit import context
from federation.aiokit.address import host_port, is_loopback
from federation.aiokit.confidential import shown
from federation.aiokit.printable import one_line
from federation.api import views
from federation.cli.terminal import echo
from federation.yamlkit.explain import Problem

T = TypeVar("T")
TIMEOUT_S = 60.0
UNREACHABLE, UNAUTHORISED, NOT_FOUND = 3, 4, 5


class CliError(click.ClickException):
    """A failure with its cause, the next step and an exit code."""

    def __init__(self, message: str, hint: str = "", *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.hint = hint
        self.status = exit_code

    def show(self, file: Any = None) -> None:
        echo(f"error: {self.message}", err=True)
        if self.hint:
            echo(f"hint: {self.hint}", err=True)


class Client:
    """A controller's API. Raises: CliError for every failure."""

    def __init__(self, server: str, token: str, ca_file: str | None = None) -> None:
        self.server, self.token, self._ca_file = server.rstrip("/"), token, ca_file
        parts = urlsplit(self.server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CliError(f"--server {shown(server)!r} is not a URL", "as http://127.0.0.1:8480", exit_code=2)
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise CliError(f"{shown(server)} would carry the token in plain text", "use https://", exit_code=2)
        self._host, self._port, self._tls = parts.hostname, parts.port, parts.scheme == "https"

    def get(self, path: str, kind: type[T], **query: str | None) -> T:
        """GET `path` as `kind`."""
        return self._decode(self._ask("GET", _with_query(path, query)), kind)

    def items(self, path: str, kind: type[T], **query: str | None) -> list[T]:
        """GET a list."""
        raw = self._ask("GET", _with_query(path, query)).read()
        return msgspec.convert(json.loads(raw)["items"], list[kind])  # type: ignore[valid-type]

    def post(self, path: str, body: bytes, content_type: str, kind: type[T], **query: str | None) -> T:
        """POST `body`."""
        return self._decode(self._ask("POST", _with_query(path, query), body, content_type), kind)

    def delete(self, path: str, kind: type[T], **query: str | None) -> T:
        """DELETE `path`."""
        return self._decode(self._ask("DELETE", _with_query(path, query)), kind)

    def stream(self) -> Iterator[tuple[str, bytes]]:
        """(event type, data) of the event stream, until it breaks."""
        response = self._ask("GET", "/v1/stream", timeout_s=None)
        kind, data = "message", b""
        for line in response:
            line = line.rstrip(b"\r\n")
            if line.startswith(b"event:"):
                kind = line[6:].strip().decode()
            elif line.startswith(b"data:"):
                data += line[5:].strip()
            elif not line:
                if data:
                    yield kind, data
                kind, data = "message", b""

    def _ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        content_type: str = "",
        timeout_s: float | None = TIMEOUT_S,
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self.token}"}
        if content_type:
            headers["Content-Type"] = content_type
        try:
            connection = self._connect(timeout_s)
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise CliError(
                f"cannot reach the controller at {self.server}: {error}",
                "start one with `isochrone demo` or `isochrone controller`, or give --server",
                exit_code=UNREACHABLE,
            ) from error
        if response.status >= 400:
            raise _refusal(response.status, response.read())
        return response

    def _connect(self, timeout_s: float | None) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        tls = ssl.create_default_context(cafile=self._ca_file)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=tls)

    @staticmethod
    def _decode(response: http.client.HTTPResponse, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(response.read(), type=kind)
        except msgspec.DecodeError as error:
            raise CliError(
                f"the controller's answer cannot be decoded: {error}", "is it of another version?"
            ) from error


def _with_query(path: str, query: dict[str, str | None]) -> str:
    given = {key: value for key, value in query.items() if value is not None}
    return quote(path) + (f"?{urlencode(given)}" if given else "")


def _refusal(status: int, body: bytes) -> CliError:
    try:
        error = msgspec.json.decode(body, type=views.ErrorView)
    except msgspec.DecodeError:
        return CliError(f"the controller answered {status}", "", exit_code=1)
    exit_code = {401: UNAUTHORISED, 404: NOT_FOUND}.get(status, 1)
    for one in error.problems:
        echo(one_line(msgspec.convert(one, Problem, from_attributes=True).text()), err=True)
    message = f"{len(error.problems)} problems, as above" if error.problems else error.message
    return CliError(f"{message} ({error.code})", error.hint, exit_code=exit_code)


def connect(ctx: click.Context) -> Client:
    """The client of this command: options and environment first, then the context file that a controller here wrote."""
    given = ctx.find_root().obj or {}
    try:
        known = context.read()
    except ValueError as error:
        raise CliError(str(error)) from error
    server = given.get("server") or (known.server if known else None)
    token = (
        _token_in(given.get("token_file"))
        or given.get("token")
        or (known.token if known and server == known.server else None)
    )
    if server is None:
        raise CliError(
            "no controller is known",
            "start one with `isochrone demo` or `isochrone controller`, or give --server and --token-file",
            exit_code=UNREACHABLE,
        )
    if token is None:
        raise CliError(f"no token for {server}", "give --token-file or set ISOCHRONE_TOKEN", exit_code=UNAUTHORISED)
    return Client(server, token, given.get("ca_file") or (known.ca_file if known else None))


def _token_in(file: str | None) -> str:
    if file is None:
        return ""
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"--token-file {file}: {error}", exit_code=UNAUTHORISED) from error


def link_to(url: str, sign_in_url: str) -> str:
    """The map's link. The variant that signs in is for a person at a terminal, and goes into no log."""
    return sign_in_url if sys.stderr.isatty() else f"{url} (`isochrone map` prints the link that signs in)"


def listen_at(option: str, text: str, example: str) -> tuple[str, int]:
    """The host and port of an option. Raises: click.UsageError."""
    try:
        return host_port(text, example)
    except ValueError as error:
        raise click.UsageError(f"{option} {error}") from error
