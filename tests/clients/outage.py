"""Workers of job queues before a Redis that dies and comes back, straight and through Tollgate."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from installing import install
from servers import ANY_PORT, Redis, free_port, read, start_tollgate, tell_ignored, wait_until

# Name: its folder, its runtime, its script without the ending.
WORKERS = {
    "celery": ("python", "requirements-workers", "with_celery"),
    "rq": ("python", "requirements-workers", "with_rq"),
    "bullmq": ("node", "node", "with_bullmq"),
    "sidekiq": ("ruby", "ruby", "with_sidekiq"),
}
# A job that is under way when Redis dies ends while it is away.
SLOW_SECONDS = 0.8
# The deadline for Redis is 50 ms. BullMQ's checks share a connection that closes with Redis, and may wait for another.
SLOW_CHECK_MS = 100
MOST_SLOW = 0.02
LONGEST_CHECK_MS = 1000
# Workers that block are no reason to wait: the grace is for answers that are on their way.
STOP_SECONDS = 1
CLIENTS = 20
ASK_SECONDS = 0.005
# RQ asks again after 1, 2, 4, 8, ... seconds, Celery after 2, 4, 6, ...
WAIT_SECONDS = 60
LAST_LINES = 15


class Outage(NamedTuple):
    """How long Redis is away, and whether it comes back with what it had been told."""

    seconds: float
    keeps: bool

    def __str__(self):
        return f"{self.seconds:g} s without Redis, which comes back {'with its data' if self.keeps else 'empty'}"


OUTAGES = (Outage(1, True), Outage(6, True), Outage(1, False))
# No longer ones: RQ itself ends if it gets no answer for some ten seconds after a job was done.
LONG_OUTAGES = (Outage(6, False), *[Outage(0.2, True), Outage(2, True)] * 5)


class Worker:
    """A process that works jobs off, and that puts those which it is told to."""

    def __init__(self, name, command, folder, port, way):
        self.name = name
        self.folder = folder
        folder.mkdir()
        environ = dict(os.environ, TOLLGATE_PORT=str(port), TOLLGATE_STORE=way, TOLLGATE_WORKER_FOLDER=str(folder))
        environ.update(PYTHONDONTWRITEBYTECODE="1")
        # A session of its own, so that the processes which it forks can be killed with it.
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environ, cwd=folder, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )

    def put(self, job, seconds=0.0):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{job} {seconds}\n".encode())
            self.process.stdin.flush()

    def wait(self, line):
        """Returns what is wrong if the worker does not come to say this line."""
        deadline = time.monotonic() + WAIT_SECONDS
        while line not in (said := read(self.folder / "said").splitlines()):
            if self.process.poll() is not None:
                return f"it has ended with status {self.process.returncode}{self.last_words()}"
            refused = [other for other in said if other.startswith(f"could not put {line.split()[-1]}:")]
            if refused or time.monotonic() > deadline:
                return refused[0] if refused else f"not within {WAIT_SECONDS} s{self.last_words()}"
            time.sleep(0.02)
        return ""

    def last_words(self):
        return "".join(f"\n    {line}" for line in read(self.folder / "log").splitlines()[-LAST_LINES:])

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def run(names, long):
    """Runs the workers through everything, prints what came of it, and returns how many tests passed and failed."""
    commands = {name: install(*WORKERS[name]) for name in names}
    for name in [name for name, command in commands.items() if not command[0]]:
        tell_ignored(f"workers of {name}", "not here, and it cannot be installed (Debian: ruby-sidekiq)")
        del commands[name]
    tests = [live_through(way, commands, OUTAGES) for way in ("direct", "loading")]
    if long:
        tests += [live_through(way, commands, LONG_OUTAGES) for way in ("direct", "loading", "close")]
    passed = failed = 0
    for title, wrong in itertools.chain(*tests, live_through_restart(commands)):
        print(f"{'not ok' if wrong else 'ok'}: {title}{', ' if wrong else ''}{wrong}", flush=True)
        passed, failed = passed + (not wrong), failed + bool(wrong)
    return passed, failed


def live_through(way, commands, outages):
    """Redis dies and comes back, for workers that reach it straight (`direct`) or through Tollgate with this
    `upstream.when_down`. Yields what was tried, and what was wrong with it, or nothing."""
    with tempfile.TemporaryDirectory(prefix="tollgate-outage-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        redis = Redis(folder, "--appendonly", "yes")
        stack.callback(redis.stop)
        redis.start()
        port, log = redis.port, folder / "tollgate.log"
        if way != "direct":
            behind = ["--redis", f"127.0.0.1:{redis.port}"]
            _, port = start_tollgate([*ANY_PORT, *behind], log, stack, TOLLGATE_UPSTREAM__WHEN_DOWN=way)
        workers = begin_work(commands, folder, port, way, stack)
        for worker in workers:
            yield f"{worker.name} does a job, {way}", worker.wait("did first")
        for number, outage in enumerate(outages, 1):
            put_all(workers, f"slow-{number}", "begun", SLOW_SECONDS)
            put_all(workers, f"queued-{number}", "put")
            redis.stop()
            if not outage.keeps:
                shutil.rmtree(folder / "appendonlydir")
            time.sleep(outage.seconds)
            redis.start()
            wait_until(lambda: is_served(port), lambda: f"Redis is back and not to be reached, {way}\n{read(log)}")
            put_all(workers, f"after-{number}", "put")
            for worker in workers:
                wrong = worker.wait(f"did after-{number}")
                if outage.keeps:
                    wrong = wrong or worker.wait(f"did queued-{number}")
                yield f"{worker.name} lives through {outage}, {way}", wrong
        # With `close`, who shares a connection with commands that need Redis waits for them to go through.
        if way == "loading":
            for worker in workers:
                yield limits_were_checked(worker)


def begin_work(commands, folder, port, way, stack):
    """Workers that have a first job, to be stopped by `stack`."""
    workers = [Worker(name, command, folder / name, port, way) for name, command in commands.items()]
    for worker in workers:
        stack.callback(worker.stop)
    for worker in workers:
        worker.wait("ready")
    put_all(workers, "first", "put")
    return workers


def put_all(workers, job, until, seconds=0.0):
    """Puts a job to each worker, and waits until that has been put or begun."""
    for worker in workers:
        worker.put(job, seconds)
    for worker in workers:
        worker.wait(f"{until} {job}")


def is_served(port):
    """Whether a command that needs Redis is carried out."""
    return ask(port, "EXISTS nothing").startswith(":")


def ask(port, command):
    """A reply as it comes, of a command without arguments that need quotes; nothing if there is none."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.sendall(f"{command}\r\n".encode())
        return client.recv(1024).decode()
    return ""


def limits_were_checked(worker):
    """How the checks fared that the worker's process made all the while, by the connections of the worker itself."""
    outcomes = [line.split(" ", 1) for line in read(worker.folder / "checks").splitlines()]
    if not outcomes:
        return f"{worker.name} checks limits", f"it never did{worker.last_words()}"
    errors = [outcome for _, outcome in outcomes if outcome not in ("0", "1")]
    waits = [float(ms) for ms, _ in outcomes]
    slow = sum(ms > SLOW_CHECK_MS for ms in waits)
    degraded = sum(outcome == "1" for _, outcome in outcomes)
    title = (
        f"{worker.name} has {len(waits)} checks answered, {degraded} of them degraded, {slow} in more than "
        f"{SLOW_CHECK_MS} ms, {max(waits):.0f} ms at most"
    )
    if errors:
        return title, f"{len(errors)} errors, the first is {errors[0]}"
    return title, "that is slow" if slow > MOST_SLOW * len(waits) or max(waits) > LONGEST_CHECK_MS else ""


def live_through_restart(commands):
    """Tollgate is told to stop while workers block in Redis and clients without retries ask, and is started again."""
    with tempfile.TemporaryDirectory(prefix="tollgate-restart-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        redis = Redis(folder)
        stack.callback(redis.stop)
        redis.start()
        port = free_port()
        flags = ["--listen", f"127.0.0.1:{port}", "--redis", f"127.0.0.1:{redis.port}"]
        tollgate, _ = start_tollgate(flags, folder / "tollgate-1.log", stack)
        workers = begin_work(commands, folder, port, "direct", stack)
        for worker in workers:
            yield f"{worker.name} does a job before Tollgate restarts", worker.wait("did first")
        blocked = re.compile(rf"blocked_clients:{len(workers)}\b")
        wait_until(lambda: blocked.search(ask(redis.port, "INFO clients")), lambda: "the workers do not wait for jobs")
        with asking(port, CLIENTS) as clients:
            asked = time.monotonic()
            tollgate.terminate()
            status = tollgate.wait()
            seconds = time.monotonic() - asked
            start_tollgate(flags, folder / "tollgate-2.log", stack)
            away = time.monotonic() - asked
            wrong = f"its status is {status}\n{read(folder / 'tollgate-1.log')}"
            yield f"Tollgate stops in {seconds * 1000:.0f} ms", wrong if status or seconds > STOP_SECONDS else ""
            put_all(workers, "after", "put")
            for worker in workers:
                yield f"{worker.name} lives through a restart of Tollgate", worker.wait("did after")
        answered = sum(client.answered for client in clients)
        lost = sum(client.lost for client in clients)
        refused = sum(client.refused for client in clients)
        title = f"{CLIENTS} clients without retries: {answered} requests answered, {lost} lost in {away * 1000:.0f} ms"
        yield f"{title}, {refused} connections refused", "" if lost <= CLIENTS else "more than one each is lost"
        done = int(ask(redis.port, "GET asked").splitlines()[1])
        yield "nothing is carried out and not answered", "" if done == answered else f"{done} were carried out"


class Client(threading.Thread):
    """Asks Redis over and over, with no second try, and counts how that ends."""

    def __init__(self, port, stop):
        super().__init__()
        self.port = port
        self.stop = stop
        self.answered = self.lost = self.refused = 0

    def run(self):
        while not self.stop.is_set():
            try:
                connection = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                self.refused += 1
                time.sleep(ASK_SECONDS)
                continue
            with connection:
                self.ask_on(connection)

    def ask_on(self, connection):
        while not self.stop.is_set():
            answer = b""
            with contextlib.suppress(OSError):
                connection.sendall(b"INCR asked\r\n")
                answer = connection.recv(64)
            if not answer.startswith(b":"):
                self.lost += 1
                return
            self.answered += 1
            time.sleep(ASK_SECONDS)


@contextlib.contextmanager
def asking(port, count):
    stop = threading.Event()
    clients = [Client(port, stop) for _ in range(count)]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        stop.set()
        for client in clients:
            client.join()
