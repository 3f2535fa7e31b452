"""One measurement: fresh servers, one load, one sample."""

import contextlib
import csv
import json
import statistics
import subprocess

import servers


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
    server and of all Redis servers behind it.

    Servers are started for it and stopped after it. So no measurement finds what another left behind, and what differs
    from one start of a program to the next (its place in memory, say) is a part of the spread that is shown.
    """
    with contextlib.ExitStack() as stack:
        server = side.setup(stack, settings.tollgate)
        servers.pipeline(server.port, side.work.before)
        source = redis_benchmark if settings.source == "redis-benchmark" and rate is None else load
        before = [processor_s([server]), processor_s(server.behind)]
        sample = source(server.port, side.work, connections, pipeline, settings, rate)
        after = [processor_s([server]), processor_s(server.behind)]
        # The time before what is counted is taken to be as busy.
        requests = max(1, sample["rps"] * (settings.warm_up_s + settings.seconds))
        server_us, redis_us = (1e6 * (end - start) / requests for start, end in zip(before, after))
        return sample | {"server_us": server_us, "redis_us": redis_us}


def processor_s(asked):
    """Processor time that some servers have taken so far, in seconds."""
    return sum(server.processor_s() for server in asked)


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
    return json.loads(done.stdout)


def redis_benchmark(port, work, connections, pipeline, settings, _):
    """Redis's own, as a second opinion. It takes a number of requests, not a time: a short run tells how many."""
    command = [servers.need("redis-benchmark", "redis-tools"), "-p", port, "-c", connections, "-P", pipeline]
    command += ["-r", settings.keys, "--csv"]

    def run(requests):
        words = [str(word) for word in [*command, "-n", max(int(requests), connections * pipeline), *work.command]]
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
    return {"rps": told["rps"], **latencies, "replies": rough * settings.seconds, "wrong": 0}


def median(samples, metric):
    """The median of one metric of some samples."""
    return statistics.median(sample[metric] for sample in samples)
