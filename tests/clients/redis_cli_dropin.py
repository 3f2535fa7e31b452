"""redis-cli and redis-benchmark on Redis's own commands: they show through Tollgate what Redis shows."""

import subprocess
import tempfile

from harness import PORT, STORE, fresh, run
from terminal import redis_cli as at_terminal

WAIT_SECONDS = 20
PROMPT = f"127.0.0.1:{PORT}> "


def cli(*args, typed=""):
    """What redis-cli prints when it is not at a terminal: raw values, a line each."""
    command = ["redis-cli", "-p", str(PORT), *args]
    done = subprocess.run(command, input=typed, capture_output=True, timeout=WAIT_SECONDS, check=True, text=True)
    assert not done.stderr, done.stderr
    return done.stdout


def one_shot():
    key = fresh("one_shot")
    assert cli("SET", key, "value") == "OK\n" and cli("GET", key) == "value\n"
    assert cli("-3", "HSET", key + "h", "field", "value") == "1\n"
    assert cli("-3", "--no-raw", "HGETALL", key + "h") == '1# "field" => "value"\n'
    assert cli("-n", "3", "GET", key) == "\n" and cli("EXISTS", key) == "1\n"
    assert cli("-x", "SET", key, typed="from input") == "OK\n" and cli("STRLEN", key) == "10\n"
    assert cli("LPUSH", key, "x").strip() == "WRONGTYPE Operation against a key holding the wrong kind of value"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write("return {KEYS[1], ARGV[1]}")
        script.flush()
        assert cli("--eval", script.name, "a", ",", "b") == "a\nb\n"


def piped():
    key = fresh("piped")
    typed = f"MULTI\nSET {key} 1\nINCR {key}\nEXEC\nSELECT 3\nGET {key}\nSELECT 0\nGET {key}\n"
    assert cli(typed=typed).split() == "OK QUEUED QUEUED OK 2 OK OK 2".split()
    typed = f"WATCH {key}\nMULTI\nNO.SUCH\nEXEC\n"
    assert "EXECABORT" in cli(typed=typed)


def mass_insertion():
    key = fresh("mass_insertion")
    request = f"*4\r\n$4\r\nHSET\r\n${len(key)}\r\n{key}\r\n$1\r\nf\r\n$1000\r\n{'v' * 1000}\r\n"
    assert "errors: 0, replies: 5000" in cli("--pipe", typed=request * 5000)


def scans():
    key = fresh("scans")
    cli(typed="".join(f"SET {key}:{number} x\n" for number in range(100)))
    assert len(cli("--scan", "--pattern", f"{key}:*").split()) == 100
    assert "Biggest string found" in cli("--bigkeys")


def benchmarks():
    command = ["redis-benchmark", "-p", str(PORT), "-q", "-n", "5000", "-P", "16", "-t"]
    done = subprocess.run(
        [*command, "ping,set,get,incr,lpush,lpop,mset"], capture_output=True, timeout=60, check=True, text=True
    )
    assert done.stdout.count("requests per second") >= 7, done
    assert "rror" not in done.stdout + done.stderr, done


def completes_and_hints():
    """Redis's own commands as ever; and with Tollgate its own beside them."""
    with at_terminal("-p", str(PORT)) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("HGETA\t ")
        terminal.wait_for("HGETALL key")
        terminal.type(f"{fresh('completes')}\r")
        terminal.wait_for("(empty array)")
        terminal.wait_for(PROMPT)
        terminal.type("client setn\t")
        terminal.wait_for("CLIENT SETNAME")
        terminal.type(" tester\r")
        terminal.wait_for("OK")
        if STORE != "direct":
            terminal.wait_for(PROMPT)
            terminal.type("RL.CH\t ")
            terminal.wait_for("RL.CHECK key limit window")


def at_the_terminal():
    """The prompt follows SELECT and MULTI, and a subscription shows its messages until it is left."""
    key = fresh("at_the_terminal")
    with at_terminal("-p", str(PORT)) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("SELECT 3\r")
        terminal.wait_for(f"127.0.0.1:{PORT}[3]> ")
        terminal.type("MULTI\r")
        terminal.wait_for(f"127.0.0.1:{PORT}[3](TX)> ")
        terminal.type("PING\r")
        terminal.wait_for("QUEUED")
        terminal.wait_for("(TX)> ")
        terminal.type("EXEC\r")
        terminal.wait_for("1) PONG")
        terminal.wait_for(f"127.0.0.1:{PORT}[3]> ")
        terminal.type(f"SUBSCRIBE {key}\r")
        terminal.wait_for("(integer) 1")
        assert cli("PUBLISH", key, "hello") == "1\n"
        terminal.wait_for('3) "hello"')


def monitors():
    key = fresh("monitors")
    with at_terminal("-p", str(PORT), "MONITOR") as terminal:
        terminal.wait_for("OK")
        cli("SET", key, "x")
        terminal.wait_for(f'"SET" "{key}" "x"')


def tells_of_tollgate():
    assert "# Tollgate" in cli("INFO", "tollgate")
    info = cli("INFO")
    assert "# Tollgate" in info and "redis_version:" in info and "# Keyspace" in info
    names = cli("COMMAND", "LIST").split()
    assert "rl.check" in names and "get" in names
    # The list has subcommands too, the count does not.
    assert int(cli("COMMAND", "COUNT")) == sum("|" not in name for name in names)


TESTS = [
    one_shot,
    piped,
    mass_insertion,
    scans,
    benchmarks,
    completes_and_hints,
    at_the_terminal,
    monitors,
]
if STORE != "direct":
    TESTS.append(tells_of_tollgate)

run((test.__name__, test) for test in TESTS)
