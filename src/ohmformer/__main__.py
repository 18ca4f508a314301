"""`python -m ohmformer` is the command `ohmformer`."""

import sys

from ohmformer.cli import main

if __name__ == "__main__":
    sys.exit(main())
