"""Classic BPF. The oracle is the kernel, which runs the same programs on a socket pair."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from twistedsock.errors import PacketError
from twistedsock.wire import bpf
from twistedsock.wire.bpf import Instruction, Program, check, run, to_bytes

SO_ATTACH_FILTER = 26  # asm-generic/socket.h
KEEP = 0xFFFFFFFF
END = b"the last one, which no filter sees"


def program(*lines: tuple[int, int, int, int]) -> Program:
    return tuple(Instruction(*line) for line in lines)


def attach(sock: socket.socket, code: bytes) -> None:
    """Attach *code*, an array of struct sock_filter, as bpf(4)'s users do."""
    held = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("@HP", len(code) // 8, ctypes.addressof(held))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)


def packed(lines: Iterable[Instruction]) -> bytes:
    """Return the bytes of *lines*, whatever they are."""
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


@contextmanager
def pair(code: bytes) -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with closing(left), closing(right):
        attach(right, code)
        left.settimeout(5)
        right.setblocking(False)
        yield left, right


def kept_by_the_kernel(code: bytes, packets: Iterable[bytes]) -> list[int]:
    """Return how many bytes of each packet the kernel keeps; 0 where it drops it."""
    kept = []
    with pair(code) as (sender, receiver):
        for packet in packets:
            sender.send(packet)
            try:
                kept.append(len(receiver.recv(70_000)))
            except BlockingIOError:
                kept.append(0)
    return kept


def kept_by_us(made: Program, packets: Iterable[bytes]) -> list[int]:
    return [min(run(made, packet), len(packet)) for packet in packets]


def kernel_takes(lines: Iterable[Instruction]) -> bool:
    try:
        with pair(packed(lines)):
            return True
    except OSError:
        return False


# -- running --

PACKETS = [bytes([value]) * size for value in (0, 1, 0x45, 0xFF) for size in (1, 2, 5, 20, 60)]
PACKETS += [bytes(range(size)) for size in (3, 17, 64, 200)]

COMPUTED = [bpf.ADD, bpf.SUB, bpf.MUL, bpf.DIV, bpf.OR, bpf.AND, bpf.LSH, bpf.RSH, bpf.MOD, bpf.XOR]
SLOTS = 3  # words of memory that a program has written before it begins
PROLOGUE = program(*[(bpf.ST, 0, 0, slot) for slot in range(SLOTS)])
numbers = st.one_of(st.integers(0, 70), st.integers(0, KEEP), st.sampled_from([255, 256, 65_535]))


@st.composite
def instructions(draw: st.DrawFn, following: int) -> Instruction:
    """Draw one that is right where *following* others come after it."""
    sizes = st.sampled_from([bpf.W, bpf.H, bpf.B])
    kind = draw(st.sampled_from(["absolute", "indirect", "plain", "memory", "alu", "jump", "misc"]))
    if kind in ("absolute", "indirect"):
        mode = bpf.ABS if kind == "absolute" else bpf.IND
        return Instruction(bpf.LD | mode | draw(sizes), 0, 0, draw(st.integers(0, 70)))
    if kind == "plain":
        codes = [bpf.LD | bpf.IMM, bpf.LDX | bpf.IMM, bpf.LD | bpf.LEN, bpf.LDX | bpf.LEN]
        code = draw(st.sampled_from([*codes, bpf.LDX | bpf.MSH | bpf.B]))
        return Instruction(code, 0, 0, draw(st.integers(0, 300)))
    if kind == "memory":
        codes = [bpf.LD | bpf.MEM, bpf.LDX | bpf.MEM, bpf.ST, bpf.STX]
        return Instruction(draw(st.sampled_from(codes)), 0, 0, draw(st.integers(0, SLOTS - 1)))
    if kind == "alu":
        operation = draw(st.sampled_from(COMPUTED))
        operand = draw(st.sampled_from([bpf.K, bpf.X]))
        number = draw(numbers)
        if operation in (bpf.LSH, bpf.RSH):
            number %= 32
        if operation in (bpf.DIV, bpf.MOD):
            number = number or 1
        return Instruction(bpf.ALU | operation | operand, 0, 0, number)
    if kind == "jump" and following > 1:
        reach = st.integers(0, min(255, following - 1))
        condition = draw(st.sampled_from([bpf.JA, bpf.JEQ, bpf.JGT, bpf.JGE, bpf.JSET]))
        if condition == bpf.JA:
            return Instruction(bpf.JMP | bpf.JA, 0, 0, draw(reach))
        operand = draw(st.sampled_from([bpf.K, bpf.X]))
        code = bpf.JMP | condition | operand
        return Instruction(code, draw(reach), draw(reach), draw(numbers))
    codes = [bpf.MISC | bpf.TAX, bpf.MISC | bpf.TXA, bpf.ALU | bpf.NEG]
    return Instruction(draw(st.sampled_from(codes)), 0, 0, 0)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    size = draw(st.integers(0, 25))
    body = [draw(instructions(size - line)) for line in range(size)]
    code, number = draw(st.sampled_from([(bpf.RET | bpf.A, 0), (bpf.RET | bpf.K, 7)]))
    return (*PROLOGUE, *body, Instruction(code, 0, 0, number))


@settings(max_examples=400, deadline=None)
@given(programs())
def test_every_program_runs_as_in_the_kernel(made: Program) -> None:
    """Any program keeps as much of each packet as the kernel does."""
    # X may have become so large that a load is taken for one before the packet.
    assume(not any(line.code & 0xE7 == bpf.LD | bpf.IND for line in made) or _x_stays_small(made))
    assert kept_by_us(made, PACKETS) == kept_by_the_kernel(to_bytes(made), PACKETS)


def _x_stays_small(made: Program) -> bool:
    large = {bpf.MISC | bpf.TAX, bpf.LDX | bpf.MEM}
    return not any(line.code in large for line in made)


@pytest.mark.parametrize("length", [None, 9000])
def test_the_length_is_that_on_the_wire(length: int | None) -> None:
    """A packet that was cut is judged by the length it had."""
    made = program((bpf.LD | bpf.LEN, 0, 0, 0), (bpf.RET | bpf.A, 0, 0, 0))
    assert run(made, b"abc", length) == (length or 3)


def test_what_is_told_beside_the_packet_is_loaded() -> None:
    """Ancillary loads bring what the caller says, and 0 otherwise; the packet's size is nothing."""
    load = (bpf.LD | bpf.ABS | bpf.H, 0, 0, bpf.PACKET_TYPE)
    made = program(load, (bpf.RET | bpf.A, 0, 0, 0))
    assert run(made, b"", ancillary={bpf.PACKET_TYPE: bpf.OUTGOING}) == 4
    assert run(made, b"") == 0


def test_memory_is_written_and_read() -> None:
    """Sixteen words keep A and X, here in the last ones."""
    made = program(
        (bpf.LD | bpf.IMM, 0, 0, 40),
        (bpf.ST, 0, 0, 15),
        (bpf.LDX | bpf.IMM, 0, 0, 2),
        (bpf.STX, 0, 0, 14),
        (bpf.LD | bpf.MEM, 0, 0, 14),
        (bpf.LDX | bpf.MEM, 0, 0, 15),
        (bpf.ALU | bpf.ADD | bpf.X, 0, 0, 0),
        (bpf.RET | bpf.A, 0, 0, 0),
    )
    assert run(made, b"x") == 42
    assert kept_by_the_kernel(to_bytes(made), [bytes(50)]) == [42]


# -- checking --


def passes(made: Program) -> bool:
    try:
        check(made)
        return True
    except PacketError:
        return False


@settings(max_examples=600, deadline=None)
@given(
    st.lists(
        st.builds(
            Instruction,
            st.one_of(
                st.sampled_from(sorted(bpf._CODES)),
                st.integers(0, 0xFFFF),
                st.integers(0, 0x1FF),
            ),
            st.integers(0, 4),
            st.integers(0, 4),
            st.one_of(
                st.integers(0, 40), st.integers(0xFFFFEFF0, 0xFFFFFFFF), st.integers(0, KEEP)
            ),
        ),
        max_size=4,
    )
)
def test_what_is_checked_is_what_the_kernel_checks(lines: list[Instruction]) -> None:
    """Random programs are taken by both or by none, but for memory that nothing has written."""
    reading = {bpf.LD | bpf.MEM, bpf.LDX | bpf.MEM}
    assume(not any(line.code in reading for line in lines))
    made = (*lines, Instruction(bpf.RET | bpf.K, 0, 0, 1))
    assert passes(made) == kernel_takes(made)


RETURN = (bpf.RET | bpf.K, 0, 0, 1)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "bpf: a program has 1 to 4096 instructions, got 0"),
        ([RETURN] * 4097, "bpf: a program has 1 to 4096 instructions, got 4097"),
        ([(bpf.LD | bpf.IMM, 0, 0, 0)], "bpf: a program ends with a return"),
        ([(bpf.JMP | bpf.JA, 0, 0, 1), RETURN], "bpf: instruction 0: jumps behind the end"),
        (
            [RETURN, (bpf.JMP | bpf.JEQ, 1, 0, 7), RETURN],
            "bpf: instruction 1: jumps behind the end",
        ),
        ([(0x7FFF, 0, 0, 0), RETURN], "bpf: instruction 0: unknown code 0x7fff"),
        ([(bpf.ALU | bpf.DIV, 0, 0, 0), RETURN], "bpf: instruction 0: divides by zero"),
        (
            [(bpf.ALU | bpf.LSH, 0, 0, 32), RETURN],
            "bpf: instruction 0: shifts by at most 31 bits, got 32",
        ),
        ([(bpf.ST, 0, 0, 16), RETURN], "bpf: instruction 0: memory has 16 words, got 16"),
        (
            [(bpf.LD | bpf.ABS, 0, 0, 0xFFFFF002), RETURN],
            "bpf: instruction 0: nothing is told at 0xfffff002",
        ),
        (
            [(bpf.RET, 256, 0, 0)],
            "bpf: instruction 0: jt and jf are 0 to 255 and k is 0 to 4294967295, got 256, 0 and 0",
        ),
    ],
)
def test_what_the_kernel_would_refuse_is_told(
    lines: list[tuple[int, int, int, int]], said: str
) -> None:
    """Each fault names the instruction and what would be right."""
    with pytest.raises(PacketError) as caught:
        to_bytes(program(*lines))
    assert str(caught.value) == said


def test_the_greatest_length_is_the_kernels() -> None:
    """A program of 4096 instructions is written; the kernel refuses one more."""
    assert len(to_bytes(program(*[RETURN] * 4096))) == 4096 * 8
    assert not kernel_takes(program(*[RETURN] * 4097))
