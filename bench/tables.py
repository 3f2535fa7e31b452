"""What is measured beside what: the tables and their rows."""

from dataclasses import dataclass

import rows
from rows import Side

# Of `--source`, and of rows by what others measure with.
LOAD, REDIS_BENCHMARK, MEMTIER = "load", "redis-benchmark", "memtier_benchmark"
POINTS = ((1, 1), (1, 16), (50, 1), (50, 16))


@dataclass(frozen=True)
class Bar:
    """What is to be reached: `bound` of a rival's throughput at least, or of its median latency or of the processor
    time of all its Redis servers a request at most; or so many microseconds of that at most, beside nobody."""

    metric: str
    bound: float
    unit: str = "x"

    def __str__(self):
        sign = "≥" if self.metric == "rps" else "≤"
        what = {"rps": "throughput", "p50_us": "p50", "redis_us": "Redis"}[self.metric]
        return f"{what} {sign} {self.bound:g} {self.unit}"

    def met(self, value):
        """Whether this ratio, or figure, reaches it."""
        return value >= self.bound if self.metric == "rps" else value <= self.bound


@dataclass(frozen=True)
class Row:
    """Tollgate's side, and those beside it."""

    name: str
    connections: int
    pipeline: int
    side: Side
    # Pairs of a side and its bars.
    rivals: tuple
    # Bars of Tollgate's side alone.
    bars: tuple = ()
    # What makes the load, whatever `--source` says.
    source: str = ""

    def sides(self):
        """All, Tollgate's first."""
        return [self.side, *(side for side, _ in self.rivals)]


CHECKED = Side(rows.tollgate, rows.CHECK, "Tollgate")
PLAIN = Side(rows.direct, rows.SCRIPT, "EVALSHA of the plain script")
GET = Side(rows.direct, rows.GET, "Redis GET")
GET_HOT = Side(rows.direct, rows.GET_HOT, "Redis GET")
PING = Side(rows.direct, rows.PING, "Redis PING")
CELL = Side(rows.redis_cell, rows.CL_THROTTLE, "redis-cell, asked directly")
CELL_NAME, CRAB_NAME = "redis-cell", "throttlecrab-server"


def tables(has):
    """The tables by their titles; `has` names what there is beyond Tollgate and Redis. A row may stand in several
    tables, and is measured once."""
    return {
        "The bars": bars(has),
        "RL.CHECK beside the plain script": [check(*point) for point in POINTS],
        "Other commands passed through": passed_through(),
        "Both sleeping, or both polling": alike(),
        "GCRA, and redis-cell's command": algorithms(has),
        "What a check costs": costs(has),
        "Shares": shares(),
        "As others measure": by_others(has),
        "RL.CHECK before a cluster, beside one node": clusters(),
    }


# Of these a line is about one side, and shows processor time.
COST_TABLES = ("GCRA, and redis-cell's command", "What a check costs", "Shares", "As others measure")
COST_TABLES += ("RL.CHECK before a cluster, beside one node",)


def faster(factor):
    """The bar of a rival that is to be outdone, or nearly."""
    return (Bar("rps", factor),)


def check(connections, pipeline):
    """An exact check beside the plain script."""
    to_reach = faster(1.5) if connections == 50 else ()
    return Row(f"check-c{connections}-p{pipeline}", connections, pipeline, CHECKED, ((PLAIN, to_reach),))


def bars(has):
    """What is promised."""
    ours = lambda setup, work: Side(setup, work, "Tollgate")
    plain_behind_haproxy = Side(rows.haproxy, rows.SCRIPT, "the plain script through HAProxy")
    plain_hot = Side(rows.direct, rows.SCRIPT_HOT, "the plain script on one key")
    denied = ours(rows.tollgate, rows.CHECK_DENIED)
    embedded = ours(rows.tollgate_embedded, rows.CHECK_EMBEDDED)
    crab = Side(rows.throttlecrab, rows.THROTTLE, "throttlecrab-server")
    crabs = ((crab, faster(3)),) if CRAB_NAME in has else ()
    by_policy, by_numbers = ours(rows.tollgate, rows.CHECK_POLICY), "RL.CHECK with limits in the command"
    return [
        check(50, 1),
        check(50, 16),
        Row("hot-c50-p16", 50, 16, ours(rows.tollgate, rows.CHECK_HOT), ((plain_hot, faster(4)),)),
        Row("denied-c50-p16", 50, 16, denied, ((GET_HOT, faster(1)),)),
        Row("denied-c50-p1", 50, 1, denied, ((PING, faster(0.9)),)),
        Row("fallback-c50-p16", 50, 16, ours(rows.tollgate_alone, rows.CHECK_DEGRADED), ((GET, faster(1)),)),
        Row("embedded-c50-p16", 50, 16, embedded, ((GET, faster(1)), *crabs)),
        Row("policy-c50-p16", 50, 16, by_policy, ((Side(rows.tollgate, rows.CHECK, by_numbers), faster(0.95)),)),
        Row("latency-c1-p1", 1, 1, CHECKED, ((plain_behind_haproxy, (Bar("p50_us", 1.1),)),)),
    ]


def passed_through():
    """Commands that are Redis's own."""
    table = []
    for work in (rows.GET, rows.SET):
        name = work.command[0]
        rivals = (
            (Side(rows.haproxy, work, f"{name} through HAProxy"), (Bar("rps", 1), Bar("p50_us", 1))),
            (Side(rows.direct, work, f"{name} direct"), ()),
        )
        for connections, pipeline in POINTS:
            row = f"{name.lower()}-c{connections}-p{pipeline}"
            table.append(Row(row, connections, pipeline, Side(rows.tollgate, work, "Tollgate"), rivals))
    return table


def alike():
    """Tollgate polls while one event follows another closely, HAProxy if told to: what is left when both do, or
    neither."""
    table = []
    hows = (("sleeping", rows.tollgate_sleeping, rows.haproxy), ("polling", rows.tollgate, rows.haproxy_polling))
    for name, work, asked, bar in (("get-c1-p1", rows.GET, rows.GET, 1), ("latency-c1-p1", rows.CHECK, rows.SCRIPT, 1.1)):
        for how, ours, theirs in hows:
            rival = Side(theirs, asked, f"{asked.name.split(',')[0]} through HAProxy, both {how}")
            rivals = ((rival, (Bar("p50_us", bar),)),)
            table.append(Row(f"{name}-{how}", 1, 1, Side(ours, work, "Tollgate"), rivals))
    return table


def algorithms(has):
    """Another algorithm than the log, and another limiter's command."""
    by_gcra = Side(rows.tollgate, rows.CHECK_GCRA, "Tollgate")
    by_log = Side(rows.tollgate, rows.CHECK, "Tollgate's log")
    cells = ((CELL, (Bar("redis_us", 1),)),) if CELL_NAME in has else ()
    table = [Row("gcra-c50-p16", 50, 16, by_gcra, ((by_log, faster(1.3)), *cells))]
    for pipeline, factor in ((16, 1), (1, 0.8)):
        cells = ((CELL, faster(factor)),) if CELL_NAME in has else ()
        throttle = Side(rows.tollgate, rows.CL_THROTTLE, "Tollgate")
        table.append(Row(f"throttle-c50-p{pipeline}", 50, pipeline, throttle, cells))
    return table


def costs(has):
    """Processor time, which is steadier than throughput where a machine is shared."""
    rivals = ((PLAIN, ()), *(((CELL, ()),) if CELL_NAME in has else ()))
    rivals += ((Side(rows.tollgate, rows.CHECK_GCRA, "Tollgate, BY gcra"), ()),)
    rivals += ((Side(rows.tollgate, rows.CHECK_FIXED, "Tollgate, BY fixed"), ()),)
    at_most = lambda us: (Bar("redis_us", us, "us"),)
    return [
        Row(f"cost-c50-p{pipeline}", 50, pipeline, CHECKED, rivals, bars=at_most(us))
        for pipeline, us in ((16, 4.7), (1, 9))
    ]


def shares():
    """One key that everybody asks for, of which Tollgate has asked ahead."""
    ours = Side(rows.tollgate, rows.CHECK_SHARES, "Tollgate")
    exact = Side(rows.tollgate, rows.CHECK_HOT_HOUR, "Tollgate without PREFETCH")
    seldom = (Bar("redis_us", 0.2, "us"),)
    return [
        Row("shares-c50-p16", 50, 16, ours, ((GET_HOT, faster(1)), (exact, ())), bars=seldom),
        Row("shares-c50-p1", 50, 1, ours, ((PING, faster(1)), (exact, ())), bars=seldom),
        Row("shares-c1", 1, 1, ours, ((exact, (Bar("p50_us", 0.6),)),)),
    ]


def by_others(has):
    """What those see who measure with the usual tools."""
    denied = Side(rows.tollgate, rows.CHECK_DENIED, "Tollgate")
    to_reach = {REDIS_BENCHMARK: (faster(1.2), faster(2.3))}
    table = []
    for source in (REDIS_BENCHMARK, MEMTIER):
        if source == MEMTIER and MEMTIER not in has:
            continue
        at_1, at_16 = to_reach.get(source, ((), ()))
        table += [
            Row(f"{source}-check-c50-p1", 50, 1, CHECKED, ((PLAIN, at_1),), source=source),
            Row(f"{source}-check-c50-p16", 50, 16, CHECKED, ((PLAIN, at_16),), source=source),
            Row(f"{source}-denied-c50-p16", 50, 16, denied, ((GET_HOT, ()),), source=source),
        ]
    return table


def clusters():
    """Three nodes, by one run of the script for all slots of a node or one for each."""
    one = Side(rows.tollgate, rows.CHECK, "one node")
    table = []
    for name, setup, what, bars_at_16 in (
        ("cluster", rows.tollgate_before_cluster, "a cluster of three", (Bar("redis_us", 1.25),)),
        ("slots", rows.tollgate_by_slot, "a cluster of three, a run for each slot", ()),
    ):
        for pipeline in (16, 1):
            side = Side(setup, rows.CHECK, what)
            rivals = ((one, bars_at_16 if pipeline == 16 else ()),)
            table.append(Row(f"{name}-c50-p{pipeline}", 50, pipeline, side, rivals))
    return table


# One of each kind, for seeing that all still works.
SMOKE = ("check-c50-p16", "hot-c50-p16", "denied-c50-p16", "fallback-c50-p16", "embedded-c50-p16", "get-c50-p16")
SMOKE += ("gcra-c50-p16", "throttle-c50-p16", "shares-c50-p16", "cluster-c50-p16", "slots-c50-p16")
SMOKE += tuple(f"{source}-check-c50-p16" for source in (REDIS_BENCHMARK, MEMTIER))
