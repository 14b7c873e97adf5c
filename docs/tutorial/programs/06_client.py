"""Ask by datagrams: number each request, ask again, and know an answer that came before."""

import sys

from twistedsock import TimedOut, connect_blocking

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888


def ask(peer, request):
    """Return the answer to *request*, and how often it was sent; tell what else has come."""
    for sent in range(1, 6):
        peer.send(request)
        try:
            while (answer := peer.receive()) != b"OK..." + request:
                print("    once more:", answer)
        except TimedOut:
            continue
        return answer, sent
    raise TimedOut(peer.address, "no answer to five requests")


with connect_blocking(f"udp:127.0.0.1:{PORT}", timeout_s=0.5) as peer:
    for request in b"1 apple", b"2 pear", b"3 plum":
        answer, sent = ask(peer, request)
        print(answer, "sent:", sent)
