"""`python -m sr3_jax` is `sr3`."""

import sys

from sr3_jax.cli import main

sys.exit(main())
