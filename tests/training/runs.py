"""What tests ask of processes that run `sr3`."""


def wait_for(process, text):
    """Reads what the process prints up to the line that begins with `text`; returns that line."""
    for line in process.stdout:
        if line.startswith(text):
            return line
    raise AssertionError(f"it ended before {text!r}: {process.stderr.read()}")


def finish(process):
    """Waits for the process, which must end well; returns what it printed."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return output
