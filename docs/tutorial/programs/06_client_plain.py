"""Ask by datagrams: number each request, ask again, and know an answer that came before."""

import socket
import sys

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8888


def ask(sock, request):
    """Return the answer to *request*, and how often it was sent; tell what else has come."""
    for sent in range(1, 6):
        sock.sendto(request, ("127.0.0.1", PORT))
        try:
            while (answer := sock.recvfrom(65535)[0]) != b"OK..." + request:
                print("    once more:", answer)
        except TimeoutError:
            continue
        return answer, sent
    raise TimeoutError("no answer to five requests")


with socket.socket(type=socket.SOCK_DGRAM) as sock:
    sock.settimeout(0.5)
    for request in b"1 apple", b"2 pear", b"3 plum":
        answer, sent = ask(sock, request)
        print(answer, "sent:", sent)
