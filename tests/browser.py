"""The browser of the tests of web pages: the system's chromium, without a window."""

import shutil

import pytest

CHROMIUM = shutil.which("chromium")
# Chromium looks for updates and names at its start; a machine without a network makes it wait.
QUIET = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium on this machine (Debian: apt install chromium)"
)
