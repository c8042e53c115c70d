"""The `gateway` command, also as `python -m gateway`."""

import sys


def main() -> None:
    """Whoever interrupts it while it is loading, which takes a second, has changed nothing."""
    try:
        from gateway.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
