"""`python -m mame_lib` is the same as `mame`."""

import sys

from mame_lib.cli import main

sys.exit(main())
