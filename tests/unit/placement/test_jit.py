"""Machine code that is kept between runs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import placement
from placement import jit

PACKAGE = Path(placement.__file__).parent


def kernels(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """The functions of a file that numba compiles."""
    for node in ast.walk(tree):
        decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
        if any(isinstance(one, ast.Name) and one.id in ("compiled", "bare") for one in decorators):
            assert isinstance(node, ast.FunctionDef)
            yield node


def called_from_elsewhere(path: Path) -> Iterator[tuple[str, str]]:
    """(kernel, file of this package) of each call that a kernel makes to a function of another file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    home = {
        name.asname or name.name: f"{node.module.partition('.')[2].replace('.', '/')}.py"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("placement.")
        for name in node.names
    }
    for kernel in kernels(tree):
        for node in ast.walk(kernel):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in home:
                yield kernel.name, home[node.func.id]


def test_a_changed_price_of_a_request_is_not_hidden_by_machine_code_of_before() -> None:
    """After an upgrade, plans would be made with the old formula until the cache is deleted by hand."""
    calls = {
        (str(path.relative_to(PACKAGE)), kernel, file)
        for path in PACKAGE.rglob("*.py")
        for kernel, file in called_from_elsewhere(path)
    }
    assert calls and {file for _, _, file in calls} <= set(jit.SHARED), calls


def test_the_text_of_shared_files_counts_for_every_kernel() -> None:
    """The same: numba looks at the file of a kernel alone."""

    class File:
        _source_stamp = "own"

    class Cache:
        _cache_file = File()

    class Dispatcher:
        _cache = Cache()

    stamped = jit._stamped(Dispatcher())
    own, shared = stamped._cache._cache_file._source_stamp
    assert own == "own" and shared == jit._shared_text() != ""


def test_kernels_run_without_a_cache() -> None:
    """A read-only or uncompiled installation (NUMBA_DISABLE_JIT=1) would not start."""
    plain = object()
    assert jit._stamped(plain) is plain
