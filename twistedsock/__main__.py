"""``python -m twistedsock`` is the ``twistedsock`` command."""

from twistedsock.cli import main

if __name__ == "__main__":
    main(prog_name="twistedsock")
