"""The browser of the tests of web pages: the system's chromium, without a window."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def watched(browser: Any, url: str) -> Iterator[Any]:
    """A page at `url`; at the end there must have been no error, and nothing from elsewhere.

    Failed downloads are the page's own to tell of, and blobs are its own, too.
    """
    context = browser.new_context(accept_downloads=True)
    page, problems = context.new_page(), []
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: problems.append(request.url) if not request.url.startswith(url) else None,
    )
    page.goto(url)
    yield page
    context.close()
    fine = ("blob:", "Failed to load resource")
    assert not [problem for problem in problems if not problem.startswith(fine)]
