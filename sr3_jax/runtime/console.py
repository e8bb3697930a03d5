"""Standard output and standard error that survive any console, and readers that go away.

File names may be bytes that are no text, consoles may know a few letters only, and `| head` closes
its pipe in the middle of a long run. None of this ends the work. What could not be written because
a disk is full is said in the end.
"""

import codecs
import io
import os
import sys

ERRORS = "sr3_console"


def prepare() -> None:
    """Replaces the process's two streams; does nothing where they are not files of the system."""
    codecs.register_error(ERRORS, _encoded)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper and stream is getattr(sys, f"__{name}__"):
            encoding, by_line = stream.encoding, stream.line_buffering
            stream.flush()
            lasting = _Lasting(stream.detach(), encoding, ERRORS, line_buffering=by_line)
            setattr(sys, name, lasting)
            setattr(sys, f"__{name}__", lasting)


def _encoded(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for letters that a console does not have: the bytes of a file's name, else ?."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    return b"".join(
        bytes([ord(letter) - 0xDC00]) if 0xDC80 <= ord(letter) <= 0xDCFF else b"?"
        for letter in part
    ), error.end


_lost: dict[str, str] = {}


def lost() -> str:
    """What was not written, in a sentence, if not for want of a reader; empty if nothing was."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None:
            stream.flush()
    return "".join(f"{name} cannot be written: {why}" for name, why in list(_lost.items())[:1])


class _Lasting(io.TextIOWrapper):
    """A stream that says nothing more when nobody reads it, instead of raising."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._let_go(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._let_go(error)

    def _let_go(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            _lost[self.name] = error.strerror or str(error)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
