"""`python -m klagg.cli`."""

import sys

from klagg.cli import main

if __name__ == "__main__":
    sys.exit(main())
