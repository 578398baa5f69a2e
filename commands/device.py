"""The verbs of a device: take part in a run, fetch what came of it."""

from __future__ import annotations

import signal
import socket
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fedpress.commands.screen import console
from fedpress.commands.words import read_plan


def client(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The server.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PLAN|TASK] [KEY=VALUE]...", help="The task, as for simulate.", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option(help="What people call this device; unique in a run.")] = socket.gethostname(),
    vault: Annotated[Path, typer.Option(help="Where the device keeps what is its own; survives restarts.")] = Path(
        "vault"
    ),
    shard: Annotated[
        int | None,
        typer.Option(
            help="Hold this part (from 0) of the plan's simulated split; else all that the task's data gives."
        ),
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="The server's certificate (PEM), for TLS.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Talk in the clear, on a network you trust.")] = False,
    device_class: Annotated[str, typer.Option(help="phone, pi, laptop, gpu ...")] = "any",
    unmetered: Annotated[
        bool | None,
        typer.Option(
            "--unmetered/--metered", help="Whether the link is free by the byte, for runs that ask.", show_default=False
        ),
    ] = None,
) -> None:
    """Take part in a run as one device, until it is over. Waits for a server that is not there yet.

    Example: [bold]fedpress client 192.0.2.7:8440 my_task.py --ca cert.pem --vault ~/.fedpress[/bold]
    """
    from fedpress.client import conditions
    from fedpress.simulations.join import join
    from fedpress.simulations.problem import Problem

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        reason = join(
            Problem(read_plan(words)),
            address,
            vault,
            name=name,
            shard=shard,
            ca=ca,
            insecure=insecure,
            device_class=device_class,
            condition=partial(conditions.condition, unmetered),
        )
    except KeyboardInterrupt:
        reason = "stopped"
    console.print(f"Done: {escape(reason)}.")


def fetch(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The server of a run that was shipped.")],
    to: Annotated[Path, typer.Option("--to", help="Where to write the model.")] = Path("model.onnx"),
    vault: Annotated[Path, typer.Option(help="The device's vault.")] = Path("vault"),
    device_class: Annotated[str, typer.Option(help="Which kind of device asks.")] = "any",
    ca: Annotated[Path | None, typer.Option(help="The server's certificate (PEM), for TLS.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Talk in the clear.")] = False,
) -> None:
    """Fetch the shipped model as a device that took part in the run."""
    from fedpress.client.grpc_link import GrpcLink
    from fedpress.client.release import fetch_release
    from fedpress.client.vault import Vault

    link = GrpcLink(address, ca, insecure)
    with Vault(vault) as kept:
        release = fetch_release(link, kept, device_class, to)
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted(release.metrics.items()))
    console.print(f"{to}: {release.size} bytes of {release.format} for '{release.device_class}' ({metrics}).")
