"""qotd: a quotation (RFC 865)."""

from __future__ import annotations

import random

import pydantic

from twistedsock.service import ServiceSettings, Session
from twistedsock.services.once import AnswerOnce

MAX_QUOTE_CHARACTERS = 512  # RFC 865: "it should be limited to less than 512 characters"

# Short enough for the answer to an empty datagram: 3 x 28 bytes, less 28 of headers (the guard).
QUOTES = (
    "Be liberal in what you accept.",
    "Hofstadter's law: it always takes longer.",
    "Simplicity is prerequisite for reliability.",
    "The network is the computer.",
    "There is no place like 127.0.0.1.",
    "UDP may lose, repeat and reorder.",
)


class Qotd(AnswerOnce):
    """Sends a quotation to whoever connects or sends a datagram (RFC 865)."""

    class Settings(ServiceSettings):
        """The quotations, of which each answer is one at random."""

        quotes: tuple[str, ...] = QUOTES

        @pydantic.field_validator("quotes")
        @classmethod
        def _fit(cls, quotes: tuple[str, ...]) -> tuple[str, ...]:
            if not quotes:
                raise ValueError("must hold at least one quotation")
            for quote in quotes:
                if len(quote.encode()) > MAX_QUOTE_CHARACTERS - 2:
                    raise ValueError(f"must be shorter than 512 bytes each, got {quote[:32]!r}...")
            return quotes

    def answer(self, session: Session) -> bytes:
        """Return a quotation that the session's budget allows, else the shortest there is."""
        quotes = [f"{quote}\r\n".encode() for quote in self.settings.quotes]
        budget = session.budget
        fitting = [quote for quote in quotes if budget is None or len(quote) <= budget]
        return random.choice(fitting) if fitting else min(quotes, key=len)
