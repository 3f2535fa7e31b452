"""What cannot run on this machine must not pass unseen. ignored.sh is the same for shells."""

import os
import sys


def tell_ignored(which, why):
    """Says that something cannot run on this machine, also in the file that tests/ignored.sh repeats at the end."""
    line = f"ignored: {which}: {why}"
    print(line, file=sys.stderr, flush=True)
    if path := os.environ.get("TOLLGATE_TEST_IGNORED"):
        with open(path, "a") as file:
            print(line, file=file)
