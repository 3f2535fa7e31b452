"""redis-cli: one command, a script on its input, both protocols, mass insertion, at a terminal; redis-benchmark; and
what a person types into a bare socket."""

import re
import socket
import subprocess

from harness import DEGRADED, PORT, STORE, admits, assert_allowed, assert_denied, fresh, run
from terminal import redis_cli as at_terminal

WAIT_SECONDS = 10


def cli(*args, typed=b""):
    """What redis-cli prints when it is not at a terminal: raw values, a line each."""
    command = ["redis-cli", "-p", str(PORT), *args]
    done = subprocess.run(command, input=typed, capture_output=True, timeout=WAIT_SECONDS, check=True)
    assert not done.stderr, done.stderr
    return done.stdout


def integers(output):
    return [int(line) for line in output.split()]


def one_shot():
    key = fresh("one_shot")
    for remaining in reversed(range(admits(4))):
        assert_allowed(integers(cli("RL.CHECK", key, "4", "1h")), 4, remaining)
    assert_denied(integers(cli("RL.CHECK", key, "4", "1h")), 4)


def one_shot_in_resp3():
    key = fresh("one_shot_in_resp3")
    for remaining in reversed(range(admits(4))):
        assert_allowed(integers(cli("-3", "RL.CHECK", key, "4", "1h")), 4, remaining)
    assert_denied(integers(cli("-3", "RL.CHECK", key, "4", "1h")), 4)


def formatted():
    lines = cli("--no-raw", "RL.CHECK", fresh("formatted"), "4", "1h").decode().splitlines()
    expected = ["1) (integer) 1", "2) (integer) 4", f"3) (integer) {admits(4) - 1}", "4) (integer) 0"]
    assert lines[:4] == expected, lines
    assert lines[5] == f"6) (integer) {DEGRADED}", lines


def as_json():
    reply = cli("-3", "--json", "RL.CHECK", fresh("as_json"), "4", "1h").decode()
    assert_allowed(integers(reply.strip().strip("[]").replace(",", " ")), 4, admits(4) - 1)


def piped():
    key = fresh("piped")
    output = cli(typed=f"rl.check {key} 100 1h\nPING\n".encode() * 50).split()
    assert len(output) == 7 * 50, len(output)
    for number in range(50):
        *reply, pong = output[7 * number : 7 * number + 7]
        assert_allowed([int(field) for field in reply], 100, admits(100) - number - 1)
        assert pong == b"PONG"


def mass_insertion():
    """--pipe sends all that it is given, then an ECHO, and reads until that is answered."""
    key = fresh("mass_insertion").encode()
    request = b"*4\r\n$8\r\nRL.CHECK\r\n$%d\r\n%s\r\n$4\r\n1000\r\n$2\r\n1h\r\n" % (len(key), key)
    output = cli("--pipe", typed=request * 1000)
    assert b"errors: 0, replies: 1000" in output, output


def errors():
    usage = b"RL.CHECK key limit window [limit window ...]|policy [BY log|gcra [BURST n]|fixed] [PREFETCH n|time] [COST n] [FULL]"
    assert cli("RL.CHECK").strip() == b"ERR wrong number of arguments for 'rl.check' command: " + usage
    assert b"limit must be an integer between 1 and 1000000000" in cli("RL.CHECK", "key", "0", "60")
    assert b"unknown option 'FOO' for 'rl.check'" in cli("RL.CHECK", "key", "10", "60", "FOO", "1")


def help_is_lines():
    assert re.search(rb"^RL\.CHECK key limit window", cli("RL.HELP"), re.MULTILINE)


def repeated():
    key = fresh("repeated")
    replies = integers(cli("-r", "3", "RL.PEEK", key, "4", "1h"))
    assert len(replies) == 18, replies
    assert_allowed(replies[12:], 4, admits(4) - 1)


def inline():
    """As by nc or telnet: with either line ending, quotes and escapes, and empty lines."""
    key = fresh("inline")
    with socket.create_connection(("127.0.0.1", PORT), timeout=WAIT_SECONDS) as client:
        replies = client.makefile("rb")
        typed = [f"RL.CHECK {key} 100 1h\r\n", f'\r\nrl.check "{key}" 100 1h\n', f"RL.CHECK '{key}' 100 1h\r\n"]
        for number, line in enumerate(typed):
            client.sendall(line.encode())
            assert replies.readline() == b"*6\r\n"
            fields = [replies.readline() for _ in range(6)]
            assert_allowed([int(field[1:]) for field in fields], 100, admits(100) - number - 1)
        client.sendall(b'ECHO "\\x00\\r\\n"\r\nQUIT\r\n')
        assert replies.read() == b"$3\r\n\x00\r\n\r\n+OK\r\n"


def completes_and_hints(*args):
    with at_terminal("-p", str(PORT), *args) as terminal:
        prompt = f"127.0.0.1:{PORT}> "
        terminal.wait_for(prompt)
        terminal.type("RL.CH\t")
        terminal.wait_for("RL.CHECK")
        terminal.type(" ")
        terminal.wait_for("key limit window [limit window ...]|policy [BY LOG|GCRA [BURST burst]|FIXED] [PREFETCH ahead] [COST cost] [FULL]")
        terminal.type(f"{fresh('completes_and_hints')} 4 1h\r")
        reply = terminal.wait_for(f"6) (integer) {DEGRADED}")
        assert "1) (integer) 1" in reply and f"3) (integer) {admits(4) - 1}" in reply, reply
        terminal.wait_for(prompt)
        terminal.type("help RL.PEEK\r")
        shown = terminal.wait_for("summary: ")
        assert "RL.PEEK key limit window" in shown, shown


def benchmark():
    """redis-benchmark asks for the configuration first, and stops at an error."""
    command = ["redis-benchmark", "-p", str(PORT), "-q", "-n", "2000", "-c", "20", "-P", "16", "-r", "1000"]
    command += ["RL.CHECK", fresh("benchmark:__rand_int__"), "10", "1m"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=True, text=True)
    assert "requests per second" in done.stdout, done
    assert "rror" not in done.stdout + done.stderr, done


def reset_forgets():
    key = fresh("reset_forgets")
    cli("RL.CHECK", key, "4", "1h")
    assert cli("RL.RESET", key, fresh("unknown")) == b"1\n"
    assert_allowed(integers(cli("RL.CHECK", key, "4", "1h")), 4, 3)


TESTS = [
    one_shot,
    one_shot_in_resp3,
    formatted,
    as_json,
    piped,
    mass_insertion,
    errors,
    help_is_lines,
    repeated,
    inline,
    benchmark,
]
# While Redis is down there is nothing that could be reset.
if STORE != "down":
    TESTS.append(reset_forgets)

named = [(test.__name__, test) for test in TESTS]
named.append(("completes_and_hints", completes_and_hints))
named.append(("completes_and_hints in RESP3", lambda: completes_and_hints("-3")))
run(named)
