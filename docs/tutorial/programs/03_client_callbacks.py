"""The same client in callbacks: each is called once what it needs is there."""

import sys

from twisted.internet.task import react

from twistedsock import connect

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888


def connected(peer):
    """Say what is to be done with the greeting and the answer."""

    def greeted(message):
        print(message)
        peer.send(b"hello")
        return peer.receive().addCallback(answered)

    def answered(message):
        print(message)
        return peer.close()

    return peer.receive().addCallback(greeted)


react(lambda reactor: connect(reactor, f"tcp:127.0.0.1:{PORT}").addCallback(connected))
