"""Clients of services, and of the network.

Conversations: conversation, with the shells blocking, peer and pipe; exchanges, with datagram.
Troubleshooting: round_trips (figures); pinging, with the shell ping, and trace; capture_source,
recording and capture; markers and probing, with the shell probe.
"""
