"""Has Prometheus scrape a Tollgate, and asks it what the dashboard and the alerts ask. See run."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"
PATIENCE_S = 60
# What the checks below come to: so many keys, each asked so often, of a limit of so many.
KEYS, ASKED, LIMIT = 20, 15, 10


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(stack, folder, name, command, **options):
    """A process that ends with the stack; its log is shown if something fails."""
    log = open(folder / f"{name}.log", "wb")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **options)
    stack.callback(lambda: (process.terminate(), process.wait(), log.close()))
    return process


def wait_for(what, condition):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            outcome = condition()
            if outcome:
                return outcome
            reason = "it does not hold"
        except OSError as error:
            reason = str(error)
        assert time.monotonic() < deadline, f"{what}: {reason}, after {PATIENCE_S} s"
        time.sleep(0.1)


def fetch(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as response:
        return response.read().decode()


class Resp:
    """Enough of a Redis client to send checks."""

    def __init__(self, port):
        self.stream = socket.create_connection(("127.0.0.1", port), timeout=10).makefile("rwb")

    def check(self, key):
        self.stream.write(f"RL.CHECK {key} {LIMIT} 1h\r\n".encode())
        self.stream.flush()
        assert self.stream.readline() == b"*6\r\n"
        return [int(self.stream.readline()[1:]) for _ in range(6)]


class Prometheus:
    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/api/v1/"

    def ask(self, path, **parameters):
        answer = json.loads(fetch(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression):
        return self.ask("query", query=expression)["result"]

    def number(self, expression):
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else None


def check_metrics(http):
    # promtool reads the older form alone; Prometheus itself reads the other, below.
    text = fetch(f"{http}/metrics", Accept="text/plain")
    promtool = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    assert promtool.returncode == 0 and not promtool.stderr.strip(), promtool.stderr or promtool.stdout
    print(f"ok: promtool takes the metrics, {len(text)} bytes")


def write_config(folder, http_port):
    """What is in packaging/, but for the target, and quicker."""
    text = (PACKAGING / "prometheus/prometheus.yml").read_text()
    text, targets = re.subn(r"localhost:\d+", f"127.0.0.1:{http_port}", text)
    text, intervals = re.subn(r"_interval: 15s", "_interval: 1s", text)
    text, rules = re.subn(r"tollgate\.rules\.yml", str(PACKAGING / "prometheus/tollgate.rules.yml"), text)
    assert (targets, intervals, rules) == (1, 2, 1)
    (folder / "prometheus.yml").write_text(text)


def check_counts(prometheus):
    expected = {"allowed": KEYS * LIMIT, "denied": KEYS * (ASKED - LIMIT)}
    for result, count in expected.items():
        found = wait_for(f"{result} checks", lambda: prometheus.number(f'sum(tollgate_checks_total{{result="{result}"}})'))
        assert found == count, f"{result}: {found}, not {count}"
    # Prometheus asks for OpenMetrics, in which a counter's metadata has its name without _total.
    kinds = {name: entries[0]["type"] for name, entries in prometheus.ask("metadata").items()}
    assert kinds["tollgate_checks"] == "counter" and kinds["tollgate_check_duration_seconds"] == "histogram", kinds
    print(f"ok: a scrape counts {sum(expected.values())} checks as they came")


def expressions(dashboard):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def check_dashboard(prometheus):
    dashboard = json.loads((PACKAGING / "grafana/tollgate.json").read_text())
    asked = 0
    for title, expression in expressions(dashboard):
        query = expression.replace("$instance", ".*").replace("$__rate_interval", "5s")
        assert "$" not in query, query
        wait_for(f"dashboard, {title}: no data for {query}", lambda query=query: prometheus.query(query))
        asked += 1
    # What is drawn is exported, and what is exported is drawn or asked for by an alert.
    rules = (PACKAGING / "prometheus/tollgate.rules.yml").read_text()
    used = " ".join(expression for _, expression in expressions(dashboard)) + rules
    names = set(prometheus.ask("label/__name__/values"))
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names if name.startswith(("tollgate_", "process_"))}
    unused = {name for name in names if name not in used}
    elsewhere = {"tollgate_breaker_state", "process_start_time_seconds"}
    assert unused == elsewhere, f"neither drawn nor asked for: {unused ^ elsewhere}"
    print(f"ok: {asked} queries of the dashboard have data")


def check_alerts(prometheus, redis):
    groups = prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == 10 and all(rule["health"] in ("ok", "unknown") for rule in rules), rules
    assert prometheus.query('ALERTS{alertname="TollgateDegraded"}') == []
    redis.terminate()
    redis.wait()
    # It fires a minute later, which promtool has tested.
    wait_for("an alert that Redis is down", lambda: prometheus.query('ALERTS{alertname="TollgateDegraded"}'))
    wait_for("all rules evaluated", lambda: all(rule["health"] == "ok" for group in prometheus.ask("rules")["groups"] for rule in group["rules"]))
    print(f"ok: {len(rules)} alerts are evaluated, and one comes when Redis goes")


def main(binary):
    redis_port, listen_port, http_port, prometheus_port = (free_port() for _ in range(4))
    http = f"http://127.0.0.1:{http_port}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TOLLGATE_", "REDIS_"))}
    # The deadline is for a machine that is busy building.
    environment |= {"TOLLGATE_HTTP__LISTEN": f"127.0.0.1:{http_port}", "TOLLGATE_REDIS__TIMEOUT_MS": "5000"}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        try:
            redis = start(stack, folder, "redis", ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", name])
            wait_for("redis", lambda: socket.create_connection(("127.0.0.1", redis_port), timeout=1).close() is None)
            start(stack, folder, "tollgate", [binary, "--listen", f"127.0.0.1:{listen_port}", "--redis", f"127.0.0.1:{redis_port}"], env=environment)
            wait_for("tollgate", lambda: fetch(f"{http}/readyz") == "ready\n")
            write_config(folder, http_port)
            start(stack, folder, "prometheus", ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{prometheus_port}"])
            prometheus = Prometheus(prometheus_port)
            wait_for("a first scrape", lambda: prometheus.number('up{job="tollgate"}') == 1)
            client = Resp(listen_port)
            for _ in range(ASKED):
                for key in range(KEYS):
                    client.check(f"user:{key}")
            wait_for("a scrape of all", lambda: prometheus.number("sum(tollgate_checks_total)") == KEYS * ASKED)
            check_metrics(http)
            check_counts(prometheus)
            check_dashboard(prometheus)
            check_alerts(prometheus, redis)
        except BaseException:
            for log in sorted(folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
            raise


main(sys.argv[1])
