"""A service of one's own, as others can install it."""

from twistedsock import ServiceSettings, SocketService


class Shout(SocketService):
    """Answers every message in capitals."""

    class Settings(ServiceSettings):
        """The keys of [services.NAME.settings]."""

        suffix: str = ""

    def received(self, session, message):
        """Answer."""
        session.send(message.upper() + self.settings.suffix.encode())
