"""`isochrone`: the command line. Asks the controller's API and prints; kubectl's manners."""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import Any

import click

from federation.aiokit import confidential
from federation.cli.client import CliError

LAZY = {
    "controller": ("federation.cli.run_controller:controller", "Run the controller."),
    "agent": ("agents.main:agent", "Run the agent of a cluster."),
    "dns": ("federation.cli.run_dns:dns", "Serve DNS answers to PowerDNS."),
    "demo": ("federation.demo.main:demo", "A day of the world in ten minutes, with the map."),
    "get": (
        "federation.cli.reading:get",
        "List clusters, models, cells, placements, plans, policies, gateways, prices, demand, engines or events.",
    ),
    "describe": ("federation.cli.reading:describe", "Everything about one cluster, model, cell or plan."),
    "explain": ("federation.cli.reading:explain", "Why replicas and requests are where they are."),
    "frontier": ("federation.cli.frontier:frontier", "The cost of nearer service, and the savings of farther service."),
    "where": ("federation.cli.where:where", "Where devices could be had now, at what price and risk."),
    "routes": ("federation.cli.reading:routes", "Which cluster serves which users."),
    "diff": ("federation.cli.changing:diff", "What a policy file would move, and at what cost."),
    "apply": ("federation.cli.changing:apply", "Apply policy files."),
    "delete": ("federation.cli.changing:delete", "Take a policy file out of force."),
    "rollback": ("federation.cli.changing:rollback", "Restore an earlier revision of a policy file."),
    "lint": ("federation.cli.changing:lint", "Check policy files without a controller."),
    "cordon": ("federation.cli.changing:cordon", "Give a cluster no new load."),
    "drain": ("federation.cli.changing:drain", "Move a cluster's load away."),
    "uncordon": ("federation.cli.changing:uncordon", "Let a cluster take load again."),
    "confirm": ("federation.cli.changing:confirm", "Confirm the claims of a cluster that wait."),
    "map": ("federation.cli.reading:map_link", "Print the link that opens the latency map signed in."),
    "completion": ("federation.cli.completion:completion", "Print a shell completion script."),
    "version": ("federation.cli.completion:version", "Print the version."),
}
"""Commands are imported when they are used, so that each starts fast."""


class LazyGroup(click.Group):
    """A group whose commands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(LAZY)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in LAZY:
            return None
        module, _, attribute = LAZY[name][0].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in LAZY.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], LAZY, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise click.UsageError(error.message + hint, ctx) from None


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Exit codes: 0 done, 1 refused (diff: something would change), 2 wrong usage,
3 no controller reached, 4 not authorised, 5 not found.
\b
Examples:
  isochrone demo
  isochrone get clusters -o wide
  isochrone explain placement chat-8b
""",
)
@click.option(
    "--server", envvar="ISOCHRONE_SERVER", help="URL of the controller (default: the one that was started last here)."
)
@click.option("--token", envvar="ISOCHRONE_TOKEN", callback=confidential.no_token, hidden=True)
@click.option(
    "--token-file",
    envvar="ISOCHRONE_TOKEN_FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="File with the bearer token (or the token itself in ISOCHRONE_TOKEN).",
)
@click.option(
    "--ca-file",
    envvar="ISOCHRONE_CA_FILE",
    type=click.Path(exists=True),
    help="Authorities of the controller's certificate, PEM.",
)
@click.pass_context
def cli(ctx: click.Context, server: str | None, token: str | None, token_file: str | None, ca_file: str | None) -> None:
    """Placement and traffic of AI models over many Kubernetes clusters, by measured latency and price."""
    ctx.obj = {"server": server, "token": token, "token_file": token_file, "ca_file": ca_file}


def main() -> None:
    """The console script."""
    try:
        status = cli(standalone_mode=False, prog_name="isochrone")
        sys.exit(status if isinstance(status, int) else 0)
    except CliError as error:
        error.show()
        sys.exit(error.status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
