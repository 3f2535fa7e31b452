"""What the Python workers share: the jobs' words, and a thread that puts jobs and another that checks limits."""

import os
import sys
import threading
import time
from pathlib import Path

PORT = int(os.environ["TOLLGATE_PORT"])
FOLDER = Path(os.environ["TOLLGATE_WORKER_FOLDER"])
# Behind this port is a Tollgate, and not Redis itself.
CHECKS_LIMITS = os.environ["TOLLGATE_STORE"] != "direct"

CHECK_SECONDS = 0.02


def work(name, seconds):
    """The job itself."""
    say(f"begun {name}")
    time.sleep(seconds)
    say(f"did {name}")


def say(line):
    # Processes of a worker write here too. Short lines that are appended do not mix.
    with (FOLDER / "said").open("a") as said:
        said.write(f"{line}\n")


def begin(put, check):
    """From now on puts the jobs that stdin names, and checks limits over and over."""
    threading.Thread(target=put_jobs, args=[put], daemon=True).start()
    if CHECKS_LIMITS:
        threading.Thread(target=check_limits, args=[check], daemon=True).start()
    say("ready")


def put_jobs(put):
    for line in sys.stdin:
        name, seconds = line.split()
        try:
            put(name, float(seconds))
            say(f"put {name}")
        except Exception as error:
            say(f"could not put {name}: {error!r}")


def check_limits(check):
    """Writes how long each answer took in ms, and its field `degraded` or the error."""
    with (FOLDER / "checks").open("a", buffering=1) as checks:
        while True:
            asked = time.monotonic()
            try:
                outcome = check("RL.CHECK", f"worker:{FOLDER.name}", 1_000_000_000, 60)[5]
            except Exception as error:
                outcome = repr(error)
            checks.write(f"{(time.monotonic() - asked) * 1000:.1f} {outcome}\n")
            time.sleep(CHECK_SECONDS)
