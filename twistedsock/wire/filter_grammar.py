"""The grammar of capture filters: a text to a tree of tests. What they mean is in ``filters``.

    EXPRESSION  OPERAND { and|&& OPERAND | or|"||" OPERAND }   from left to right, both bind alike
    OPERAND     { not|! } ( TEST | ID | "(" EXPRESSION ")" )
    TEST        [PROTOCOL] [DIRECTION] [TYPE] ID, or a word alone such as ``tcp`` or ``vlan 5``
    ID          an address, a port, a number or a name, or several in parentheses; one without
                qualifiers has those of the test before it

As pcap-filter(7) has it, and with an address alone for ``host ADDRESS``.
Know texts; never a packet.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from twistedsock.errors import MAX_TOLD_CHARACTERS, FilterError
from twistedsock.wire import filter_ids
from twistedsock.wire.filter_ids import PortOf, Span

MAX_NESTING = 50  # parentheses: a text may not exhaust our stack
MAX_CHARACTERS = 65_536  # what fits into a program is shorter by far

ABBREVIATIONS: Final = ("tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "esp", "ah")
AND: Final = frozenset({"and", "&&"})
OR: Final = frozenset({"or", "||"})
NOT: Final = frozenset({"not", "!"})
PROTOCOLS: Final = frozenset({"ether", *filter_ids.ETHERTYPES, *ABBREVIATIONS})
DIRECTIONS: Final = frozenset({"src", "dst"})
# Each type, and what may stand before it.
TYPES: Final = {
    "host": ("ether", "ip", "ip6", "arp", "rarp"),
    "net": ("ip", "ip6", "arp", "rarp"),
    "port": ("tcp", "udp", "sctp"),
    "portrange": ("tcp", "udp", "sctp"),
    "proto": ("ether", "ip", "ip6"),
    "broadcast": ("ether",),
    "multicast": ("ether", "ip", "ip6"),
}
GROUPS: Final = frozenset({"broadcast", "multicast"})
LONE: Final = frozenset({"less", "greater", "vlan", "inbound", "outbound"})
KEYWORDS: Final = PROTOCOLS | DIRECTIONS | frozenset(TYPES) | LONE | AND | OR | NOT | {"mask"}
MERGED: Final = frozenset({"ip4", "ip6", "mac", "port", "number"})

_TOKEN = re.compile(r"\s*(&&|\|\||[()]|!(?!=)|[^\s()!&|]+|[!&|]=?)")
_COMPARISON = re.compile(r"[\[\]<>=&|]")


class Token(NamedTuple):
    """A word or sign, and where it stands; the one after the last is empty."""

    text: str
    position: int


class Qualifiers(NamedTuple):
    """What stands before an id."""

    protocol: str
    direction: str  # src, dst, "src or dst" or "src and dst"
    kind: str  # host, net, port, portrange or proto


@dataclass(frozen=True, slots=True)
class Test:
    """One test of a packet.

    Attributes:
        kind: ``protocol``, ``ip4``, ``ip6``, ``mac``, ``port``, ``number``, or a word of its own.
        protocol: The qualifier; empty for every protocol that the kind fits.
        direction: Likewise.
        values: Any of them will do. Of addresses (address, mask), of ports (least, greatest),
            else (number, number).
        vlans: How many ``vlan`` stand before it: each lies behind one more VLAN tag.
        position: Where it stands.
    """

    kind: str
    protocol: str = ""
    direction: str = ""
    values: tuple[Span, ...] = ()
    vlans: int = 0
    position: int = 0


class Operand(NamedTuple):
    """One part of a chain: how it is joined to what stands before it, and whether it is negated."""

    joint: str  # "and", "or"; empty for the first
    negated: bool
    part: Test | Chain


@dataclass(frozen=True, slots=True)
class Chain:
    """Operands that are judged from left to right: ``a or b and c`` is ``(a or b) and c``."""

    operands: tuple[Operand, ...]


def parse_filter(expression: str, port_of: PortOf) -> Chain | None:
    """Return the tests of *expression*; None where it is empty.

    Raises:
        FilterError: It is no filter.
    """
    return _Parser(expression, port_of).parse()


def _tokens(expression: str) -> list[Token]:
    if len(expression) > MAX_CHARACTERS:
        text = f"a filter has at most {MAX_CHARACTERS} characters, got {len(expression)}"
        raise FilterError(f"{expression[:40]}...", MAX_CHARACTERS, text)
    tokens = [Token(found[1], found.start(1)) for found in _TOKEN.finditer(expression)]
    for text, position in tokens:
        if text not in KEYWORDS and _COMPARISON.search(text):
            fault = "comparisons of a packet's bytes, such as tcp[13] = 2, are not known here"
            raise FilterError(expression, position, fault)
    return [*tokens, Token("", len(expression))]


class _Parser:
    """One reading of one text, from its first token to its last."""

    def __init__(self, expression: str, port_of: PortOf) -> None:
        self._expression = expression
        self._port_of = port_of
        self._tokens = _tokens(expression)
        self._at = 0
        self._nesting = 0
        self._vlans = 0

    def parse(self) -> Chain | None:
        if not self._next.text:
            return None
        chain = self._chain(None, ids_only=False)
        if self._next.text == ")":
            raise self._fault(self._next, 'this ")" closes nothing')
        if self._next.text:
            raise self._fault(self._next, '"and", "or" or the end was expected')
        return chain

    # -- the structure --

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        if token.text:
            self._at += 1
        return token

    def _fault(self, token: Token, text: str, near: str = "") -> FilterError:
        got = "and the text ends"
        if token.text:
            is_long = len(token.text) > MAX_TOLD_CHARACTERS
            got = f"got {token.text[:MAX_TOLD_CHARACTERS]!r}{'...' * is_long}"
        return FilterError(self._expression, token.position, f"{text}, {got}{near}")

    def _chain(self, qualifiers: Qualifiers | None, *, ids_only: bool) -> Chain:
        operands: list[Operand] = []
        joint = ""
        while True:
            negated, part, qualifiers = self._operand(qualifiers, ids_only=ids_only)
            operands.append(Operand(joint, negated, part))
            if self._next.text not in AND | OR:
                return Chain(_merged(operands))
            joint = "and" if self._take().text in AND else "or"

    def _operand(
        self, qualifiers: Qualifiers | None, *, ids_only: bool
    ) -> tuple[bool, Test | Chain, Qualifiers | None]:
        """Return whether it is negated, the operand, and the qualifiers for ids after it."""
        negated = False
        while self._next.text in NOT:
            self._take()
            negated = not negated
        if self._next.text == "(":
            inner = self._parenthesised(qualifiers, ids_only=ids_only)
            if len(inner.operands) == 1:
                [(_, inverted, part)] = inner.operands
                return negated != inverted, part, qualifiers
            return negated, inner, qualifiers
        if ids_only or self._next.text not in KEYWORDS:
            return negated, *self._id(qualifiers, is_inherited=not ids_only)
        inverted, part, qualifiers = self._test()
        return negated != inverted, part, qualifiers

    def _parenthesised(self, qualifiers: Qualifiers | None, *, ids_only: bool) -> Chain:
        opening = self._take()
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            text = f"parentheses may be {MAX_NESTING} deep"
            raise FilterError(self._expression, opening.position, text)
        inner = self._chain(qualifiers, ids_only=ids_only)
        if self._next.text != ")":
            text = f'")" was expected, for the "(" of character {opening.position + 1}'
            raise self._fault(self._next, text)
        self._take()
        self._nesting -= 1
        return inner

    # -- tests --

    def _test(self) -> tuple[bool, Test | Chain, Qualifiers | None]:
        first = self._next
        if first.text in LONE:
            return False, self._lone(self._take()), None
        protocol = self._take().text if first.text in PROTOCOLS else ""
        direction = self._direction()
        kind = self._next
        if kind.text in TYPES and not (direction and kind.text in {"proto", *GROUPS}):
            self._take()
            self._check_protocol(kind, protocol)
            if kind.text in GROUPS:
                return False, self._made(Test(kind.text, protocol), first), None
        elif not direction:
            if protocol in ("", "ether"):
                wanted = f"one of {', '.join(TYPES)} was expected after {protocol!r}"
                raise self._fault(kind, wanted if protocol else "a test was expected")
            return False, self._made(Test("protocol", protocol), first), None
        else:
            if kind.text in KEYWORDS - NOT:
                raise self._fault(kind, f'an address, or "port", was expected after {direction!r}')
            kind = Token("host", first.position)
            self._check_protocol(kind, protocol)
        qualifiers = Qualifiers(protocol, direction or "src or dst", kind.text)
        return self._operand(qualifiers, ids_only=True)

    def _direction(self) -> str:
        if self._next.text not in DIRECTIONS:
            return ""
        first = self._take().text
        joint, second = [*self._tokens[self._at : self._at + 2], self._tokens[-1]][:2]
        if joint.text in AND | OR and second.text in DIRECTIONS - {first}:
            self._at += 2
            return "src and dst" if joint.text in AND else "src or dst"
        return first

    def _check_protocol(self, kind: Token, protocol: str) -> None:
        allowed = TYPES[kind.text]
        if protocol == "ip" and kind.text == "broadcast":
            text = "the broadcast address of a network is not known here; write host 192.0.2.255"
            raise FilterError(self._expression, kind.position, text)
        if protocol and protocol not in allowed:
            text = f"only {', '.join(allowed)} may stand before {kind.text!r}, got {protocol!r}"
            raise FilterError(self._expression, kind.position, text)

    def _lone(self, word: Token) -> Test:
        values: tuple[Span, ...] = ()
        if word.text in ("less", "greater"):
            number = self._number(filter_ids.MAX_LENGTH, f"a length after {word.text!r}")
            values = ((number, number),)
        elif word.text == "vlan" and self._next.text[:1].isdigit():
            number = self._number(filter_ids.MAX_VLAN, "a VLAN")
            values = ((number, number),)
        test = self._made(Test(word.text, values=values), word)
        self._vlans += word.text == "vlan"
        return test

    def _number(self, most: int, what: str) -> int:
        token = self._take()
        try:
            return filter_ids.number_of(token.text, most, what)
        except ValueError as fault:
            raise self._fault(token, str(fault)) from None

    def _made(self, test: Test, where: Token) -> Test:
        return replace(test, vlans=self._vlans, position=where.position)

    # -- ids --

    def _id(self, qualifiers: Qualifiers | None, *, is_inherited: bool) -> tuple[Test, Qualifiers]:
        token = self._take()
        if qualifiers is None:
            if not filter_ids.is_address(token.text):
                raise self._fault(token, "a test was expected", _near(token.text))
            qualifiers = Qualifiers("", "src or dst", "host")
        if token.text in {"", ")", *AND, *OR}:
            what = "an address" if qualifiers.kind == "host" else f"a {qualifiers.kind}"
            raise self._fault(token, f"{what} was expected")
        try:
            test = self._test_of(token.text, qualifiers)
        except ValueError as fault:
            near = _near(token.text) if is_inherited else ""
            raise self._fault(token, str(fault), near) from None
        return self._made(test, token), qualifiers

    def _test_of(self, text: str, qualifiers: Qualifiers) -> Test:
        protocol, direction, kind = qualifiers
        is_ether = protocol == "ether"
        if kind == "proto":
            return Test("number", protocol, "", (filter_ids.protocol_of(text, is_ether=is_ether),))
        if kind in ("port", "portrange"):
            span = filter_ids.port_span(text, self._port_of, is_range=kind == "portrange")
            return Test("port", protocol, direction, (span,))
        if is_ether:
            return Test("mac", protocol, direction, (filter_ids.mac_of(text),))
        if kind == "host":
            version, span = filter_ids.host_of(text)
        else:
            mask = ""
            if self._next.text == "mask":
                self._take()
                mask = self._take().text or "nothing"
            version, span = filter_ids.net_of(text, mask)
        if protocol and (protocol == "ip6") != (version == 6):
            raise ValueError(f"{protocol!r} has no addresses of IPv{version}")
        return Test(f"ip{version}", protocol, direction, (span,))


def _near(word: str) -> str:
    found = difflib.get_close_matches(word, sorted(KEYWORDS), 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _merged(operands: list[Operand]) -> tuple[Operand, ...]:
    """Return *operands*, with the values of several in one where that means the same.

    ``r or host A or host B`` is one test of two values, and ``r and not host A and not host B``.
    """
    runs: list[list[Operand]] = []
    for new in operands:
        if runs and _goes_with(runs[-1][0], new):
            runs[-1].append(new)
        else:
            runs.append([new])
    return tuple(_joined(run) for run in runs)


def _goes_with(first: Operand, new: Operand) -> bool:
    """Return whether *new* is one more value of the test that *first* is."""
    joint = "and" if new.negated else "or"
    return (
        isinstance(first.part, Test)
        and isinstance(new.part, Test)
        and first.negated == new.negated
        and new.joint == joint
        and first.joint in ("", joint)
        and first.part.kind in MERGED
        and first.part.direction != "src and dst"
        and replace(new.part, values=(), position=0) == replace(first.part, values=(), position=0)
    )


def _joined(run: list[Operand]) -> Operand:
    """Return the one operand that those of *run*, which go together, are."""
    if len(run) == 1:
        return run[0]
    tests = [each.part for each in run if isinstance(each.part, Test)]
    values = dict.fromkeys(value for test in tests for value in test.values)
    return run[0]._replace(part=replace(tests[0], values=tuple(values)))
