"""Sans-I/O: bytes to values and back. Imports only the standard library."""
