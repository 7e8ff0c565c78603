"""A gRPC peer that knows nothing of Lateen: Google's own library (PyPI: grpcio), which asks for its
configuration itself, as the file says that GRPC_XDS_BOOTSTRAP names.

    peer.py serve NAME ADDRESS        answers every call with NAME, in plaintext
    peer.py serve-xds NAME ADDRESS    the same, as the control plane says
    peer.py call TARGET               calls over and over
    peer.py call-xds TARGET           the same, with the credentials that the control plane says
    peer.py watch-xds TARGET...       connects to each, and follows what the control plane says

A server says `serving`, a watcher `watching`. A caller answers every line it is sent with the calls that ended since the
last: how often each server answered, and how often a call failed, by status. All end with their
standard input.
"""

import collections
import json
import sys
import threading
import time
from concurrent import futures

import grpc
import grpc.experimental

# An application that configures nothing of TLS itself.
INSECURE = grpc.experimental.insecure_channel_credentials
# How long a call may take before it counts as failed.
PATIENCE = 10


class Answer(grpc.GenericRpcHandler):
    """Answers every unary call with one text."""

    def __init__(self, text):
        self.handler = grpc.unary_unary_rpc_method_handler(lambda request, context: text)

    def service(self, call):
        return self.handler


def serve(name, address, xds):
    handlers = [Answer(name.encode())]
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=handlers, xds=xds)
    if xds:
        own = grpc.xds_server_credentials(grpc.insecure_server_credentials())
        server.add_secure_port(address, own)
    else:
        server.add_insecure_port(address)
    server.start()
    print("serving", flush=True)
    sys.stdin.read()
    server.stop(None)


class Tally:
    """What became of calls since it was last asked."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = collections.Counter()

    def add(self, outcome):
        with self.lock:
            self.counts[outcome] += 1

    def take(self):
        with self.lock:
            counts, self.counts = self.counts, collections.Counter()
        return counts


def call(target, xds):
    credentials = grpc.xds_channel_credentials(INSECURE()) if xds else INSECURE()
    channel = grpc.secure_channel(target, credentials)
    method = channel.unary_unary("/shop.Cart/Get")
    tally = Tally()

    def calls():
        while True:
            try:
                tally.add(method(b"", timeout=PATIENCE).decode())
            except grpc.RpcError as error:
                tally.add(f"{error.code().name}: {error.details()}")
            time.sleep(0.001)

    threading.Thread(target=calls, daemon=True).start()
    for _ in sys.stdin:
        print(json.dumps(tally.take()), flush=True)


def watch(*arguments):
    *targets, _ = arguments
    credentials = grpc.xds_channel_credentials(INSECURE())
    channels = [grpc.secure_channel(target, credentials) for target in targets]
    for channel in channels:
        channel.subscribe(lambda state: None, try_to_connect=True)
    print("watching", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    action, *arguments = sys.argv[1:]
    xds = action.endswith("-xds")
    {"serve": serve, "call": call, "watch": watch}[action.removesuffix("-xds")](*arguments, xds)
