"""How an API server is reached and who asks: a pod's own service account, or a kubeconfig.

A service account's token is renewed on disk by the kubelet, so it is read again; so is what a program gives that a
kubeconfig names (Kubernetes "Authenticating", client-go credential plugins). An `auth-provider` is left to the official
client, which is loaded only then. What kubectl obeys and the agent does not is refused: it would act as somebody else.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import yaml

from federation.aiokit.address import is_loopback

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PROGRAM_S = 30.0
TOKEN_AGE_S = 60.0
"""The kubelet renews a token when a fifth of its time is left: minutes, never seconds."""


class CredentialsError(Exception):
    """The cluster cannot be reached with what was given. The message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A credential plugin. `env` are further variables; `info` what it is told of the cluster, as JSON."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    api_version: str
    info: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAccess:
    """A server and how to speak to it. `tls` None is plain HTTP, which only loopback may be. `server_name` is whom its
    certificate is of, where that is not its host; `proxy` an HTTP proxy on the way there."""

    server: str
    tls: ssl.SSLContext | None
    server_name: str | None = None
    proxy: str | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    program: Program | None = None
    kubeconfig_with_provider: Path | None = None


async def load(kubeconfig: Path | None) -> ApiAccess:
    """What `kubeconfig` says, or a pod's own service account without one. Raises: CredentialsError."""
    if kubeconfig is None:
        return _in_cluster()
    return await asyncio.to_thread(_from_kubeconfig, kubeconfig)


def _in_cluster() -> ApiAccess:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    token_file, authorities = SERVICE_ACCOUNT / "token", SERVICE_ACCOUNT / "ca.crt"
    if not host or not token_file.exists():
        raise CredentialsError("no service account here: this is no pod of a cluster; give --kubeconfig")
    shown = f"[{host}]" if ":" in host else host
    return ApiAccess(
        server=f"https://{shown}:{port}",
        tls=ssl.create_default_context(cafile=str(authorities)),
        token_file=token_file,
    )


def _from_kubeconfig(path: Path) -> ApiAccess:
    try:
        document: Any = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        context = _named(document["contexts"], document["current-context"])["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = (_named(document["users"], context["user"])["user"] or {}) if context.get("user") else {}
        server = str(cluster["server"]).rstrip("/")
    except (OSError, yaml.YAMLError) as error:
        raise CredentialsError(f"{path}: {error}") from error
    except (KeyError, TypeError, StopIteration) as error:
        raise CredentialsError(f"{path}: no current context with a cluster and a user") from error
    try:
        tls = _tls(cluster, user, server, path.parent)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise CredentialsError(f"{path}: {error}") from error
    for name, instead in _NOT_SPOKEN.items():
        if user.get(name):
            raise CredentialsError(f"{path}: {name} of a user is not obeyed: {instead}")
    program = _program(path, user["exec"], cluster) if user.get("exec") else None
    return ApiAccess(
        server=server,
        tls=tls,
        server_name=str(cluster["tls-server-name"]) if cluster.get("tls-server-name") else None,
        proxy=_proxy(path, cluster) or _proxy_of_environment(server),
        token=str(user.get("token") or ""),
        token_file=path.parent / str(user["tokenFile"]) if user.get("tokenFile") else None,
        program=program,
        kubeconfig_with_provider=path if user.get("auth-provider") else None,
    )


_NOT_SPOKEN = {
    "as": "name a user who may do what the agent does",
    "username": "API servers take no passwords; name a token or a certificate",
}


def _program(path: Path, given: Any, cluster: Any) -> Program:
    """Raises: CredentialsError."""
    try:
        command, api_version = str(given["command"]), str(given["apiVersion"])
        env = tuple((str(one["name"]), str(one["value"])) for one in given.get("env") or ())
    except (KeyError, TypeError) as error:
        raise CredentialsError(f"{path}: exec of a user needs command and apiVersion, and env a list") from error
    if "/" in command:  # as kubectl has it: from the file that names it
        command = str(path.parent / command)
    told = {key: cluster[key] for key in _CLUSTER_INFO if cluster.get(key)} if given.get("provideClusterInfo") else None
    spec = {"interactive": False, **({"cluster": told} if told is not None else {})}
    return Program(
        command=(command, *(str(one) for one in given.get("args") or ())),
        env=env,
        api_version=api_version,
        info=json.dumps({"apiVersion": api_version, "kind": "ExecCredential", "spec": spec}),
        hint=str(given.get("installHint") or "").strip(),
    )


_CLUSTER_INFO = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")


def _proxy(path: Path, cluster: Any) -> str | None:
    """`proxy-url` of a cluster. Raises: CredentialsError for a kind of proxy that the agent does not speak to."""
    proxy = cluster.get("proxy-url")
    if not proxy:
        return None
    scheme = urlsplit(str(proxy)).scheme
    if scheme not in ("http", "https"):
        raise CredentialsError(f"{path}: proxy-url of kind {scheme or 'none'!r}: only http:// and https:// are spoken")
    return str(proxy)


def _proxy_of_environment(server: str) -> str | None:
    """By HTTPS_PROXY and NO_PROXY, as kubectl has it: loopback is asked directly, and NO_PROXY may name networks."""
    url = urlsplit(server)
    host = url.hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback) or proxy_bypass(url.netloc):
        return None
    proxies = getproxies_environment()
    if address is not None and any(address in one for one in _networks(proxies.get("no", ""))):
        return None
    proxy = proxies.get(url.scheme)
    return proxy if proxy and urlsplit(proxy).scheme in ("http", "https") else None


def _networks(no_proxy: str) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for text in no_proxy.split(","):
        if "/" in text:
            with suppress(ValueError):
                yield ipaddress.ip_network(text.strip(), strict=False)


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
    file = cluster.get("certificate-authority") if not data else None
    context = ssl.create_default_context(
        cafile=str(directory / file) if file else None,
        cadata=base64.b64decode(data).decode() if data else None,
    )
    certificate, key = (_content(user, f"client-{part}", directory) for part in ("certificate", "key"))
    if certificate:
        _load(context, certificate, key)
    return context


def _content(user: Any, name: str, directory: Path) -> bytes:
    """What a field of a kubeconfig holds, itself or in a file; what it holds itself goes before."""
    if user.get(f"{name}-data"):
        return base64.b64decode(user[f"{name}-data"])
    return (directory / str(user[name])).read_bytes() if user.get(name) else b""


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Raises: OSError, ssl.SSLError."""
    with tempfile.NamedTemporaryFile() as both:
        both.write(certificate + b"\n" + key)
        both.flush()
        context.load_cert_chain(both.name)


class Tokens:
    """The bearer token of now."""

    def __init__(self, access: ApiAccess) -> None:
        self._access = access
        self._token = access.token
        self._read_s = float("-inf")

    async def current(self, now_s: float) -> str:
        """The token, read again when it has been kept for a minute. Raises: CredentialsError, OSError."""
        if now_s - self._read_s > TOKEN_AGE_S:
            if self._access.token_file is not None:
                self._token = (await asyncio.to_thread(self._access.token_file.read_text)).strip()
            elif self._access.program is not None:
                self._token = await _from_program(self._access.program, self._access.tls)
            elif self._access.kubeconfig_with_provider is not None:
                self._token = await _from_provider(self._access.kubeconfig_with_provider)
            self._read_s = now_s
        return self._token

    def forget(self) -> None:
        """It was refused: read it again."""
        self._read_s = float("-inf")


async def _from_program(program: Program, tls: ssl.SSLContext | None) -> str:
    """The token that a credential plugin gives; a certificate that it gives is used from now on.

    Raises: CredentialsError.
    """
    what = f"exec: {program.command[0]}"
    env = {**os.environ, **dict(program.env), "KUBERNETES_EXEC_INFO": program.info}
    try:
        running = await asyncio.create_subprocess_exec(
            *program.command,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        hint = f"; {program.hint}" if program.hint else ""
        raise CredentialsError(f"{what} cannot be run: {error.strerror or error}{hint}") from error
    try:
        out, complaint = await asyncio.wait_for(running.communicate(), PROGRAM_S)
    except TimeoutError as error:
        running.kill()
        await running.wait()
        raise CredentialsError(
            f"{what} did not answer within {PROGRAM_S:.0f} s: nobody can be asked to sign in"
        ) from error
    if running.returncode:
        said = complaint.decode(errors="replace").strip()[-300:]
        raise CredentialsError(f"{what} ended with {running.returncode}: {said}")
    try:
        status = json.loads(out)["status"]
        token, certificate = str(status.get("token") or ""), str(status.get("clientCertificateData") or "")
        if certificate and tls is not None:
            await asyncio.to_thread(_load, tls, certificate.encode(), str(status.get("clientKeyData") or "").encode())
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise CredentialsError(f"{what} gave no ExecCredential with a status") from error
    if not token and not certificate:
        raise CredentialsError(f"{what} gave neither a token nor a certificate")
    return token


async def _from_provider(kubeconfig: Path) -> str:
    """What an auth provider of a kubeconfig gives, by the official client."""
    from kubernetes.aio import client, config

    configuration = client.Configuration()
    try:
        await config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    except config.ConfigException as error:
        raise CredentialsError(f"{kubeconfig}: {error}") from error
    return str(configuration.api_key.get("BearerToken", "")).removeprefix("Bearer ")
