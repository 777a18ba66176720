"""python -m nagpag: the command line."""

import sys


def main() -> int:
    """Run it; the exit status."""
    try:
        from .service.client import cli

        return cli.main()
    except KeyboardInterrupt:  # before it has begun; from then on it says itself what was stopped
        print("nagpag: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
