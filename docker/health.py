"""Exit 0 when the fleet's gRPC service answers: ``python health.py HOST:PORT [CA.pem]``, without a CA in plain text.

An open port proves little: the sockets are served by threads of their own while the server's event loop may hang. So
this is a real call, without credentials; that the service refuses it is the sign of life.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc

from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import CALLS

SECONDS = 4.0
ALIVE = {grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.NOT_FOUND}


def status(address: str, ca: Path | None) -> grpc.StatusCode:
    """What a call for the newest release at ``address`` ends with."""
    trust = ca and grpc.ssl_channel_credentials(ca.read_bytes())
    call = CALLS["GetRelease"]
    with grpc.secure_channel(address, trust) if trust else grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(call.path, pb.ReleaseRequest.SerializeToString, call.parse_reply)
        try:
            ask(pb.ReleaseRequest(), timeout=SECONDS)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


if __name__ == "__main__":
    code = status(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    sys.exit(0 if code in ALIVE else f"The server at {sys.argv[1]} answered {code.name}.")
