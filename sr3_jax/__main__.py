"""Makes `python -m sr3_jax` the same command as `sr3`."""

import sys

from sr3_jax.cli import main

sys.exit(main())
