"""The west wing: sockets and the reactor. Takes any Twisted factory or protocol.

Never a service, never the config file. Reading order: binding, hotloop, connection, stream,
datagram.
"""
