#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What HTTP costs on top of the engine, with one client on one kept connection; and what an idle server costs.

  bench/overhead.py --build build --model deploy/demo

Plain and streamed answers are asked for in turn by bench-overhead, a client in C that costs next to nothing. Medians of

  per request   wall time of a plain answer - (prefill_ms + decode_ms) of the same answer
  per token     (wall time of a streamed answer - wall time of the plain answer beside it) / tokens: all that streaming
                adds, what it takes from the engine's threads included

Standard library only. Exit status 1 if more than 0.3 ms per request or 20 us per token, or if the idle server uses more
than 1 % of a processor.
"""
import argparse
import os
import subprocess
import sys
import time

from serving import Server


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build", help="build folder, with fathom and bench/bench-overhead")
    parser.add_argument("--model", default="deploy/demo")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--depth", default="full")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--idle", type=float, default=10, help="seconds to watch the idle server")
    parser.add_argument("flags", nargs="*", help="further flags of fathom serve, after --")
    options = parser.parse_args()
    server = Server(f"{options.build}/fathom", options.model, *options.flags)
    try:
        while server.request("GET", "/readyz")[0] != 200:
            time.sleep(0.05)
        host, port = server.host.rsplit(":", 1)
        client = subprocess.run([f"{options.build}/bench/bench-overhead", host, port, options.depth, str(options.tokens),
                                 str(options.rounds)], check=False)
        time.sleep(0.2)
        before = processor_seconds(server.process.pid)
        time.sleep(options.idle)
        idle = processor_seconds(server.process.pid) - before
    finally:
        status = server.stop()
    print(f"idle: {idle:.2f} s of processor time in {options.idle:g} s")
    sys.exit(0 if client.returncode == 0 and idle <= 0.01 * options.idle and status == 0 else 1)


if __name__ == "__main__":
    main()
