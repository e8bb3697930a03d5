"""The smallest experiment: faces 8×8 to 16×16, seconds to compile. It is a config file as well: `sr3 train --config=tests/tiny.py`."""
x = 1
