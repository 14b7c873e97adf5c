"""The west wing: sockets and the reactor. Takes any Twisted factory or protocol.

Never a service, never the config file. Reading order: unix_paths, binding, hotloop, connection,
stream, unix, seqpacket; unsent, ancillary, datagram, unix_datagram, raw, filtering, packet_ring
(captures), packet, echo_socket (pings); optioned and opening (a reactor whose sockets have
options); socket and its rooms in ``awaited`` (the awaitable Socket).
"""
