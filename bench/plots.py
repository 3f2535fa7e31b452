"""The plots: what is swept, and how curves become SVG."""

import math
from dataclasses import dataclass, replace

import rows
from measure import MAX_WRONG_SHARE, measure, median
from rows import Side

ROUNDS = 3
CONNECTIONS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
PIPELINES = (1, 2, 4, 8, 16, 32, 64, 128)
RATES = (5_000, 10_000, 20_000, 30_000, 50_000, 80_000, 120_000, 200_000)
OPEN_LOOP_CONNECTIONS = 50

TITLES = {
    "connections": "Throughput, pipeline 1",
    "pipeline": "Throughput, 50 connections",
    "latency": f"Latency, open loop, {OPEN_LOOP_CONNECTIONS} connections",
}

SIDES = (
    Side(rows.tollgate, rows.CHECK, "Tollgate, allowed"),
    Side(rows.tollgate, rows.CHECK_DENIED, "Tollgate, denied"),
    Side(rows.direct, rows.SCRIPT, "plain script, direct"),
    Side(rows.haproxy, rows.SCRIPT, "plain script, HAProxy"),
)

RATE = "requests a second"
# Okabe and Ito's colours, which the colour-blind tell apart too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
WIDTH, HEIGHT = 860, 440
LEFT, RIGHT, TOP, BOTTOM = 80, 230, 40, 60


def draw(folder, settings):
    """Measures all curves, writes the plots into `folder`, and returns the curves."""
    folder.mkdir(exist_ok=True)
    settings = replace(settings, source="load", seconds=min(settings.seconds, 1.0))
    by_connections = sweep(SIDES, CONNECTIONS, lambda side, count: measure(side, count, 1, settings))
    by_pipeline = sweep(SIDES, PIPELINES, lambda side, depth: measure(side, 50, depth, settings))
    load = replace(settings, seconds=2 * settings.seconds)
    loaded = (SIDES[0], SIDES[2])
    by_rate = sweep(loaded, RATES, lambda side, rate: measure(side, OPEN_LOOP_CONNECTIONS, 1, load, rate=rate))

    latency = [
        Curve(f"{name}, {label}", colour, dash, [point(x, samples, metric) for x, samples in curve])
        for colour, (name, curve) in zip(COLOURS, by_rate.items())
        for label, metric, dash in (("p50", "p50_us", ""), ("p99", "p99_us", "7 3"), ("p99.9", "p999_us", "2 3"))
    ]
    late = "microseconds since the request was due"
    for name, text in (
        ("connections", svg(TITLES["connections"], "connections", RATE, throughput(by_connections))),
        ("pipeline", svg(TITLES["pipeline"], "pipeline depth", RATE, throughput(by_pipeline))),
        ("latency", svg(TITLES["latency"], "requests offered a second", late, latency, log_y=True)),
    ):
        (folder / f"{name}.svg").write_text(text)
    return {"connections": by_connections, "pipeline": by_pipeline, "rate": by_rate}


@dataclass(frozen=True)
class Curve:
    """A line of the plot."""

    name: str
    colour: str
    # As SVG's stroke-dasharray; empty for a solid line.
    dash: str
    points: list


@dataclass(frozen=True)
class Point:
    """A point of a curve. It is hollow where some of the replies were not as expected."""

    x: float
    y: float
    hollow: bool


def point(x, samples, metric):
    """The median of one metric."""
    wrong, replies = (sum(sample[name] for sample in samples) for name in ("wrong", "replies"))
    return Point(x, median(samples, metric), wrong > MAX_WRONG_SHARE * replies)


def throughput(curves):
    """Throughput of all sides."""
    return [
        Curve(name, colour, "", [point(x, samples, "rps") for x, samples in curve])
        for colour, (name, curve) in zip(COLOURS, curves.items())
    ]


def sweep(sides, points, sample):
    """Curves by side: pairs of a point and its samples. Rounds are interleaved."""
    curves = {side.name: [(point, []) for point in points] for side in sides}
    for _ in range(ROUNDS):
        for index, point in enumerate(points):
            for side in sides:
                curves[side.name][index][1].append(sample(side, point))
    return curves


def svg(title, x_label, y_label, curves, log_y=False):
    """Curves over a logarithmic x."""
    points = [point for curve in curves for point in curve.points]
    xs, ys = sorted({point.x for point in points}), [point.y for point in points]
    y_ticks = decades(min(ys), max(ys)) if log_y else steps(max(ys))
    x_at = scale(math.log(xs[0]), math.log(xs[-1]), LEFT, WIDTH - RIGHT)
    low, high = (math.log(y_ticks[0]), math.log(y_ticks[-1])) if log_y else (0, y_ticks[-1])
    y_at = scale(low, high, HEIGHT - BOTTOM, TOP)
    place_x = lambda x: x_at(math.log(x))
    place_y = lambda y: y_at(math.log(y) if log_y else y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(LEFT, 22, title, size=15),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x_label, anchor="middle"),
        text(18, (TOP + HEIGHT - BOTTOM) / 2, y_label, anchor="middle", turn=-90),
    ]
    for tick in y_ticks:
        y = place_y(tick)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(text(LEFT - 8, y + 4, short(tick), anchor="end"))
    for tick in xs:
        x, foot = place_x(tick), HEIGHT - BOTTOM
        parts.append(f'<line x1="{x:.1f}" y1="{foot}" x2="{x:.1f}" y2="{foot + 5}" stroke="#444"/>')
        parts.append(text(x, foot + 19, short(tick), anchor="middle"))
    parts.append(f'<path d="M{LEFT},{TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#444"/>')
    for index, curve in enumerate(curves):
        places = [(f"{place_x(point.x):.1f}", f"{place_y(point.y):.1f}", point.hollow) for point in curve.points]
        stroke = f'fill="none" stroke="{curve.colour}" stroke-width="2"'
        path = "L".join(f"{x},{y}" for x, y, _ in places)
        parts.append(f'<path d="M{path}" {stroke} stroke-dasharray="{curve.dash}"/>')
        for x, y, hollow in places:
            fill = "white" if hollow else curve.colour
            parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="{fill}" stroke="{curve.colour}"/>')
        start, y = WIDTH - RIGHT + 14, TOP + 14 + 20 * index
        parts.append(f'<path d="M{start},{y}h28" {stroke} stroke-dasharray="{curve.dash}"/>')
        parts.append(text(start + 34, y + 4, curve.name))
    return "\n".join([*parts, "</svg>"]) + "\n"


def scale(low, high, start, end):
    """A straight line from values to places."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def text(x, y, words, anchor="start", size=12, turn=0):
    turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#222"{turned}>{words}</text>'


def steps(highest):
    """From 0, four to ten round steps that reach beyond the highest value."""
    size = 10 ** math.floor(math.log10(highest))
    step = next(step for step in (size / 5, size / 2, size) if highest / step <= 8 or step == size)
    return [step * number for number in range(math.ceil(highest / step) + 1)]


def decades(lowest, highest):
    """Powers of ten that hold both values between them."""
    first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def short(value):
    """A number as a tick's label."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"
