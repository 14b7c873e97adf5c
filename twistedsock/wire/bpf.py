"""Classic BPF: programs that decide of each packet how much of it is kept.

The language is that of linux/filter.h and of bpf(4): an accumulator A, an index X, sixteen words of
memory, and jumps that only go forward, so that every program ends. Know bytes; never a socket.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from twistedsock.errors import PacketError

NAME = "bpf"
MAX_INSTRUCTIONS = 4096  # linux/bpf_common.h: BPF_MAXINSNS
MAX_OFFSET = 0xFF  # of a conditional jump
MEMORY_WORDS = 16  # linux/filter.h: BPF_MEMWORDS
INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k (linux/filter.h)
_MASK = 0xFFFFFFFF

# linux/bpf_common.h: the class, then the size and mode of a load, or the operation and its operand.
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
W, H, B = 0x00, 0x08, 0x10
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
K, X, A = 0x00, 0x08, 0x10
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR = range(0x00, 0xB0, 0x10)
JA, JEQ, JGT, JGE, JSET = range(0x00, 0x50, 0x10)
TAX, TXA = 0x00, 0x80

# What the kernel knows of a packet besides its bytes: loads at "negative" places (linux/filter.h).
ANCILLARY = 0xFFFFF000  # SKF_AD_OFF
PACKET_TYPE = ANCILLARY + 4  # SKF_AD_PKTTYPE
VLAN_TAG = ANCILLARY + 44  # SKF_AD_VLAN_TAG: of the tag that was taken out of the frame
VLAN_TAG_PRESENT = ANCILLARY + 48  # SKF_AD_VLAN_TAG_PRESENT: whether one was
_ANCILLARIES = range(ANCILLARY, ANCILLARY + 64, 4)  # up to SKF_AD_MAX
OUTGOING = 4  # linux/if_packet.h: PACKET_OUTGOING, a PACKET_TYPE

_SIZES = {W: 4, H: 2, B: 1}
_LOADS = frozenset(LD | mode | size for mode in (ABS, IND) for size in _SIZES)
_COMPUTED: Final[Mapping[int, Callable[[int, int], int]]] = {  # in 32 bits; the rest is cut off
    ADD: operator.add,
    SUB: operator.sub,
    MUL: operator.mul,
    DIV: operator.floordiv,
    OR: operator.or_,
    AND: operator.and_,
    LSH: lambda a, bits: a << (bits & 31),
    RSH: lambda a, bits: a >> (bits & 31),
    NEG: lambda a, _: -a,
    MOD: operator.mod,
    XOR: operator.xor,
}
_HOLDS: Final[Mapping[int, Callable[[int, int], int]]] = {
    JEQ: operator.eq,
    JGT: operator.gt,
    JGE: operator.ge,
    JSET: operator.and_,
}
_CODES: Final = frozenset(
    {
        *_LOADS,
        *(LD | mode for mode in (IMM, MEM, LEN)),
        *(LDX | mode for mode in (IMM, MEM, LEN, MSH | B)),
        *(
            ALU | operation | operand
            for operation in _COMPUTED
            if operation != NEG
            for operand in (K, X)
        ),
        *(JMP | condition | operand for condition in _HOLDS for operand in (K, X)),
        *(ST, STX, ALU | NEG, JMP | JA, RET | K, RET | A, MISC | TAX, MISC | TXA),
    }
)
_REMEMBERING = frozenset({LD | MEM, LDX | MEM, ST, STX})


class Instruction(NamedTuple):
    """One instruction: what to do, how far to jump if so and if not, and a number."""

    code: int
    jt: int
    jf: int
    k: int


Program = tuple[Instruction, ...]


def check(program: Program) -> None:
    """Raise PacketError where the kernel would not take *program*, saying which line and why.

    That no word of memory is read before it is written the kernel alone checks.
    """
    count = len(program)
    if not 0 < count <= MAX_INSTRUCTIONS:
        raise PacketError(NAME, f"a program has 1 to {MAX_INSTRUCTIONS} instructions, got {count}")
    for line, instruction in enumerate(program):
        fault = _fault(instruction, count - line - 1)
        if fault:
            raise PacketError(NAME, f"instruction {line}: {fault}")
    if program[-1].code & 7 != RET:
        raise PacketError(NAME, "a program ends with a return")


def _fault(instruction: Instruction, following: int) -> str:
    """Return what is wrong with an instruction that *following* others come after."""
    code, jt, jf, k = instruction
    if not (0 <= jt <= MAX_OFFSET and 0 <= jf <= MAX_OFFSET and 0 <= k <= _MASK):
        return f"jt and jf are 0 to {MAX_OFFSET} and k is 0 to {_MASK}, got {jt}, {jf} and {k}"
    if code not in _CODES:
        return f"unknown code {code:#x}"
    if code & 7 == JMP:
        farthest = k if code == JMP | JA else max(jt, jf)
        return "" if farthest < following else "jumps behind the end"
    if code in (ALU | DIV | K, ALU | MOD | K) and not k:
        return "divides by zero"
    if code in (ALU | LSH | K, ALU | RSH | K) and k > 31:
        return f"shifts by at most 31 bits, got {k}"
    if code in _LOADS and code & 0xE0 == ABS and k >= ANCILLARY and k not in _ANCILLARIES:
        return f"nothing is told at {k:#x}"
    if code in _REMEMBERING and k >= MEMORY_WORDS:
        return f"memory has {MEMORY_WORDS} words, got {k}"
    return ""


def to_bytes(program: Program) -> bytes:
    """Return *program* as the kernel takes it: an array of ``struct sock_filter``.

    Raises:
        PacketError: The kernel would not take it.
    """
    check(program)
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in program)


_NOTHING: Mapping[int, int] = {}


def run(
    program: Program,
    packet: bytes,
    length: int | None = None,
    ancillary: Mapping[int, int] = _NOTHING,
) -> int:
    """Return how many bytes of *packet* to keep; 0 where it is not wanted.

    As the kernel has it: what loads beyond the packet, or divides by zero, ends with 0. So does
    what loads from where the kernel knows a header to be (SKF_NET_OFF, SKF_LL_OFF).

    Args:
        program: One that ``check`` has nothing against.
        packet: What was captured.
        length: The packet's length before it was cut; that of *packet* by default.
        ancillary: What is loaded at the places from ANCILLARY on; 0 where it is not here.
    """
    size = len(packet)
    a = x = at = 0
    memory = [0] * MEMORY_WORDS
    while True:
        code, jt, jf, k = program[at]
        at += 1
        family = code & 7
        if family == JMP:
            if code == JMP | JA:
                at += k
            else:
                at += jt if _HOLDS[code & 0xF0](a, x if code & X else k) else jf
        elif code in _LOADS:
            if code & 0xE0 == ABS and k >= ANCILLARY:
                a = ancillary.get(k, 0)
                continue
            where = k if code & 0xE0 == ABS else (x + k) & _MASK
            end = where + _SIZES[code & 0x18]
            if end > size:
                return 0
            a = int.from_bytes(packet[where:end], "big")
        elif family == RET:
            return a if code & 0x18 == A else k
        elif family == ALU:
            operand = x if code & X else k
            if not operand and code & 0xF0 in (DIV, MOD):
                return 0
            a = _COMPUTED[code & 0xF0](a, operand) & _MASK
        elif code == LDX | MSH | B:
            if k >= size:
                return 0
            x = 4 * (packet[k] & 0xF)
        elif family == LD:
            a = _told(code, k, memory, size if length is None else length)
        elif family == LDX:
            x = _told(code, k, memory, size if length is None else length)
        elif family == ST:
            memory[k] = a
        elif family == STX:
            memory[k] = x
        elif code == MISC | TAX:
            x = a
        else:
            a = x


def _told(code: int, k: int, memory: list[int], length: int) -> int:
    """Return what a load brings that reads none of the packet's bytes."""
    mode = code & 0xE0
    if mode == LEN:
        return length
    return memory[k] if mode == MEM else k
