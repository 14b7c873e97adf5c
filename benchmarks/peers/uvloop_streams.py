"""Echo of lines with asyncio's streams and readline, on uvloop."""

import asyncio
import sys

import uvloop


async def echo_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every line with itself until the peer ends."""
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


async def serve(port: int) -> None:
    """Serve on 127.0.0.1:*port* until killed."""
    server = await asyncio.start_server(echo_lines, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
