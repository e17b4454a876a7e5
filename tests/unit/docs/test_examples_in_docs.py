"""The commands and policies in the papers work: they parse, and the linter finds nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from federation.cli.main import cli
from tests.unit.docs import papers
from tests.unit.docs.papers import PAPERS, ROOT, name_of

SHELLS = {"console", "sh", "bash", ""}
FILES = (
    *("chat.yaml", "clusters.yaml", "policies.yaml", "kubeconfig.yaml", "demand.yaml", "demand-fra.yaml"),
    *("demand-iad.yaml", "places.csv", "ca.crt", "agent.crt", "agent.key", "limits.yaml"),
)


def commands_of(text: str) -> Iterator[list[str]]:
    """The arguments of each `isochrone` command in the shell blocks of a paper."""
    for block in papers.blocks(text):
        if block.language not in SHELLS:
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0] == "isochrone":
                yield [word for word in words[1:] if word != "&"]


def parse(command: click.Command, arguments: list[str], parent: click.Context | None = None) -> None:
    """Parse as the command line does, without running. Raises: click.UsageError."""
    context = command.make_context(command.name or "isochrone", list(arguments), parent=parent)
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, child, rest = command.resolve_command(context, rest)
        assert name is not None and child is not None
        parse(child, rest, context)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that examples name, and no settings of this machine."""
    for name in FILES:
        (tmp_path / name).touch()
    (tmp_path / "policies").mkdir()
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", PAPERS, ids=name_of)
def test_commands_parse(path: Path, place: Path) -> None:
    """The first command that a user copies would answer with a usage error."""
    for arguments in commands_of(path.read_text(encoding="utf-8")):
        if "--help" not in arguments:
            expanded = [word.replace("~", str(place)) for word in arguments]
            parse(cli, expanded)


def test_the_commands_of_the_papers_are_found() -> None:
    """The check would pass by finding no command at all."""
    assert len(list(commands_of((ROOT / "README.md").read_text(encoding="utf-8")))) > 10


def test_a_wrong_command_is_found(place: Path) -> None:
    """The check would pass whatever the papers say."""
    (arguments,) = commands_of("```console\n$ isochrone get clusters --no-such-option  # why\n```\n")
    with pytest.raises(click.UsageError):
        parse(cli, arguments)


@pytest.mark.parametrize("path", PAPERS, ids=name_of)
def test_policies_are_good(path: Path, tmp_path: Path) -> None:
    """The first policy that a user copies would be refused."""
    found = [block.text for block in papers.blocks(path.read_text("utf-8")) if block.language == "yaml"]
    for number, text in enumerate(text for text in found if "kind:" in text):
        file = tmp_path / f"example-{number}.yaml"
        file.write_text(text, encoding="utf-8")
        done = CliRunner().invoke(cli, ["lint", str(file)])
        assert done.exit_code == 0, done.output
