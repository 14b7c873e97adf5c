"""Compiling the load generator and the peers. Knows the compilers; not what is built."""

import subprocess
from pathlib import Path

COMPILE_TIMEOUT_S = 120

COMPILERS: dict[str, tuple[str, ...]] = {
    ".c": ("gcc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-o"),
    ".go": ("go", "build", "-o"),
}


class BuildError(Exception):
    """A program could not be compiled; says why in one line."""


def build(source: Path, target: Path) -> None:
    """Compile *source* into the program *target*, unless that is newer.

    Raises:
        BuildError: The compiler is missing, slow, or not content.
    """
    if target.exists() and target.stat().st_mtime > source.stat().st_mtime:
        return
    target.parent.mkdir(exist_ok=True)
    command = (*COMPILERS[source.suffix], str(target), str(source))
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise BuildError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} took over {COMPILE_TIMEOUT_S} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise BuildError(f"{command[0]}: {lines[0]}")
