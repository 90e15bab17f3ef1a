"""`python -m vovnet`."""

import sys

from vovnet.cli import main

sys.exit(main())
