"""Signals that ask a run to stop: it saves first."""

import contextlib
import os
import signal
from collections.abc import Iterator

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
            before = signal.signal(signal.SIGINT, request)
            stack.callback(signal.signal, signal.SIGINT, before)
            stack.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
            if not jax.distributed.is_initialized():
                signal.signal(signal.SIGTERM, request)
        yield stop
