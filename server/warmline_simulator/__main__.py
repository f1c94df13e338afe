"""`python -m warmline_simulator`."""

import sys

from warmline_simulator.cli import main

if __name__ == "__main__":
    sys.exit(main())
