"""What TLC is given: configurations, reachability checks, mutants."""

import dataclasses
import hashlib
import pathlib
import re
import tomllib

from . import Problem

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TLA = ROOT / "tla"

KINDS = ("small", "exhaustive", "deep")
PROPERTY_SECTIONS = {"INVARIANT": "INVARIANT", "INVARIANTS": "INVARIANT", "PROPERTY": "PROPERTY", "PROPERTIES": "PROPERTY"}
SECTIONS = {*PROPERTY_SECTIONS, "CONSTANT", "CONSTANTS", "SPECIFICATION", "INIT", "NEXT", "SYMMETRY", "VIEW",
            "CONSTRAINT", "CONSTRAINTS", "ACTION_CONSTRAINT", "ACTION_CONSTRAINTS"}


@dataclasses.dataclass
class Config:
    name: str
    spec: str
    kind: str       # one of KINDS
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
        """The text of the same configuration, with `name` as its only property."""
        kept, dropping = [], False
        for line in strip_comments(self.text).splitlines():
            words = line.split()
            if words and words[0] in SECTIONS:
                dropping = words[0] in PROPERTY_SECTIONS
            if not dropping:
                kept.append(line)
        return "\n".join(kept) + f"\n{kind} {name}\n"

    def checks_liveness(self):
        return bool(re.search(r"^SPECIFICATION\s+FairSpec", self.text, re.M))


def strip_comments(text):
    return re.sub(r"\\\*[^\n]*", "", text)


def load_config(path):
    text = path.read_text()
    head = dict(re.findall(r"^\\\*\s*(spec|kind|why):\s*(.+?)\s*$", text, re.M))
    missing = {"spec", "kind", "why"} - head.keys()
    if missing:
        raise Problem(f"{path.name} lacks the comment lines {sorted(missing)}")
    if head["kind"] not in KINDS:
        raise Problem(f"{path.name}: unknown kind {head['kind']}")
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
            raise Problem(f"{path.name} lacks {sorted(missing)}")
        tables.append({"name": path.stem, **table})
    return tables


def load_reach():
    return load_tables("reach", ("spec", "config", "property", "shows"))


def load_mutants():
    return load_tables("mutants", ("spec", "config", "find", "replace", "breaks", "story"))


def config_of(table, configs):
    config = configs.get(table["config"])
    if config is None or config.spec != table["spec"]:
        raise Problem(f"{table['name']}: no configuration {table['config']} of {table['spec']}")
    return config


def mutated(text, find, replace, name):
    """The specification `text` with its one place `find` replaced."""
    if text.count(find) != 1:
        raise Problem(f"{name} has {text.count(find)} places that read {find!r}; a mutant needs exactly one")
    return text.replace(find, replace)


# A measurement depends on these; comments do not count.

def fingerprint(config, *more):
    """Six hex digits of the specification, the configuration, and `more`."""
    texts = [(TLA / f"{config.spec}.tla").read_text(), config.text]
    code = [" ".join(strip_comments(re.sub(r"\(\*.*?\*\)", "", text, flags=re.S)).split()) for text in texts]
    return hashlib.sha256("\0".join([*code, *more]).encode()).hexdigest()[:6]


def config_inputs(configs):
    return {config.name: fingerprint(config) for config in configs}


def reach_inputs(tables, configs):
    return {t["name"]: fingerprint(config_of(t, configs), t["property"]) for t in tables}


def mutant_inputs(tables, configs):
    return {t["name"]: fingerprint(config_of(t, configs), t["find"], t["replace"], t["breaks"]) for t in tables}
