"""How an agent reaches its API server: what a kubeconfig may say, and what it must not."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import RawTestServer, TestServer

from agents.kube import credentials
from agents.kube.api import Api, ApiError
from agents.kube.credentials import ApiAccess, CredentialsError, Tokens
from federation.aiokit.clock import Clock


def written(directory: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    """A kubeconfig of one context."""
    path = directory / "config"
    document = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document))
    return path


LOOPBACK = {"server": "http://127.0.0.1:8001"}


async def test_a_token_is_taken_as_it_is(tmp_path: Path) -> None:
    """A kubeconfig with a token would not connect."""
    access = await credentials.load(written(tmp_path, LOOPBACK, {"token": "abc"}))
    assert (access.server, access.tls) == ("http://127.0.0.1:8001", None)
    assert await Tokens(access).current(0.0) == "abc"


async def test_a_token_that_was_renewed_is_read_again(tmp_path: Path) -> None:
    """An agent would be locked out of its own cluster after an hour."""
    (tmp_path / "token").write_text("first\n")
    tokens = Tokens(await credentials.load(written(tmp_path, LOOPBACK, {"tokenFile": "token"})))
    assert await tokens.current(0.0) == "first"
    (tmp_path / "token").write_text("second\n")
    assert await tokens.current(10.0) == "first", "not on every request"
    assert await tokens.current(100.0) == "second"
    (tmp_path / "token").write_text("third\n")
    tokens.forget()
    assert await tokens.current(101.0) == "third", "a refused token is read again at once"


@pytest.mark.parametrize(
    ("cluster", "text"),
    [
        ({"server": "http://10.0.0.1:8001"}, "is not https://"),
        ({"server": "https://c.example", "insecure-skip-tls-verify": True}, "name the authorities instead"),
        ({"server": "https://c.example", "certificate-authority": "missing.crt"}, "No such file"),
        ({"server": "ftp://c.example"}, "is not https://"),
        ({}, "no current context with a cluster and a user"),
    ],
)
async def test_what_would_not_be_safe_is_refused_with_a_word(
    tmp_path: Path, cluster: dict[str, Any], text: str
) -> None:
    """The agent would hand its token to whoever answers."""
    with pytest.raises(CredentialsError, match=text):
        await credentials.load(written(tmp_path, cluster, {"token": "abc"}))


@pytest.mark.parametrize("content", ["", "[]", "a: b", "{", "contexts: []\ncurrent-context: x"])
async def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, content: str) -> None:
    """The agent would start without a cluster and report nothing."""
    (tmp_path / "config").write_text(content)
    with pytest.raises(CredentialsError):
        await credentials.load(tmp_path / "config")


async def test_outside_a_cluster_the_user_is_told_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first try on a laptop would end without advice."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(CredentialsError, match="give --kubeconfig"):
        await credentials.load(None)


async def test_a_program_gives_credentials(tmp_path: Path) -> None:
    """Users of managed clusters, whose kubeconfigs run a program, could not try the product."""
    script = tmp_path / "login"
    answer = '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "made"}}'
    script.write_text(f"#!/bin/sh\necho '{answer}'\n")
    script.chmod(0o755)
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(script),
            "interactiveMode": "Never",
        }
    }
    access = await credentials.load(written(tmp_path, LOOPBACK, user))
    assert await Tokens(access).current(0.0) == "made"


def a_pair(directory: Path) -> None:
    """A certificate that signs itself, and its key: `crt` and `key`."""
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=agent", "-days", "2"]
    pair = ["-keyout", str(directory / "key"), "-out", str(directory / "crt")]
    subprocess.run(["openssl", *request, *pair], check=True, capture_output=True)


def program(directory: Path, script: str, **more: Any) -> dict[str, Any]:
    """A user whose credentials a program beside the kubeconfig gives."""
    (directory / "bin").mkdir()
    (directory / "bin" / "login").write_text(f"#!/bin/sh\n{script}\n")
    (directory / "bin" / "login").chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./bin/login", "env": None, **more}}


async def test_a_program_is_found_from_its_kubeconfig_and_told_of_the_cluster(tmp_path: Path) -> None:
    """A kubeconfig that works with kubectl would not with the agent (ahmetb/kubectx#490)."""
    quiet = '$(printf %s "$KUBERNETES_EXEC_INFO" | tr -d \'"\')'
    script = f"""printf '{{"status": {{"token": "%s:%s:%s"}}}}' "$STAGE" "$1" "{quiet}" """
    user = program(
        tmp_path,
        script,
        args=["get-token"],
        env=[{"name": "STAGE", "value": "prod"}],
        provideClusterInfo=True,
    )
    access = await credentials.load(written(tmp_path, LOOPBACK, user))
    stage, argument, info = (await Tokens(access).current(0.0)).split(":", 2)
    assert (stage, argument) == ("prod", "get-token")
    assert "interactive: false" in info and "server: http://127.0.0.1:8001" in info


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo you are signed out >&2; exit 3", "ended with 3: you are signed out"),
        ("echo hello", "gave no ExecCredential"),
        ("""echo '{"status": {}}'""", "neither a token nor a certificate"),
        ("echo '[]'", "gave no ExecCredential"),
    ],
)
async def test_a_program_that_fails_says_why(tmp_path: Path, script: str, says: str) -> None:
    """The agent would be refused by its API server, and nobody would know that somebody has to sign in."""
    access = await credentials.load(written(tmp_path, LOOPBACK, program(tmp_path, script)))
    with pytest.raises(CredentialsError, match=says):
        await Tokens(access).current(0.0)


async def test_a_program_that_is_not_installed_is_said_with_the_hint(tmp_path: Path) -> None:
    """A user of a cloud's login program would not learn what to install."""
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "no-such-login"}}
    user["exec"]["installHint"] = "install it from example.com\n"
    access = await credentials.load(written(tmp_path, LOOPBACK, user))
    with pytest.raises(CredentialsError, match=r"no-such-login cannot be run: .*; install it from example.com"):
        await Tokens(access).current(0.0)


async def test_a_certificate_that_a_program_gives_is_shown_to_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever signs in by certificates (Teleport, smallstep) would be nobody to the API server."""
    a_pair(tmp_path)
    made = {"clientCertificateData": (tmp_path / "crt").read_text(), "clientKeyData": (tmp_path / "key").read_text()}
    (tmp_path / "made").write_text(json.dumps({"status": made}))
    user = program(tmp_path, f"cat {tmp_path}/made")
    access = await credentials.load(written(tmp_path, {"server": "https://c.example"}, user))
    loaded: list[bytes] = []
    real = credentials._load

    def load(context: ssl.SSLContext, *parts: bytes) -> None:
        loaded.extend(parts)
        real(context, *parts)

    monkeypatch.setattr(credentials, "_load", load)
    assert await Tokens(access).current(0.0) == ""
    assert loaded == [made["clientCertificateData"].encode(), made["clientKeyData"].encode()]


@pytest.mark.parametrize("context", [{"cluster": "c"}, {"cluster": "c", "user": None}, {"cluster": "c", "user": ""}])
async def test_a_context_may_have_no_user(tmp_path: Path, context: dict[str, Any]) -> None:
    """kubectl takes it (kube-rs/kube#1608); so does `kubectl proxy`, which asks for none."""
    path = written(tmp_path, LOOPBACK, {})
    document = {**yaml.safe_load(path.read_text()), "users": None, "contexts": [{"name": "x", "context": context}]}
    path.write_text(yaml.safe_dump(document))
    assert await Tokens(await credentials.load(path)).current(0.0) == ""


async def test_what_a_kubeconfig_holds_goes_before_its_files(tmp_path: Path) -> None:
    """A kubeconfig that was moved holds its data, and names files that are not there; a token may be null."""
    a_pair(tmp_path)
    held = base64.b64encode((tmp_path / "crt").read_bytes()).decode()
    cluster = {"server": "https://c.example/k8s/clusters/c-m-1/", "certificate-authority-data": held}
    cluster |= {"certificate-authority": "/home/somebody/ca.crt"}
    user = {
        "client-certificate-data": held,
        "client-certificate": "/home/somebody/crt",
        "client-key": "key",
        "token": None,
    }
    access = await credentials.load(written(tmp_path, cluster, user))
    assert (access.server, access.token) == ("https://c.example/k8s/clusters/c-m-1", "")
    assert access.tls is not None and access.tls.cert_store_stats()["x509"] == 1


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ({"token": "a", "as": "system:serviceaccount:x:y"}, "as of a user is not obeyed"),
        ({"username": "admin", "password": "x"}, "API servers take no passwords"),
        ({"exec": {"command": "aws"}}, "exec of a user needs command and apiVersion"),
    ],
)
async def test_what_kubectl_obeys_and_the_agent_does_not_is_refused(
    tmp_path: Path, user: dict[str, Any], says: str
) -> None:
    """The agent would act as somebody else than the kubeconfig says."""
    with pytest.raises(CredentialsError, match=says):
        await credentials.load(written(tmp_path, LOOPBACK, user))


def test_access_says_nothing_of_its_token_by_accident() -> None:
    """A log line or a stack trace would contain the cluster's token."""
    assert "abc" not in repr(ApiAccess(server="https://c", tls=None, token="abc"))


async def listed(path: Path) -> list[dict[str, Any]]:
    """What the API server of this kubeconfig has."""
    api = Api(await credentials.load(path), clock=Clock())
    try:
        return await api.items("/things")
    finally:
        await api.close()


async def test_a_server_behind_another_name_is_who_its_certificate_says(tmp_path: Path) -> None:
    """Clusters behind a load balancer or a tunnel could not be joined, though kubectl reaches them."""
    name = "kubernetes.default.svc"
    asked = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}"]
    asked += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", "key", "-out", "crt"]
    await asyncio.to_thread(subprocess.run, asked, cwd=tmp_path, check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "crt", tmp_path / "key")

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"metadata": {}, "items": [{"name": "a"}]})

    app = web.Application()
    app.router.add_get("/things", answer)
    served = TestServer(app, scheme="https")
    await served.start_server(ssl=tls)
    try:
        cluster = {"server": f"https://127.0.0.1:{served.port}", "certificate-authority": "crt"}
        with pytest.raises(ApiError, match="certificate"):
            await listed(written(tmp_path, cluster, {}))
        assert await listed(written(tmp_path, {**cluster, "tls-server-name": name}, {})) == [{"name": "a"}]
    finally:
        await served.close()


async def test_a_server_is_asked_through_the_proxy_that_is_named(tmp_path: Path) -> None:
    """Agents of clusters that are reached by a proxy alone would wait for a connection that nobody lets through."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(str(request.url))
        return web.json_response({"metadata": {}, "items": []})

    async with RawTestServer(answer) as proxy:
        cluster = {**LOOPBACK, "proxy-url": str(proxy.make_url("/"))}
        assert await listed(written(tmp_path, cluster, {})) == []
    assert [one.partition("?")[0] for one in asked] == ["http://127.0.0.1:8001/things"]
    with pytest.raises(CredentialsError, match="proxy-url of kind 'socks5'"):
        await credentials.load(written(tmp_path, {**LOOPBACK, "proxy-url": "socks5://127.0.0.1:1"}, {}))


@pytest.mark.parametrize(
    ("server", "environment", "proxy"),
    [
        ("https://api.fra.example:6443", {"HTTPS_PROXY": "http://proxy.example:3128"}, "http://proxy.example:3128"),
        ("https://api.fra.example:6443", {"https_proxy": "http://proxy.example:3128"}, "http://proxy.example:3128"),
        ("https://api.fra.example:6443", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "localhost,.fra.example"}, None),
        ("https://10.2.3.4:6443", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "bad/x, 10.0.0.0/8"}, None),
        ("https://11.2.3.4:6443", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "http://p:1"),
        ("https://127.0.0.1:6443", {"HTTPS_PROXY": "http://p:1"}, None),
        ("https://[fd00::1]:6443", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "fd00::/8"}, None),
        ("https://api.fra.example:6443", {"HTTPS_PROXY": "socks5://p:1"}, None),
        ("https://api.fra.example:6443", {}, None),
    ],
)
async def test_the_environment_names_a_proxy_as_for_kubectl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str, environment: dict[str, str], proxy: str | None
) -> None:
    """An agent beside a kubectl that works would wait for ever, or send what is inside to the proxy outside."""
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    access = await credentials.load(written(tmp_path, {"server": server}, {}))
    assert access.proxy == proxy
