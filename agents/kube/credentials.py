"""How an API server is reached and who asks: a pod's own service account, or a kubeconfig.

A service account's token is renewed on disk by the kubelet, so it is read again; a kubeconfig that runs a program for
its credentials is left to the official client, which is loaded only then.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from federation.aiokit.address import is_loopback

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_AGE_S = 60.0
"""The kubelet renews a token when a fifth of its time is left: minutes, never seconds."""


class CredentialsError(Exception):
    """The cluster cannot be reached with what was given. The message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A server and how to speak to it. `tls` None is plain HTTP, which only loopback may be. `server_name` is whom its
    certificate is of, where that is not its host; `proxy` an HTTP proxy on the way there."""

    server: str
    tls: ssl.SSLContext | None
    server_name: str | None = None
    proxy: str | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    kubeconfig_with_program: Path | None = None


async def load(kubeconfig: Path | None) -> Access:
    """What `kubeconfig` says, or a pod's own service account without one. Raises: CredentialsError."""
    if kubeconfig is None:
        return _in_cluster()
    return await asyncio.to_thread(_from_kubeconfig, kubeconfig)


def _in_cluster() -> Access:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    token_file, authorities = SERVICE_ACCOUNT / "token", SERVICE_ACCOUNT / "ca.crt"
    if not host or not token_file.exists():
        raise CredentialsError("no service account here: this is no pod of a cluster; give --kubeconfig")
    shown = f"[{host}]" if ":" in host else host
    return Access(
        server=f"https://{shown}:{port}",
        tls=ssl.create_default_context(cafile=str(authorities)),
        token_file=token_file,
    )


def _from_kubeconfig(path: Path) -> Access:
    try:
        document: Any = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        context = _named(document["contexts"], document["current-context"])["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document["users"], context["user"])["user"] or {}
        server = str(cluster["server"]).rstrip("/")
    except (OSError, yaml.YAMLError) as error:
        raise CredentialsError(f"{path}: {error}") from error
    except (KeyError, TypeError, StopIteration) as error:
        raise CredentialsError(f"{path}: no current context with a cluster and a user") from error
    try:
        tls = _tls(cluster, user, server, path.parent)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise CredentialsError(f"{path}: {error}") from error
    needs_program = "exec" in user or "auth-provider" in user
    return Access(
        server=server,
        tls=tls,
        server_name=str(cluster["tls-server-name"]) if cluster.get("tls-server-name") else None,
        proxy=_proxy(path, cluster),
        token=str(user.get("token", "")),
        token_file=path.parent / str(user["tokenFile"]) if user.get("tokenFile") else None,
        kubeconfig_with_program=path if needs_program else None,
    )


def _proxy(path: Path, cluster: Any) -> str | None:
    """`proxy-url` of a cluster. Raises: CredentialsError for a kind of proxy that the agent does not speak to."""
    proxy = cluster.get("proxy-url")
    if not proxy:
        return None
    scheme = urlsplit(str(proxy)).scheme
    if scheme not in ("http", "https"):
        raise CredentialsError(f"{path}: proxy-url of kind {scheme or 'none'!r}: only http:// and https:// are spoken")
    return str(proxy)


def _named(entries: Any, name: str) -> Any:
    return next(one for one in entries if one["name"] == name)


def _tls(cluster: Any, user: Any, server: str, directory: Path) -> ssl.SSLContext | None:
    url = urlsplit(server)
    if url.scheme != "https":
        if url.scheme == "http" and url.hostname and is_loopback(url.hostname):
            return None
        raise ValueError(f"server {server} is not https://")
    if cluster.get("insecure-skip-tls-verify"):
        raise ValueError("insecure-skip-tls-verify: name the authorities instead, in certificate-authority")
    data = cluster.get("certificate-authority-data")
    file = cluster.get("certificate-authority")
    context = ssl.create_default_context(
        cafile=str(directory / file) if file else None,
        cadata=base64.b64decode(data).decode() if data else None,
    )
    certificate, key = user.get("client-certificate"), user.get("client-key")
    if user.get("client-certificate-data"):
        with tempfile.NamedTemporaryFile() as both:
            for part in ("client-certificate-data", "client-key-data"):
                both.write(base64.b64decode(user.get(part, "")))
            both.flush()
            context.load_cert_chain(both.name)
    elif certificate:
        context.load_cert_chain(str(directory / certificate), str(directory / key) if key else None)
    return context


class Tokens:
    """The bearer token of now."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._token = access.token
        self._read_s = float("-inf")

    async def current(self, now_s: float) -> str:
        """The token, read again when it has been kept for a minute. Raises: CredentialsError, OSError."""
        if now_s - self._read_s > TOKEN_AGE_S:
            if self._access.token_file is not None:
                self._token = (await asyncio.to_thread(self._access.token_file.read_text)).strip()
            elif self._access.kubeconfig_with_program is not None:
                self._token = await _from_program(self._access.kubeconfig_with_program)
            self._read_s = now_s
        return self._token

    def forget(self) -> None:
        """It was refused: read it again."""
        self._read_s = float("-inf")


async def _from_program(kubeconfig: Path) -> str:
    """What a credential program of a kubeconfig gives, by the official client."""
    from kubernetes.aio import client, config

    configuration = client.Configuration()
    try:
        await config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    except config.ConfigException as error:
        raise CredentialsError(f"{kubeconfig}: {error}") from error
    return str(configuration.api_key.get("BearerToken", "")).removeprefix("Bearer ")
