"""Signals that ask a run to stop: it saves first."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import jax


class Stop:
    """Whether somebody has asked for it."""

    requested = False


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn SIGTERM and the first Ctrl-C into a request; a second Ctrl-C interrupts as usual.

    With several processes JAX's own preemption service takes SIGTERM, so that all agree on a step;
    Ctrl-C becomes one.
    """
    stop = Stop()

    def request(number: int, _: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if jax.distributed.is_initialized():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            stop.requested = True

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ValueError):  # not in the main thread: the caller handles signals
            _replace(stack, signal.SIGINT, request)
            # JAX's handler is not Python's, and could not be put back if it was replaced
            if not jax.distributed.is_initialized():
                _replace(stack, signal.SIGTERM, request)
        yield stop


def _replace(stack: contextlib.ExitStack, number: int, handler: Callable[..., None]) -> None:
    """Sets a handler until the stack ends, which puts the one before it back."""
    before = signal.signal(number, handler)
    if before is not None:  # else it was not set from Python
        stack.callback(signal.signal, number, before)
