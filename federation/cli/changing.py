"""Commands that change something, or say what would change: diff, apply, lint, cordon, drain, uncordon, confirm."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import msgspec

from federation.api import views
from federation.cli import tables
from federation.cli.client import CliError, connect
from federation.cli.terminal import echo
from federation.yamlkit.explain import Problem

YAML = "application/yaml"
FILE = click.option(
    "-f", "--file", "files", multiple=True, required=True, help="File, directory, or - for standard input."
)

FORCE = click.option("--force", is_flag=True, help="Override the refusal of a harmful change; needs --reason.")
WHY = click.option("--reason", default="", help="The reason for the override, for the next engineer.")


def _forced(force: bool, reason: str) -> dict[str, str | None]:
    """The API parameters of `--force --reason`."""
    if force and not reason.strip():
        raise click.UsageError('--force needs --reason "…": the next engineer will ask')
    return {"force": "true" if force else None, "reason": reason if force else None}


def _read(files: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """(name, content) of every file named, directories by their YAML."""
    found = []
    for text in files:
        path = Path(text)
        if text == "-":
            found.append(("stdin.yaml", sys.stdin.buffer.read()))
        elif path.is_dir():
            found += [(one.name, one.read_bytes()) for one in sorted(path.glob("*.y*ml"))]
        elif path.is_file():
            found.append((path.name, path.read_bytes()))
        else:
            what = "not a regular file" if path.exists() else "no such file"
            raise CliError(f"{text}: {what}", "give a YAML file, a directory, or -", exit_code=2)
    if not found:
        raise CliError("no YAML file there", exit_code=2)
    return sorted(found, key=lambda one: b"kind: Cluster" not in one[1])


@click.command(
    epilog="""\b
Exit code: 0 nothing would change, 1 something would, more on errors.
\b
Examples:
  isochrone diff -f policies.yaml
"""
)
@click.option("-f", "--file", "file", required=True, help="File, or - for standard input.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.pass_context
def diff(ctx: click.Context, file: str, output: str) -> None:
    """What a policy file would move, at what cost, and whose latency changes. Changes nothing."""
    name, payload = _read((file,))[0]
    try:
        view = connect(ctx).post("/v1/diff", payload, YAML, views.DiffView, name=name)
    except CliError as error:
        raise CliError(error.message, error.hint, exit_code=max(2, error.status)) from error
    echo(tables.document(view, output) if output != "table" else _diff_text(view))
    ctx.exit(1 if view.changed or view.refused else 0)


def _diff_text(view: views.DiffView) -> str:
    if not view.changed and not view.refused:
        return "nothing would change"
    lines = []
    for one in view.changes:
        sign = "+" if one.after > one.before else "-"
        lines.append(
            f"{sign} {one.model:<18} {one.cluster:<26} {one.pool:<36} {one.before} -> {one.after}  {one.reason}"
        )
    lines.append(f"\nUSD per hour: {view.usd_per_hour_before:.2f} -> {view.usd_per_hour_after:.2f}")
    if view.near_before is not None and view.near_after is not None:
        was, then = view.near_before, view.near_after
        lines.append(f"mean round trip: {was.rtt_ms_mean:.1f} -> {then.rtt_ms_mean:.1f} ms")
        lines.append(
            f"farther than the nearest that could serve: {was.excess_ms_mean:.1f} -> {then.excess_ms_mean:.1f} ms"
        )
    lines.append(f"unserved requests per second: {view.unserved_rps_before:.2f} -> {view.unserved_rps_after:.2f}")
    for change in view.latency[:40]:
        before = tables.UNKNOWN if change.before_ms is None else f"{change.before_ms:.0f}"
        after = "unserved" if change.after_ms is None else f"{change.after_ms:.0f}"
        lines.append(f"  {change.model:<18} {change.cell:<20} {before} -> {after} ms")
    if len(view.latency) > 40:
        lines.append(f"  … and {len(view.latency) - 40} cells more (-o json has all)")
    for start in view.restarts:
        lines.append(f"{start.model}: {start.replicas} replicas restart: one first, the others once it is ready")
    for why in view.refused:
        lines.append(f"apply would refuse it: {why}")
    if view.refused:
        lines.append('if this is intended, use apply --force --reason "…"')
    return "\n".join(lines)


@click.command(
    epilog="""\b
Examples:
  isochrone apply -f policies.yaml
  isochrone apply -f configs/policies
  isochrone apply -f policies.yaml --force --reason "the model is retired"
"""
)
@FILE
@FORCE
@WHY
@click.pass_context
def apply(ctx: click.Context, files: tuple[str, ...], force: bool, reason: str) -> None:
    """Apply policy files. What is accepted is durable when this returns; a refused file changes nothing.

    A file that would do harm to users is refused with a forecast, unless it is forced with a reason.
    """
    forced = _forced(force, reason)
    client = connect(ctx)
    for name, payload in _read(files):
        view = client.post("/v1/policies", payload, YAML, views.AppliedView, name=name, **forced)
        for one in view.documents:
            echo(f"{one.lower()} {'configured' if view.changed else 'unchanged'}")
        for doubt in view.warnings:
            echo(f"warning: {msgspec.convert(doubt, Problem, from_attributes=True).text()}", err=True)


@click.command(
    epilog="""\b
Examples:
  isochrone delete policy chat.yaml
  isochrone delete policy chat.yaml --force --reason "the model is retired"
"""
)
@click.argument("what", type=click.Choice(["policy"]))
@click.argument("name")
@FORCE
@WHY
@click.pass_context
def delete(ctx: click.Context, what: str, name: str, force: bool, reason: str) -> None:
    """Take a policy file out of force, by the name that `isochrone get policies` shows.

    A deletion that would do harm to users is refused with a forecast, unless it is forced with a reason.
    """
    view = connect(ctx).delete(f"/v1/policies/{name}", views.WithdrawnView, **_forced(force, reason))
    for one in view.documents:
        echo(f"{one.lower()} deleted")


@click.command(
    epilog="""\b
Examples:
  isochrone rollback policy chat.yaml
  isochrone rollback policy chat.yaml --revision 12
"""
)
@click.argument("what", type=click.Choice(["policy"]))
@click.argument("name")
@click.option(
    "--revision", type=click.IntRange(min=1), help="Default: the newest revision that differs from the one in force."
)
@FORCE
@WHY
@click.pass_context
def rollback(ctx: click.Context, what: str, name: str, revision: int | None, force: bool, reason: str) -> None:
    """Restore an earlier revision of a policy file, also of one that was withdrawn."""
    asked = {"revision": None if revision is None else str(revision), **_forced(force, reason)}
    view = connect(ctx).post(f"/v1/policies/{name}/rollback", b"", YAML, views.AppliedView, **asked)
    for one in view.documents:
        echo(f"{one.lower()} {'rolled back' if view.changed else 'unchanged'}")


@click.command(epilog="\b\nExamples:\n  isochrone lint policies.yaml\n  isochrone lint -o json configs/policies\n")
@click.argument("files", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def lint(ctx: click.Context, files: tuple[str, ...], output: str) -> None:
    """Check policy files without a controller: each alone, and all together. Warnings are no failure."""
    from federation.policy import catalogue
    from federation.state.shipped import shipped_products

    known = catalogue.PolicySet(products=shipped_products())
    problems: list[Problem] = []
    given = _read(files)
    for name, payload in given:
        known, found = catalogue.accept(known, name, payload)
        problems += found
    warnings = [one for name, _ in given if name in known.files for one in catalogue.warnings(known, name, {})]
    if output == "json":
        told = [msgspec.to_builtins(one) | {"severity": "error"} for one in problems]
        told += [msgspec.to_builtins(one) | {"severity": "warning"} for one in warnings]
        echo(json.dumps(told, indent=2))
    else:
        for one in problems:
            echo(one.text())
        for one in warnings:
            echo(f"warning: {one.text()}")
        if not problems:
            echo("1 file is good" if len(given) == 1 else f"{len(given)} files are good")
    ctx.exit(1 if problems else 0)


def _order(ctx: click.Context, cluster: str, action: str, reason: str, **query: str | None) -> None:
    body = json.dumps({"reason": reason}).encode()
    connect(ctx).post(f"/v1/clusters/{cluster}/{action}", body, "application/json", views.ClusterView, **query)
    echo(f"cluster/{cluster} {action}ed")


def _said(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """A reason with content. Raises: BadParameter."""
    if not value.strip():
        raise click.BadParameter("it is empty; say why, the next engineer will ask", ctx, parameter)
    return value


REASON = click.option("--reason", required=True, callback=_said, help="Why: the next engineer will ask.")


@click.command(epilog='\b\nExamples:\n  isochrone cordon aws-eu-central-1 --reason "kernel update"\n')
@click.argument("cluster")
@REASON
@click.pass_context
def cordon(ctx: click.Context, cluster: str, reason: str) -> None:
    """Give a cluster no new load; it keeps its present load."""
    _order(ctx, cluster, "cordon", reason)


@click.command(epilog='\b\nExamples:\n  isochrone drain aws-eu-central-1 --reason "leaving the region"\n')
@click.argument("cluster")
@click.option("--force", is_flag=True, help="Drain even if no other cluster can serve its users.")
@REASON
@click.pass_context
def drain(ctx: click.Context, cluster: str, force: bool, reason: str) -> None:
    """Move a cluster's load away, make before break.

    A drain that would leave users whom no other cluster can serve is refused with their number, unless it is forced.
    """
    _order(ctx, cluster, "drain", reason, force="true" if force else None)


@click.command(epilog="\b\nExamples:\n  isochrone uncordon aws-eu-central-1\n")
@click.argument("cluster")
@click.option("--reason", default="", help="Why.")
@click.pass_context
def uncordon(ctx: click.Context, cluster: str, reason: str) -> None:
    """Let a cluster take load again."""
    _order(ctx, cluster, "uncordon", reason)


@click.command(
    epilog="""\b
Exit code: 0 confirmed, 1 nothing waits for confirmation, 5 no such cluster.
\b
Examples:
  isochrone describe cluster aws-eu-central-1      what it claims and what waits, under conditions
  isochrone confirm aws-eu-central-1 --reason "launch in Poland, seen in the CDN"
  isochrone confirm aws-eu-central-1 --model chat-8b --reason "new client, ticket 812"
"""
)
@click.argument("cluster")
@click.option("--model", help="Believe the claimed users of this model only.")
@REASON
@click.pass_context
def confirm(ctx: click.Context, cluster: str, model: str | None, reason: str) -> None:
    """Confirm the claims of a cluster that wait: users beyond its known level, and prices and round trips that jumped.
    Later claims are compared with the confirmed ones."""
    _order(ctx, cluster, "confirm", reason, model=model)
