"""Addresses as operators write them, and the five-tuple that names a socket.

Text to values and back, with the standard library's ipaddress; never a socket, never a resolver.

    tcp:127.0.0.1:8888   tcp:[::1]:8888   tcp:8888 (loopback)   tcp:*:8888 (every address)
    udp:...              unix:/run/x.sock  unix:@abstract       unixgram:/p   seqpacket:/p
    raw:icmp  raw:icmpv6  raw:igmp  raw:253  raw:icmp:192.0.2.1  packet:lo
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from twistedsock.errors import AddressError

Kind = Literal["stream", "datagram", "seqpacket", "raw", "packet"]

KINDS: tuple[Kind, ...] = ("stream", "datagram", "seqpacket", "raw", "packet")
LOOPBACK = "127.0.0.1"
WILDCARD = "*"
MAX_UNIX_PATH_BYTES = 107  # unix(7): sun_path is 108 bytes with its final zero
MAX_INTERFACE_BYTES = 15  # netdevice(7): IFNAMSIZ is 16 bytes with its final zero

_SCHEMES: dict[str, Kind] = {
    "tcp": "stream",
    "udp": "datagram",
    "unix": "stream",
    "unixgram": "datagram",
    "seqpacket": "seqpacket",
    "raw": "raw",
    "packet": "packet",
}
_UNIX = ("unix", "unixgram", "seqpacket")
_RAW_PROTOCOLS = {"icmp": 1, "igmp": 2, "icmpv6": 58}
# RFC 1123 section 2.1; the underscore is no host name's, but is found in the field.
_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or connect.

    Args:
        scheme: The word before the first colon, such as ``tcp``.
        host: For tcp and udp a numeric address, a name, or ``*``; for raw one, or nothing for
            every address; empty otherwise.
        port: For tcp and udp 0 to 65535 (0: the kernel chooses); else 0.
        path: For UNIX schemes the path, or ``@name`` in the abstract namespace; for raw the
            protocol and for packet the interface as written.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def kind(self) -> Kind:
        """What the socket carries: stream, datagram, seqpacket, raw or packet."""
        return _SCHEMES[self.scheme]

    @property
    def is_wildcard(self) -> bool:
        """True where every address of this machine is meant."""
        return self.host in (WILDCARD, "0.0.0.0", "::")

    @property
    def is_loopback(self) -> bool:
        """True where only this machine can reach it."""
        return is_loopback(self.host) if self.host else self.scheme in _UNIX

    def __str__(self) -> str:
        if self.path:
            host = f"[{self.host}]" if ":" in self.host else self.host
            return f"{self.scheme}:{self.path}{f':{host}' if host else ''}"
        return f"{self.scheme}:{format_host_port(self.host, self.port)}"


USER = "uid:"  # before a UNIX peer's user, where IP peers have an address


class Credentials(NamedTuple):
    """Who is at the other end of a UNIX socket (unix(7)): process, user and group.

    ``groups`` are the supplementary ones, where the kernel has told them.
    """

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class FiveTuple(NamedTuple):
    """What tells one socket's conversation from every other.

    ``protocol`` is the address scheme (``tcp``, ``udp``); hosts are numeric, and IPv4 addresses
    that reached a dual-stack socket are plain IPv4.
    """

    protocol: str
    local_host: str
    local_port: int
    peer_host: str
    peer_port: int

    def __str__(self) -> str:
        local = format_host_port(self.local_host, self.local_port)
        peer = format_host_port(self.peer_host, self.peer_port)
        return f"{self.protocol} {local} <- {peer}"


def parse_address(text: object) -> Address:
    """Return the address that *text* names.

    Raises:
        AddressError: The text is not of the grammar; the message says what would be.
    """
    if not isinstance(text, str):
        raise AddressError(f'must be an address such as "tcp:127.0.0.1:8888", got {text!r}')
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in _SCHEMES:
        known = ", ".join(_SCHEMES)
        raise AddressError(
            f'must be an address such as "tcp:127.0.0.1:8888", starting with one of {known};'
            f" got {text!r}"
        )
    if scheme in ("tcp", "udp"):
        host, port = _parse_host_port(text, rest)
        return Address(scheme, host=host, port=port)
    if scheme == "raw":
        protocol, colon, host = rest.partition(":")
        found = _parse_raw_protocol(text, protocol)
        host = _parse_host(text, host) if colon else ""
        version = raw_version(Address(scheme, path=found))
        if is_numeric(host) and version not in (None, 6 if ":" in host else 4):
            raise AddressError(f"{found} is of IPv{version} only, got {text!r}")
        return Address(scheme, host=host, path=found)
    if scheme == "packet":
        if not re.fullmatch(r"[^\s/:]+", rest) or _bytes(text, rest) > MAX_INTERFACE_BYTES:
            raise AddressError(f'must name an interface such as "packet:lo", got {text!r}')
        return Address(scheme, path=rest)
    if not rest.startswith(("/", "@")) or len(rest) < 2 or "\0" in rest:
        raise AddressError(
            f'must be an absolute path or an @abstract name, such as "{scheme}:/run/x.sock",'
            f" got {text!r}"
        )
    if _bytes(text, rest) > MAX_UNIX_PATH_BYTES:
        raise AddressError(f"path is longer than {MAX_UNIX_PATH_BYTES} bytes: {text!r}")
    return Address(scheme, path=rest)


def _bytes(text: str, name: str) -> int:
    try:
        # As os.fsencode: a command line's bytes that are no UTF-8 are one byte each.
        return len(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise AddressError(f"is not a name that the system can hold: {text!r}") from None


def _parse_host_port(text: str, rest: str) -> tuple[str, int]:
    host, colon, port_text = rest.rpartition(":")
    if rest.startswith("[") and rest.endswith("]"):
        host, port_text = rest, ""
    if not colon:
        host = LOOPBACK
    elif host != WILDCARD:
        host = _parse_host(text, host)
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or int(port_text) > 65535:
        raise AddressError(f"port must be 0 to 65535, got {port_text!r} in {text!r}")
    return host, int(port_text)


def _parse_host(text: str, host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return _parse_ipv6(text, host[1:-1])
    if ":" in host:
        raise AddressError(f"an IPv6 address goes in brackets, such as [::1]; got {text!r}")
    return _parse_name(text, host)


def _parse_ipv6(text: str, host: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        raise AddressError(f"{host!r} is not an IPv6 address, in {text!r}") from None


def _parse_name(text: str, host: str) -> str:
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        # A name of digits and dots alone would be a slip in an IPv4 address.
        if _NAME.fullmatch(host) and not re.fullmatch(r"[0-9.]+", host):
            return host.lower()
    raise AddressError(f"{host!r} is neither an IP address nor a host name, in {text!r}")


def _parse_raw_protocol(text: str, rest: str) -> str:
    if rest in _RAW_PROTOCOLS or (re.fullmatch(r"[0-9]{1,3}", rest) and int(rest) <= 255):
        return rest
    known = ", ".join(_RAW_PROTOCOLS)
    raise AddressError(f"IP protocol must be 0 to 255 or one of {known}, got {text!r}")


def raw_protocol(address: Address) -> int:
    """Return the IP protocol number of a raw *address*."""
    return _RAW_PROTOCOLS.get(address.path) or int(address.path)


def raw_version(address: Address) -> int | None:
    """Return the one IP version that the protocol of a raw *address* is of; None for both."""
    return {1: 4, 2: 4, 58: 6}.get(raw_protocol(address))


def format_host_port(host: str, port: int) -> str:
    """Return ``host:port``, with an IPv6 host in brackets; a UNIX name as it is."""
    if host.startswith(("/", "@", "pid:")):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_numeric(host: str) -> bool:
    """Return whether *host* is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether *host* is an address, or the name, of this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def unmap(host: str) -> str:
    """Return the IPv4 address inside an IPv4-mapped IPv6 one (RFC 4291 2.5.5.2), else *host*."""
    if host.startswith("::ffff:") and "." in host:
        return host[7:]
    return host
