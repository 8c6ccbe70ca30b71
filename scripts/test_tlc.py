"""Tests of scripts/tlc.py that need no Java: python3 -m unittest discover -s scripts"""

import re
import unittest

from tlc_tool import Problem, inputs, output, results, table

VIOLATION = """\
Error: Invariant S3 is violated.
Error: The behavior up to this point is:
State 1: <Initial predicate>
/\\ log = (n1 :> <<>> @@ n2 :> <<>>)
/\\ replies = {}
/\\ hist = <<[st |-> "Open", epoch |-> 1, replicas |-> {n1, n2}]>>
/\\ acked = 0

State 2: <ReplicaAppends line 160, col 5 to line 168, col 99 of module Replication>
/\\ log = (n1 :> <<>> @@ n2 :> <<1>>)
/\\ replies = {[epoch |-> 2, node |-> n2, kind |-> "Exact", len |-> 0]}
/\\ hist = << [st |-> "Open", epoch |-> 1, replicas |-> {n1, n2}],
   [st |-> "Sealing", epoch |-> 2, replicas |-> {n1, n2}] >>
/\\ acked = 1

12,345 states generated, 678 distinct states found, 90 states left on queue.
The depth of the complete state graph search is 7.
"""

LASSO = """\
Error: Temporal properties were violated.

Error: The following behavior constitutes a counter-example:

State 1: <Initial predicate>
x = 1

State 2: <Step line 1, col 1 to line 1, col 9 of module M>
x = 2

State 3: Stuttering
"""


def read(text):
    return output.read_output(text.splitlines())


class ReadingTlcsOutput(unittest.TestCase):
    def test_a_violation_has_its_name_counts_and_trace(self):
        outcome = read(VIOLATION)
        self.assertEqual((outcome.ok, outcome.broken, outcome.error), (False, "S3", ""))
        self.assertEqual((outcome.generated, outcome.distinct, outcome.depth), (12345, 678, 7))
        self.assertEqual([action for action, _ in outcome.trace], ["Initial", "ReplicaAppends"])
        self.assertEqual(outcome.trace[1][1]["log"], {"n1": (), "n2": (1,)})

    def test_a_trace_becomes_a_table_of_what_changed(self):
        start, step = table.trace_rows(read(VIOLATION).trace)
        self.assertEqual(start, ("1", "", "start", ""))
        self.assertEqual(step[:3], ("2", "n2", "replica appends"))
        self.assertIn("log[n2] +1", step[3])
        self.assertIn("replies +{epoch:2 kind:Exact len:0 node:n2}", step[3])
        self.assertIn("acked: 0 → 1", step[3])
        self.assertNotIn("n1", step[3].split(";")[0])

    def test_the_end_of_an_endless_run_is_told(self):
        outcome = read(LASSO)
        self.assertEqual(outcome.broken, "Temporal properties")
        self.assertEqual(table.trace_rows(outcome.trace)[-1], ("", "", "nothing more ever happens", ""))
        back = read(LASSO.replace("State 3: Stuttering", "Back to state 1: <Step line 1>"))
        self.assertEqual(table.trace_rows(back.trace)[-1][2], "back to step 1, and so on for ever")

    def test_success_is_only_what_tlc_calls_success(self):
        self.assertTrue(read("Model checking completed. No error has been found.").ok)
        broken_off = read("Progress(3) at 2026: 10 states generated, 5 distinct states found, 2 states left on queue.")
        self.assertFalse(broken_off.ok)
        self.assertTrue(broken_off.error)
        self.assertIn("Parse Error", read("***Parse Error***\nwhere").error)

    def test_values_of_every_kind(self):
        for text, value in {
            "-3": -3,
            '"a b"': "a b",
            "1..3": frozenset({1, 2, 3}),
            "{<<1, 2>>, <<>>}": frozenset({(1, 2), ()}),
            "[a |-> TRUE, b |-> (x :> {} @@ y :> {1})]": {"a": "TRUE", "b": {"x": frozenset(), "y": frozenset({1})}},
        }.items():
            self.assertEqual(output.Value(text).read(), value, text)


class TheFilesInTla(unittest.TestCase):
    def setUp(self):
        self.configs = inputs.load_configs()

    def test_every_configuration_names_a_specification_and_known_properties(self):
        for config in self.configs.values():
            spec = (inputs.TLA / f"{config.spec}.tla").read_text()
            self.assertTrue(config.properties(), config.name)
            for name in config.properties():
                self.assertRegex(spec, rf"(?m)^{name}\s*==", config.name)

    def test_every_mutant_changes_one_place_and_breaks_a_property_of_its_configuration(self):
        for mutant in inputs.load_mutants():
            config = inputs.config_of(mutant, self.configs)
            spec = (inputs.TLA / f"{config.spec}.tla").read_text()
            self.assertNotEqual(inputs.mutated(spec, mutant["find"], mutant["replace"], mutant["name"]), spec)
            self.assertIn(mutant["breaks"], config.properties(), mutant["name"])

    def test_a_mutant_whose_place_is_gone_is_a_problem(self):
        for text in ("nothing here", "twice twice"):
            with self.assertRaises(Problem):
                inputs.mutated(text, "twice", "once", "M.tla")

    def test_every_reachability_check_has_its_formula(self):
        for check in inputs.load_reach():
            config = inputs.config_of(check, self.configs)
            self.assertRegex((inputs.TLA / f"{config.spec}.tla").read_text(), rf"(?m)^{check['property']}\s*==", check["name"])

    def test_checking_only_one_property_drops_the_others(self):
        config = inputs.Config("c", "S", "small", "", "SPECIFICATION Spec\nINVARIANTS A\n  B\nPROPERTIES C\nCONSTANTS\n  N = 1\n")
        text = config.checking_only("B", "INVARIANT")
        self.assertEqual(re.sub(r"\s+", " ", text).strip(), "SPECIFICATION Spec CONSTANTS N = 1 INVARIANT B")


class ResultsAreOfTheseTexts(unittest.TestCase):
    """Who changes a specification has to run TLC again; and only what passed may be committed."""

    def assert_good(self, section, head, marks, good):
        rows = results.rows_before(section, head)
        stale = [name for name, mark in marks.items() if name not in rows or rows[name][-1] != mark]
        self.assertEqual(stale, [], f"tla/RESULTS.md lacks these, or has them of an older text; run scripts/tlc.py {section}")
        self.assertEqual([name for name in marks if not good(rows[name])], [], "these failed")

    def test_configurations(self):
        configs = [c for c in inputs.load_configs().values() if c.kind != "deep"]
        self.assert_good("run", results.RUN_HEAD, inputs.config_inputs(configs), lambda row: row[-2] == "passes")

    def test_reachability_checks(self):
        marks = inputs.reach_inputs(inputs.load_reach(), inputs.load_configs())
        self.assert_good("reach", results.REACH_HEAD, marks, lambda row: row[3] != "")

    def test_mutants(self):
        marks = inputs.mutant_inputs(inputs.load_mutants(), inputs.load_configs())
        self.assert_good("mutants", results.MUTANT_HEAD, marks, lambda row: row[3] != "")


if __name__ == "__main__":
    unittest.main()
