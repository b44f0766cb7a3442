# SPDX-License-Identifier: Apache-2.0
"""What can be timed: this engine and its peers, each behind `seconds(row)`: of a whole prompt, of one decode step, of one encoder run.

A row is "prefill:128", "decode:16" (sequences) or "encode:8x128" (texts and tokens).
"""
import json
import os
import resource
import statistics
import subprocess
import sys

import gguf
import onnx_model
import weights

HERE = os.path.dirname(os.path.abspath(__file__))
CONTEXT, TURNS = 32, 12  # of decode: tokens before the first step, steps of one timing
LLAMA_TYPES = {"f32": "F32", "bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}
TICK = os.sysconf("SC_CLK_TCK")


def parsed(row):
    """(kind, count, length)"""
    kind, _, size = row.partition(":")
    count, _, length = size.partition("x")
    return kind, int(count), int(length or 0)


def tokens_of(row):
    kind, count, length = parsed(row)
    return count * length if kind == "encode" else count


def processor_seconds(pid):
    """Of a running process."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def machine_seconds():
    """Processor time that anybody got, or the hypervisor took away."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def own_seconds():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
    return done.stdout


class Llama:
    """llama-bench, and llama-batched-bench for more than one sequence."""

    def __init__(self, options, precision):
        self.name, self.facts = f"llama.cpp {LLAMA_TYPES[precision]}", {}
        self.threads = str(options.threads)
        self.programs = options.llama
        self.file = gguf_file(options, precision)

    def live(self):
        return 0

    def stop(self):
        pass

    def program(self, name):
        return os.path.join(self.programs, name)

    def seconds(self, row):
        kind, count, _ = parsed(row)
        if kind == "decode" and count > 1:
            size = CONTEXT + TURNS
            lines = run([self.program("llama-batched-bench"), "-m", self.file, "-t", self.threads, "-c", str(count * size), "-b", "512",
                         "-ub", "512", "-npp", str(CONTEXT), "-ntg", str(TURNS), "-npl", str(count), "--output-format", "jsonl"])
            found = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
            return count / found[-1]["speed_tg"]
        sizes = ["-p", str(count), "-n", "0"] if kind == "prefill" else ["-p", "0", "-n", str(CONTEXT)]
        lines = run([self.program("llama-bench"), "-m", self.file, "-t", self.threads, *sizes, "-r", "3", "-o", "jsonl"])
        return tokens_of(row) / statistics.median(json.loads(lines.splitlines()[-1])["samples_ts"])


class Lines:
    """A process that answers a line with a line, kept between measurements; it sleeps meanwhile."""

    def __init__(self, name, command):
        self.name, self.facts = name, {}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self.read().get("version")

    def read(self):
        line = self.process.stdout.readline()
        found = json.loads(line) if line else {"error": "it ended"}
        if "error" in found:
            raise SystemExit(f"{self.name}: {found['error']}")
        return found

    def ask(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self.read()

    def seconds(self, row):
        kind, count, length = parsed(row)
        if kind == "decode":
            return self.ask(what=kind, batch=count, context=CONTEXT, turns=TURNS)["seconds"]
        command = {"what": kind, "tokens": length or count, "batch": count if length else 1}
        self.ask(**command)
        return self.ask(**command)["seconds"]

    def live(self):
        return processor_seconds(self.process.pid)

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


class Engine(Lines):
    """bench-engine; it measures the machine's limits beside."""

    def __init__(self, options, precision):
        self.name, self.facts = "fathom", {}
        self.process = subprocess.Popen([options.engine, "--lines", "--threads", str(options.threads), "--weights", precision,
                                         "--context", str(CONTEXT), options.model],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, row):
        self.process.stdin.write(row + "\n")
        self.process.stdin.flush()
        found = self.read()
        point = found["points"][0]
        self.facts = {"peak share": point["peak_share"], "memory share": point["memory_share"], "busy": point["busy"],
                      "peak": found["peak"], "bandwidth": found["bandwidth"]}
        return point["seconds"]


def made(path, make):
    """path, made by `make` under another name first."""
    if not os.path.exists(path):
        print(f"writing {os.path.basename(path)}", file=sys.stderr)
        part = os.path.join(os.path.dirname(path), "part-" + os.path.basename(path))
        make(part)
        os.replace(part, path)
    return path


def file_name(options, tail):
    return os.path.join(options.work, os.path.basename(os.path.normpath(options.model)) + tail)


def gguf_file(options, precision, depth=0):
    """The model for llama.cpp, pruned to `depth` if that is not 0."""
    kept = f"-{depth}" if depth else ""
    full = made(file_name(options, f"{kept}-F32.gguf"), lambda path: gguf.convert(options.model, path, depth))
    if precision == "f32":
        return full
    program, kind = os.path.join(options.llama, "llama-quantize"), LLAMA_TYPES[precision]
    return made(file_name(options, f"{kept}-{kind}.gguf"), lambda path: run([program, full, path, kind, str(options.threads)]))


def onnx_side(options, precision, graph):
    tail = f"-{graph}-{precision}.onnx"
    path = file_name(options, tail)
    if not os.path.exists(path):  # two files that name each other: no other name first
        print(f"writing {os.path.basename(path)}", file=sys.stderr)
        onnx_model.convert(options.model, path, graph, precision)
    facts = weights.facts_of(weights.folder.read_config(options.model))
    return Lines(f"ONNX Runtime {precision} {graph}", ["node", os.path.join(HERE, "onnx_run.js"), options.onnxruntime, path,
                                                       str(options.threads), json.dumps(facts)])


def torch_side(options, precision):
    return Lines(f"PyTorch {precision}", [sys.executable, os.path.join(HERE, "torch_run.py"), options.model, precision,
                                          str(options.threads)])


def sides(options, precision):
    """This engine first, then the peers that were given and have this precision."""
    kind = weights.facts_of(weights.folder.read_config(options.model))["kind"]
    found = [Engine(options, precision)]
    if options.llama and kind == "gpt2":
        found.append(Llama(options, precision))
    if options.onnxruntime and precision != "bf16":
        graphs = ["fused"] if precision == "int4" else ["plain", "fused"] + (["attention"] if kind == "roberta" else [])
        found += [onnx_side(options, precision, graph) for graph in graphs if graph in options.graphs.split(",")]
    if options.torch and precision in ("f32", "bf16"):
        found.append(torch_side(options, precision))
    return found
