"""How long a round takes in which nobody trains: ``python -m fedpress.simulations.benchmarks.round_overhead``.

Server and clients are real processes over loopback gRPC with durable stores and vaults; the model has 1.7 M
parameters. Beside each median stands the time to move the same bytes through bare loopback sockets, measured in the
same run, and where the rest goes, from the clients' own clocks.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import threading
import time

from rich.console import Console
from rich.table import Table

from fedpress.simulations.benchmarks import idle_fleet

CODECS = {
    "fp32 both ways": ["upload.codec=raw", "download.codec=raw", "download.mode=full"],
    "int8 both ways": ["upload.codec=int8", "download.codec=int8"],
    "ef+topk:0.01+int8 up, int8 down": ["upload.codec=ef+topk:0.01+int8", "download.codec=int8"],
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
    table = Table("clients", "codecs", "round, median", "bytes", "bare sockets", "train+encode, mean client")
    for clients in options.clients:
        for name, overrides in CODECS.items():
            rounds = idle_fleet.run(clients, options.parameters, options.rounds, overrides)[1:]
            size = round(statistics.median(r.bytes_up + r.bytes_down for r in rounds))
            working = statistics.mean(c.train_seconds + c.encode_seconds for r in rounds for c in r.clients.values())
            table.add_row(
                str(clients),
                name,
                f"{statistics.median(r.seconds for r in rounds):.3f} s",
                f"{size / 1e6:.2f} MB",
                f"{loopback_seconds(size):.3f} s",
                f"{working:.3f} s",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
