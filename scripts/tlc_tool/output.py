"""Reads what TLC printed: counts, complaints, and the trace of a violation as Python values."""

import dataclasses
import re


@dataclasses.dataclass
class Outcome:
    ok: bool = False                # finished without finding anything
    broken: str = ""                # the property that was violated
    error: str = ""                 # any other complaint of TLC
    trace: list = dataclasses.field(default_factory=list)
    generated: int = 0              # states, with repetitions
    distinct: int = 0
    depth: int = 0                  # steps of the longest of all shortest ways to a state
    seconds: float = 0.0            # CPU time of all threads, divided by the workers: the duration on as many idle cores
    wall_seconds: float = 0.0
    timed_out: bool = False


def number(text):
    return int(text.replace(",", ""))


def short_progress(line):
    """TLC's progress line, without its dates and rates."""
    depth = re.match(r"Progress\((\d+)\)", line)
    numbers = re.findall(r"([\d,]+) (states generated|distinct states found|states left|states checked)", line)
    text = ", ".join(f"{count} {what}" for count, what in numbers)
    return (f"depth {depth[1]}, " if depth else "") + text


def read_output(lines):
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


def read_trace(lines):
    """[(action name, {variable: value})]; at the end of an endless run, what it comes to, and None."""
    steps, i = [], 0
    while i < len(lines):
        line = lines[i]
        if back := re.match(r"(?:\d+: )?Back to state:? ?(\d+)?", line):
            steps.append((f"back to step {back[1] or line.split(':')[0]}, and so on for ever", None))
        elif re.match(r"(State )?\d+: Stuttering", line):
            steps.append(("nothing more ever happens", None))
        elif head := re.match(r"(?:State )?\d+: <(.*?)>?\s*$", line):
            body = []
            while i + 1 < len(lines) and lines[i + 1].strip():
                i += 1
                body.append(lines[i])
            steps.append((head[1].split()[0], read_state("\n".join(body))))
        i += 1
    return steps


def read_state(text):
    parts = re.split(r"^(?:/\\ )?(\w+) = ", text, flags=re.M)
    return {name: Value(value).read() for name, value in zip(parts[1::2], parts[2::2])}


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
            if self.take() != arrow:
                raise ValueError(f"no {arrow} after {key}")
            pairs[key] = self.read()
            if self.peek() == between:
                self.take()
        self.take()
        return pairs


# Members of sets have to be hashable: a dict among them becomes a tuple of ("=", key, value).

def freeze(value):
    if isinstance(value, dict):
        return tuple(("=", key, freeze(item)) for key, item in sorted(value.items(), key=str))
    if isinstance(value, tuple):
        return tuple(freeze(item) for item in value)
    return value


def is_record(value):
    return isinstance(value, tuple) and value and all(isinstance(i, tuple) and len(i) == 3 and i[0] == "=" for i in value)
