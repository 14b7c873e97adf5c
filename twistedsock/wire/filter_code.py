"""Trees of comparisons, and their classic BPF: each comparison jumps to what then is to be done.

A program is written from its end, so that where a jump goes to is known when it is written. Its
labels count from the end, too.
"""

from __future__ import annotations

from typing import NamedTuple

from twistedsock.errors import FilterError
from twistedsock.wire.bpf import (
    JA,
    JMP,
    MAX_INSTRUCTIONS,
    MAX_OFFSET,
    RET,
    Instruction,
    K,
    Program,
)


class Compared(NamedTuple):
    """Something is loaded, and one of the comparisons holds."""

    loads: tuple[Instruction, ...]
    comparisons: tuple[tuple[int, int], ...]  # a jump's condition and its number


class All(NamedTuple):
    """Each of them holds; of none: true."""

    parts: tuple[Tree, ...]


class Any(NamedTuple):
    """One of them holds; of none: false."""

    parts: tuple[Tree, ...]


class Not(NamedTuple):
    """It does not hold."""

    part: Tree


class Joined(NamedTuple):
    """They are judged from left to right; each but the first is joined by "and" or "or"."""

    parts: tuple[tuple[str, Tree], ...]


Tree = Compared | All | Any | Not | Joined
TRUE, FALSE = All(()), Any(())


class Code:
    """A program on its way.

    Attributes:
        accepted: Where the packet is kept.
        refused: Where it is not.
    """

    def __init__(self, expression: str, snap_bytes: int) -> None:
        self._expression = expression
        self._reversed: list[Instruction] = []
        self._relays: dict[int, int] = {}  # by where they go to
        self.refused = self._append(Instruction(RET | K, 0, 0, 0))
        self.accepted = self._append(Instruction(RET | K, 0, 0, snap_bytes))

    def program(self, entry: int) -> Program:
        """Return what begins at *entry*."""
        return tuple(reversed(self._reversed[:entry]))

    def emit(self, tree: Tree, yes: int, no: int) -> int:
        """Write what goes to *yes* where *tree* holds and to *no* otherwise; return its entry.

        Raises:
            FilterError: The program becomes too long.
        """
        match tree:
            case Compared():
                entry = no
                for condition, number in reversed(tree.comparisons):
                    entry = self._branch(condition, number, yes, entry)
                for load in reversed(tree.loads):
                    entry = self._append(load)
                return entry
            case All():
                for part in reversed(tree.parts):
                    yes = self.emit(part, yes, no)
                return yes
            case Any():
                for part in reversed(tree.parts):
                    no = self.emit(part, yes, no)
                return no
            case Not():
                return self.emit(tree.part, no, yes)
            case Joined():
                entry = yes
                for joint, part in reversed(tree.parts):
                    entry = self.emit(part, yes, no)
                    if joint == "and":  # what stands before goes on here if it holds
                        yes = entry
                    else:
                        no = entry
                return entry

    def _branch(self, condition: int, number: int, yes: int, no: int) -> int:
        yes, no = self._near(yes), self._near(no)
        here = len(self._reversed)
        return self._append(Instruction(JMP | condition | K, here - yes, here - no, number))

    def _near(self, label: int) -> int:
        """Return *label*, or a jump to it that the next branch can reach."""
        reach = len(self._reversed) - (MAX_OFFSET - 1)  # one more jump may come before the branch
        if label >= reach:
            return label
        relay = self._relays.get(label, -1)
        if relay < reach:
            far = len(self._reversed) - label
            relay = self._relays[label] = self._append(Instruction(JMP | JA, 0, 0, far))
        return relay

    def _append(self, instruction: Instruction) -> int:
        if len(self._reversed) == MAX_INSTRUCTIONS:
            text = f"becomes more than {MAX_INSTRUCTIONS} instructions, which the kernel refuses"
            raise FilterError(self._expression, 0, f"{text}; a shorter filter is needed")
        self._reversed.append(instruction)
        return len(self._reversed)
