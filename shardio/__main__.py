"""`python -m shardio` is the `shardio` command."""

import sys

from shardio.cli import main

if __name__ == "__main__":
    sys.exit(main())
