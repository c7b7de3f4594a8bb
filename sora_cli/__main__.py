"""`python -m sora_cli` is `sora`."""

import sys

from sora_cli.app import main

if __name__ == "__main__":
    sys.exit(main())
