"""The rooms of the awaitable Socket, whose door is ``transports.socket``.

Reading order: readiness (epoll in the reactor), waiting (lines and deadlines), attempts (calls of
several steps), lookups (names), held (what does not wait), awaitable (the class), then its files:
buffered, text, files.
"""
