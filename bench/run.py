"""Measure speed and weight: `make bench`, or `python bench/run.py [ROW ...]`.

    P4   an SDK plugin through the server, as a share of the same plugin over bare pipes
    P5   chunks per second of server CPU, a plugin that costs nothing
    P6   from the plugin's write to the client's read at 1,000 chunks a second
    P7   memory of silent streams
    P10  kill -9 of a plugin under 20 streams
    P11  new calls per second, one chunk each
    P14  calls that only compute, in one instance and in two

Server CPU is that of api and host, plugins apart. Load and server share the machine: compare
figures of one run only. ``--json FILE`` keeps them.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from bare_pipes import bare_seconds
from load import Streams, calls, median, percentile, request
from server import Server

PLUGINS = Path(__file__).resolve().parent / "plugins"
SIZES = {"100 B": 100, "1 KB": 1000, "64 KB": 64000}
type Row = tuple[str, str, str]


class Bench:
    """One server, one costless plugin, all rows."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.plugin = server.install(PLUGINS / "producer")
        self.one(count=1)

    def one(self, **parameters: object) -> bytes:
        """A request; sent once to see that it works."""
        return request(self.server.target, self.plugin, dict(parameters))

    def p4(self) -> list[Row]:
        """The whole way against the plugin alone, in turns, on the same machine."""
        ticker = self.server.install(PLUGINS / "ticker")
        rows = []
        for name, size, number in (
            ("100 B", 100, 1),
            ("100 B", 100, 10),
            ("100 B", 100, 100),
            ("1 KB", 1000, 100),
            ("64 KB", 64000, 10),
        ):
            each = (20_000 if size < 10_000 else 2_000) // number
            share = median(lambda a=size, b=number, c=each: self._share(ticker, a, b, c))  # type: ignore[misc]
            rows.append(("P4", f"share of bare pipes, {name} x {number}", f"{share:.2f}"))
        return rows

    def _share(self, plugin: str, size: int, streams: int, each: int) -> float:
        parameters = {"count": each, "size": size}
        one = request(self.server.target, plugin, parameters, provider="ticker")
        load = Streams(self.server.target)
        through = load.run([one] * streams)
        if load.chunks != each * streams:
            raise SystemExit(f"{load.chunks} of {each * streams} chunks: {load.said}")
        return bare_seconds(self.server, plugin, parameters, streams) / through

    def p5(self) -> list[Row]:
        """Chunks per CPU second, by size and number of streams."""
        rows = []
        for name, size in SIZES.items():
            for number in (1, 10, 100, 1000):
                if size > 10000 and number > 100:
                    continue
                total = 400_000 if size < 1000 else 200_000 if size < 10000 else 6_000
                rate = median(lambda n=number, s=size, t=total: self._flood(n, s, t))  # type: ignore[misc]
                rows.append(("P5", f"chunks per CPU second, {name} x {number}", f"{rate:,.0f}"))
        return rows

    def _flood(self, streams: int, size: int, total: int) -> float:
        each = max(1, total // streams)
        load = Streams(self.server.target)
        before = self.server.cpu()
        load.run([self.one(count=each, size=size)] * streams)
        spent = self.server.cpu() - before
        if load.chunks != each * streams or load.errors:
            raise SystemExit(f"{load.chunks} of {each * streams} chunks: {load.said}")
        return load.chunks / max(spent, 0.01)

    def p6(self) -> list[Row]:
        """Latency at 1,000 chunks a second over all streams."""
        rows = []
        for number in (1, 10, 100):
            load = Streams(self.server.target)
            before = self.server.cpu()
            load.run([self.one(rate=1000 / number, count=4000 // number)] * number, timed=True)
            cpu = (self.server.cpu() - before) / max(1, load.chunks) * 1e6
            p50, p99 = percentile(load.latencies, 0.5), percentile(load.latencies, 0.99)
            text = f"{p50:.0f} / {p99:.0f} us, {cpu:.0f} us CPU"
            rows.append(("P6", f"write to read p50 / p99, {number} streams", text))
        return rows

    def p7(self) -> list[Row]:
        """Memory and CPU of streams that say one thing and then nothing."""
        rows = []
        for number in (1000, 5000):
            before, spent = self.server.memory(), self.server.cpu()
            load = Streams(self.server.target)
            held = []
            for _ in range(number):
                connection = load.connect()
                connection.sendall(self.one(hold=True))
                held.append(connection)
            for connection in held:
                connection.recv(65536)
            each = (self.server.memory() - before) / number / 1024
            cpu = (self.server.cpu() - spent) / number * 1e6
            rows.append(
                ("P7", f"{number} silent streams, each", f"{each:.1f} KiB, {cpu:.0f} us CPU")
            )
            for connection in held:
                connection.close()
            time.sleep(3)
        return rows

    def p10(self) -> list[Row]:
        """A plugin is killed under 20 streams."""
        load = Streams(self.server.target)
        held = [load.connect() for _ in range(20)]
        for connection in held:
            connection.sendall(self.one(hold=True))
            connection.recv(65536)
        killed = time.monotonic()
        for pid in self.server.plugin_pids():
            os.kill(pid, signal.SIGKILL)
        texts = []
        for connection in held:
            connection.settimeout(30)
            texts.append(connection.recv(65536))
            connection.close()
        ended = (time.monotonic() - killed) * 1000
        typed = sum(b"PluginDied" in text for text in texts)
        Streams(self.server.target).run([self.one(count=1)])
        again = (time.monotonic() - killed) * 1000
        return [
            ("P10", "kill -9 under 20 streams: all ended", f"{ended:.0f} ms, {typed} typed"),
            ("P10", "next call answered", f"{again:.0f} ms after the kill"),
        ]

    def p11(self) -> list[Row]:
        """Short calls on keep-alive connections."""
        rows = []
        for number in (1, 16, 64):
            before, seconds = self.server.cpu(), 4.0
            done = calls(self.server.target, self.one(count=1), number, seconds)
            cpu = (self.server.cpu() - before) / max(1, done) * 1e6
            text = f"{done / seconds:,.0f} calls/s, {cpu:.0f} us CPU"
            rows.append(("P11", f"new calls, {number} connections", text))
        return rows

    def p14(self) -> list[Row]:
        """The same plugin under two names, of which one runs in two instances."""
        rates = {}
        for name in ("ticker", "pair"):
            plugin = self.server.install(named(PLUGINS / "ticker", name, self.server.home.parent))
            one = request(
                self.server.target,
                plugin,
                {"size": 1, "count": 1, "work": 1000},
                provider="ticker",
            )
            Streams(self.server.target).run([one] * 2)
            time.sleep(3)  # until the second instance is up
            rates[name] = 16 / Streams(self.server.target).run([one] * 16)
        text = f"{rates['ticker']:.1f} and {rates['pair']:.1f} calls/s"
        ratio = rates["pair"] / rates["ticker"]
        return [("P14", "calls that only compute, 1 and 2 instances", f"{text}: {ratio:.2f} x")]


def named(folder: Path, name: str, scratch: Path) -> Path:
    """A copy of a plugin's folder under another name."""
    copy = scratch / name
    shutil.copytree(folder, copy)
    manifest = copy / "manifest.yaml"
    text = re.sub(r"(?m)^name: .*$", f"name: {name}", manifest.read_text(), count=1)
    manifest.write_text(text)
    return copy


def main(arguments: list[str]) -> int:
    """Run the rows that were named, all without a name."""
    out = arguments[arguments.index("--json") + 1] if "--json" in arguments else ""
    wanted = [one.lower() for one in arguments if one.upper().startswith("P")]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        server = Server(Path(folder) / "home")
        try:
            bench = Bench(server)
            for name in ("p4", "p5", "p6", "p7", "p10", "p11", "p14"):
                if not wanted or name in wanted:
                    for row in getattr(bench, name)():
                        rows.append(row)
                        print(f"{row[0]:4} {row[1]:48} {row[2]}", flush=True)
        finally:
            server.stop()
    if out:
        Path(out).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
