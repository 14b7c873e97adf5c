"""Declares ``twistd sockservice``; imports nothing of it until it is used."""

from twisted.application.service import ServiceMaker

sockservice = ServiceMaker(
    "twistedsock",
    "twistedsock.tap",
    "Serve socket protocols: pluggable services over TCP and UDP, from flags or a TOML file.",
    "sockservice",
)
