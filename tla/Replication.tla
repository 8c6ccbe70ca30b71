---------------------------- MODULE Replication ----------------------------
\* A first stone; the specification follows.
EXTENDS Naturals
CONSTANT Node
VARIABLE hist
vars == hist
Init == hist = [n \in Node |-> 0]
Step(n) == hist[n] < 3 /\ hist' = [hist EXCEPT ![n] = @ + 1]
Next == \E n \in Node : Step(n)
Spec == Init /\ [][Next]_vars /\ \A n \in Node : WF_vars(Step(n))
TypeOK == \A n \in Node : hist[n] \in 0..3
Ends == <>(\A n \in Node : hist[n] = 3)
ReachTwo == \A n \in Node : hist[n] < 2
=============================================================================
