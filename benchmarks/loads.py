"""The loads: what each asks of a server. A table; measures nothing."""

from dataclasses import dataclass

from .peer_table import Kind, Peer

SIZES = {"64B": 64, "1KiB": 1024, "16KiB": 16 * 1024}  # bytes
CONNECTIONS = (1, 10, 50, 500)
CHURN_AT_A_TIME = 10  # well below every peer's backlog, which is not what is measured
UDP_SOCKETS = 50


@dataclass(frozen=True, slots=True)
class Load:
    """One question to all peers.

    Attributes:
        name: As it is in every table and filter.
        kind: What the load generator does.
        connections: How many at a time.
        size: Of a message, in bytes.
        unit: What is counted, and what the CPU time is divided by.
        every: It is measured in every round (1), in every second round (2), and so on.
    """

    name: str
    kind: Kind
    connections: int
    size: int
    unit: str = "message"
    every: int = 3

    def suits(self, peer: Peer) -> bool:
        """Return whether *peer* can take this load."""
        fits = peer.max_size is None or self.size <= peer.max_size
        return self.kind in peer.kinds and fits


DECISIVE_ECHOES = {("1KiB", 10), ("1KiB", 50)}  # goals hang on them

LOADS: tuple[Load, ...] = (
    *(
        Load(f"echo-{label}-{n}", "echo", n, size, every=1 if (label, n) in DECISIVE_ECHOES else 3)
        for label, size in SIZES.items()
        for n in CONNECTIONS
    ),
    Load("bulk", "bulk", 1, 64, unit="MiB", every=1),
    Load("churn", "churn", CHURN_AT_A_TIME, 64, unit="connection", every=1),
    Load("udp-64B", "udp", UDP_SOCKETS, 64, unit="datagram", every=1),
    Load("udp-1KiB", "udp", UDP_SOCKETS, 1024, unit="datagram"),
    Load("idle", "idle", 1, 1024, every=2),
)
