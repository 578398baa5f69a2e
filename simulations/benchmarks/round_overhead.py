"""How long a round takes in which nobody trains: ``python -m fedpress.simulations.benchmarks.round_overhead``.

Server and clients are real processes over loopback gRPC with durable stores and vaults; the model has 1.7 M
parameters. A round lasts from one commit to the next: polling, fetching, rebuilding, encoding, the vaults' writes,
pushing, decoding, folding, the step, publishing, the store's writes. Beside each median stands the time to move the
same bytes through bare loopback sockets, and what the processors worked, spread over all cores: the rest of a round is
waiting, for disks, wake-ups and other programs. A second table says where the time goes. All of one run.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import threading
import time
from itertools import pairwise
from typing import Final

from rich.console import Console
from rich.table import Table

from fedpress.simulations.benchmarks import idle_fleet

CODECS: Final = {
    "fp32 both ways": ["upload.codec=raw", "download.codec=raw", "download.mode=full"],
    "default": [],
    "int8 both ways": ["upload.codec=int8", "download.codec=int8"],
    "ef+topk:0.01+int8 up, int8 down": ["upload.codec=ef+topk:0.01+int8", "download.codec=int8"],
}
#: Columns of the second table, and the actions or calls each adds up.
DEVICE: Final = {
    "fetch": ("Fetch",),
    "rebuild": ("Rebuild",),
    "encode, keep": ("Train",),
    "push": ("Push",),
    "commit": ("Commit",),
    "wait for work": ("AskWork",),
}
SERVER: Final = {
    "hand out": ("authenticate", "get_work", "blob", "push", "tick"),
    "chunks in": ("append",),
    "decode, fold": ("finish",),
    "step, publish": ("advance",),
}


def loopback_seconds(size: int) -> float:
    """Seconds to push ``size`` bytes through one loopback TCP connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()

    def send() -> None:
        with socket.create_connection(address) as out:
            block = bytes(1 << 16)
            for at in range(0, size, len(block)):
                out.sendall(block[: size - at])

    thread = threading.Thread(target=send)
    began = time.perf_counter()
    thread.start()
    connection, _ = listener.accept()
    with connection, listener:
        while connection.recv(1 << 16):
            pass
    thread.join()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[2, 32])
    parser.add_argument("--parameters", type=int, default=1_700_000)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    columns = ("clients", "codecs", "round, median", "bytes", "bare sockets", f"processors / {cores} cores")
    totals = Table(*columns, title="Rounds in which nobody trains")
    phases = Table("clients", "codecs", *DEVICE, *SERVER, title="Where it goes, ms: mean client | server's one thread")
    for clients in options.clients:
        for name, overrides in CODECS.items():
            measured = idle_fleet.run(clients, options.parameters, options.rounds, overrides)
            lasted = statistics.median(after.elapsed - before.elapsed for before, after in pairwise(measured.rounds))
            size = round(statistics.median(r.bytes_up + r.bytes_down for r in measured.rounds[1:]))
            totals.add_row(
                str(clients),
                name,
                f"{lasted:.3f} s",
                f"{size / 1e6:.2f} MB",
                f"{loopback_seconds(size):.3f} s",
                f"{measured.processor / cores:.3f} s",
            )
            spent = [sum(measured.device.get(key, 0.0) for key in keys) for keys in DEVICE.values()]
            spent += [sum(measured.server[key] for key in keys) for keys in SERVER.values()]
            phases.add_row(str(clients), name, *(f"{1e3 * seconds:.0f}" for seconds in spent))
    console = Console()
    console.print(totals)
    console.print(phases)


if __name__ == "__main__":
    main()
