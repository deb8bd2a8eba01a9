"""`python -m pairtune` is `pairtune`."""

import sys

from pairtune.cli import main

if __name__ == "__main__":
    sys.exit(main())
