"""Echo over TCP and UDP with asyncio's callback protocols, on uvloop."""

import asyncio
import sys
from typing import Any

import uvloop


class Echo(asyncio.Protocol):
    """Answers every read with the same bytes."""

    def connection_made(self, transport: Any) -> None:
        """Keep the write method of *transport*, whose type each kind of protocol narrows."""
        self._write = transport.write

    def data_received(self, data: bytes) -> None:
        """Echo *data*."""
        self._write(data)


class EchoDatagrams(asyncio.DatagramProtocol):
    """Answers every datagram with itself."""

    def connection_made(self, transport: Any) -> None:
        """Keep the send method of *transport*."""
        self._sendto = transport.sendto

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Echo *data* to *addr*."""
        self._sendto(data, addr)


async def serve(port: int) -> None:
    """Serve on 127.0.0.1:*port* until killed."""
    loop = asyncio.get_running_loop()
    address = ("127.0.0.1", port)
    await loop.create_datagram_endpoint(EchoDatagrams, local_addr=address)
    server = await loop.create_server(Echo, *address, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
