"""``python -m xbackprop`` is the command ``xbackprop``."""

import sys

from xbackprop.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
