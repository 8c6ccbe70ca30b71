"""Shows a trace as a short table: step, actor, what it did, what changed."""

import re

from .output import is_record


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
