"""Declares ``twistd sockservice`` and ``sock:`` endpoints; imports nothing of them until used."""

from twisted.application.service import ServiceMaker

from twistedsock.endpoints import ClientParser, ServerParser

sockservice = ServiceMaker(
    "twistedsock",
    "twistedsock.tap",
    "Serve socket protocols: pluggable services over TCP, UDP, UNIX and raw sockets, from a file.",
    "sockservice",
)
sock_server = ServerParser()
sock_client = ClientParser()
