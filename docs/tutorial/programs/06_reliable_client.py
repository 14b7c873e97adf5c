"""Ask by datagrams; the client numbers, asks again and sorts out by itself."""

import sys

from twisted.internet.task import react

from twistedsock import TransmissionParameters, connect_datagram

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
PATIENCE = TransmissionParameters(ack_timeout_s=0.5)


async def main(reactor):
    """Ask three times, and say what the network did."""
    address = f"udp:127.0.0.1:{PORT}"
    async with await connect_datagram(reactor, address, parameters=PATIENCE) as client:
        for request in b"apple", b"pear", b"plum":
            print(await client.request(request))
        print("sent again:", client.counts.retransmitted, "came again:", client.counts.repeated)


react(main)
