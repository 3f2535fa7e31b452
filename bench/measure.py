"""One measurement: fresh servers, one load, one sample."""

import contextlib
import csv
import json
import math
import resource
import statistics
import subprocess
import tempfile

import servers
import tables
from rows import RANDOM_KEY


# Of replies, that may be wrong in a sample.
MAX_WRONG_SHARE = 0.001
TRIES = 3


def measure_well(side, connections, pipeline, settings):
    """A sample, taken again when some replies were wrong: an exact answer that a stall of the machine left to the
    fallback is cheaper than what the row is about. How many samples were discarded so is a part of the sample."""
    for discarded in range(TRIES):
        sample = measure(side, connections, pipeline, settings)
        if sample["wrong"] <= MAX_WRONG_SHARE * sample["replies"]:
            break
    return sample | {"discarded": discarded}


def measure(side, connections, pipeline, settings, rate=None):
    """A sample: rps, p50_us, p99_us, how many replies were wrong, and the processor time that a request takes of the
    server (unless it is Redis), of all Redis servers together, and of the load.

    Servers are started for it and stopped after it. So no measurement finds what another left behind, and what differs
    from one start of a program to the next (its place in memory, say) is a part of the spread that is shown.
    """
    with contextlib.ExitStack() as stack:
        server = side.setup(stack, settings.tollgate)
        servers.pipeline(server.port, side.work.before)
        source = SOURCES[settings.source] if rate is None else load
        before = processor_s(server)
        sample = source(server.port, side.work, connections, pipeline, settings, rate)
        taken = {name: end - before[name] for name, end in processor_s(server).items()}
        return sample | {name: 1e6 * seconds / max(1, sample["asked"]) for name, seconds in taken.items()}


def processor_s(server):
    """Processor time that a server, all Redis servers and the load have taken so far, in seconds."""
    alone = not any(redis is server for redis in server.behind)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ({"server_us": server.processor_s()} if alone else {}) | {
        "redis_us": sum(redis.processor_s() for redis in server.behind),
        # What was started before is still there, so what ends between two looks is what makes the load.
        "load_us": ended.ru_utime + ended.ru_stime,
    }


def load(port, work, connections, pipeline, settings, rate=None, seed=1):
    """The load generator of this folder: closed loop, or `rate` requests a second in an open one."""
    command = [servers.program("load"), "--addr", f"127.0.0.1:{port}", "--keys", settings.keys, "--seed", seed]
    command += ["--connections", connections, "--pipeline", pipeline]
    command += ["--warm-up", settings.warm_up_s, "--seconds", settings.seconds]
    command += ["--begins", work.begins, "--ends", work.ends]
    command += ["--rate", rate] if rate else []
    command = [str(word) for word in [*command, "--", *work.command]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise servers.Failed(f"{work.name}: {done.stderr.strip()}")
    sample = json.loads(done.stdout)
    # The time before what is counted is taken to be as busy.
    return sample | {"asked": sample["rps"] * (settings.warm_up_s + settings.seconds)}


def redis_benchmark(port, work, connections, pipeline, settings, _):
    """Redis's own, as a second opinion. It takes a number of requests, not a time: a short run tells how many."""
    command = [servers.need("redis-benchmark", "redis-tools"), "-p", port, "-c", connections, "-P", pipeline]
    command += ["-r", settings.keys, "--csv"]

    asked = []

    def run(requests):
        asked.append(max(int(requests), connections * pipeline))
        words = [str(word) for word in [*command, "-n", asked[-1], *work.command]]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode or not done.stdout:
            raise servers.Failed(f"{work.name}: {(done.stdout + done.stderr).strip()}")
        *_, told = csv.DictReader(done.stdout.splitlines())
        return {name: float(value) for name, value in told.items() if name != "test"}

    rough = run(200 * connections * pipeline)["rps"]
    run(rough * settings.warm_up_s)
    told = run(rough * settings.seconds)
    latencies = {f"{name}_us": told[f"{name}_latency_ms"] * 1000 for name in ("p50", "p99", "max")}
    # It ends at the first error, and knows no other wrong reply.
    counts = {"replies": asked[-1], "asked": sum(asked), "wrong": 0, "unanswered": 0}
    return {"rps": told["rps"], **latencies, **counts}


def memtier_benchmark(port, work, connections, pipeline, settings, _):
    """Redis Labs' generator, of which one thread is used, as others have one. It counts whole seconds, from the first."""
    program = servers.memtier() or servers.need("memtier_benchmark", "memtier-benchmark")
    in_its_words = {RANDOM_KEY: "__key__", "__rand_int__": "__data__"}
    asked = " ".join(in_its_words.get(word, str(word)) for word in work.command)
    command = [program, "--server", "127.0.0.1", "--port", port, "--clients", connections, "--threads", 1]
    command += ["--pipeline", pipeline, "--test-time", math.ceil(settings.seconds), "--hide-histogram"]
    # Without a seed for each all clients ask for the same keys in the same order.
    command += ["--command", asked, "--command-key-pattern", "R", "--distinct-client-seed"]
    command += ["--key-prefix", "key:", "--key-minimum", 1, "--key-maximum", settings.keys]
    command += ["--random-data", "--data-size", 12]
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        words = [str(word) for word in [*command, "--json-out-file", file.name]]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise servers.Failed(f"{work.name}: {done.stderr.strip()[-2000:]}")
        told = json.load(file)["ALL STATS"]["Totals"]
    latency = told["Percentile Latencies"]
    latencies = {"p50_us": latency["p50.00"] * 1000, "p99_us": latency["p99.00"] * 1000}
    # It tells of errors, and knows no other wrong reply.
    wrong = done.stderr.count("handle error response")
    counts = {"replies": told["Count"], "asked": told["Count"], "wrong": wrong, "unanswered": 0}
    return {"rps": told["Ops/sec"], **latencies, "max_us": told["Max Latency"] * 1000, **counts}


# What makes the load, by its name.
SOURCES = {tables.LOAD: load, tables.REDIS_BENCHMARK: redis_benchmark, tables.MEMTIER: memtier_benchmark}


def median(samples, metric):
    """The median of one metric of some samples."""
    return statistics.median(sample[metric] for sample in samples)
