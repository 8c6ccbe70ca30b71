------------------------------- MODULE Lease -------------------------------
(***************************************************************************)
(* Leases: when a broker may believe, by its own clock and its own view of *)
(* the metadata, that a segment is still its own.                          *)
(*                                                                         *)
(* TIME.  The state lies at one instant of real time; Tick lets one unit   *)
(* of it pass.  Every node has a clock of its own, which in one unit goes  *)
(* on by Slow or by Fast, whichever does more harm: that is the drift.  In *)
(* the terms of design.md the true rate is (Slow+Fast)/2, so that with     *)
(* Slow = 1 and Fast = 2 the drift rho is 1/3, L units are 1.5*L of a true *)
(* clock, and                                                              *)
(*      L*(1-rho) is L*Slow on the clock of the broker that holds on, and  *)
(*      L*(1+rho) is L*Fast on the clock of the Raft leader that waits.    *)
(* Both are kept as time that is left, so no clock value ever grows.       *)
(* Nobody is forced to act before time passes: a pause, a delay or a       *)
(* message that is lost is a run in which the clock ticks and the one      *)
(* concerned does nothing.                                                 *)
(*                                                                         *)
(* WHAT IS ABSTRACT.  One segment, always owned by one of the brokers;     *)
(* `log` lists its owner after each Raft entry (a leader's first, empty    *)
(* entry repeats the owner).  Giving it away stands for BeginSeal plus     *)
(* the recovery.  Raft's elections are one step with a quorum of voters;   *)
(* what Raft itself guarantees (a new leader has every committed entry) is *)
(* taken for granted, what it does not (the fate of an uncommitted entry)  *)
(* is left open.                                                           *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
  L,            \* the length of a lease, in units of real time
  Slow, Fast,   \* how far a clock goes in one unit, at least and at most
  MaxTerm,      \* Raft terms: the first leader has term 1
  MaxGives,     \* times that a Raft leader gives the segment away
  MaxRestarts,  \* restarts of processes
  Writes,       \* TRUE: brokers accept writes and acknowledge them
  Calming       \* TRUE: at some time all trouble ends (used for liveness)

Node   == {"n1", "n2", "n3"}     \* all vote, each can be Raft leader
Broker == {"n1", "n2"}           \* these take leases and own the segment
Other(b) == IF b = "n1" THEN "n2" ELSE "n1"
None == "-"

Hold == L * Slow    \* a broker counts on its lease that long after t_send
Wait == L * Fast    \* a Raft leader waits that long after t_grant

VARIABLES
  log,       \* owner of the segment after each committed entry; entries that
             \* no broker's view can show any more are dropped from the front
  app,       \* app[b]: broker b has applied the log up to here
  term,      \* term[n]: newest Raft term that n has promised (durable)
  lead,      \* does n believe that it is the leader of that term?
  ready,     \* has n, as leader, committed an entry of its own term?
  last,      \* the last entry in n's log while it leads, without the pending one
  pend,      \* an entry in n's log that is not committed: a new owner, or None
  wait,      \* wait[n][b]: on n's clock, time until n as Raft leader may give
             \* away what b owns
  lease,     \* lease[b]: on b's clock, time left of its lease
  msg,       \* msg[b][n]: b's request to n and its grant, see Send
  op,        \* op[b]: b has accepted a write and not answered it
  badAck,    \* was a write acknowledged by one that is not the owner?
  gives, restarts, calm

vars == <<log, app, term, lead, ready, last, pend, wait, lease, msg, op, badAck, gives, restarts, calm>>

---------------------------------------------------------------------------
Max(a, b) == IF a > b THEN a ELSE b
Minus(a, b) == IF a > b THEN a - b ELSE 0
Majority(Q) == Cardinality(Q) >= 2
Owner == log[Len(log)]                 \* the truth
Owns(b)  == log[app[b]] = b            \* what b believes
Valid(b) == lease[b] > 0
NoMsg == [st |-> "none", age |-> 0, idx |-> 0]
NoWait == [b \in Broker |-> 0]
FullWait == [b \in Broker |-> Wait]

(* Can n, as leader of its term, still get a quorum to follow it?          *)
HasQuorum(n) == Majority({m \in Node : term[m] <= term[n]})

Init ==
  /\ log = <<"n1">>
  /\ app = [b \in Broker |-> 1]
  /\ term = [n \in Node |-> 1]
  /\ \E l \in Node : /\ lead = [n \in Node |-> n = l]
                     /\ wait = [n \in Node |-> IF n = l THEN FullWait ELSE NoWait]
                     /\ last = [n \in Node |-> IF n = l THEN 1 ELSE 0]
  /\ ready = [n \in Node |-> FALSE]
  /\ pend = [n \in Node |-> None]
  /\ lease = [b \in Broker |-> 0]
  /\ msg = [b \in Broker |-> [n \in Node |-> NoMsg]]
  /\ op = [b \in Broker |-> FALSE]
  /\ badAck = FALSE
  /\ gives = 0 /\ restarts = 0 /\ calm = FALSE

---------------------------------------------------------------------------
(* Time passes; every clock goes on at a rate of its own. *)

Age(m, d) == IF m.st = "none" \/ m.age + d >= Hold THEN NoMsg   \* of no use to anyone any more
                                                  ELSE [m EXCEPT !.age = @ + d]
Runs(n) == \/ \E b \in Broker : wait[n][b] > 0          \* does anybody look at n's clock?
           \/ n \in Broker /\ (lease[n] > 0 \/ \E m \in Node : msg[n][m].st # "none")
TickStep ==
  /\ \E d \in {f \in [Node -> {Slow, Fast}] : \A n \in Node : Runs(n) \/ f[n] = Slow} :
       /\ lease' = [b \in Broker |-> Minus(lease[b], d[b])]
       /\ msg' = [b \in Broker |-> [n \in Node |-> Age(msg[b][n], d[b])]]
       /\ wait' = [n \in Node |-> [b \in Broker |-> Minus(wait[n][b], d[n])]]
  /\ UNCHANGED <<log, app, term, lead, ready, last, pend, op, badAck, gives, restarts, calm>>

---------------------------------------------------------------------------
(* Raft, as far as leases see it *)

(* Entries before the oldest view are dropped; all indices shift.          *)
Reindex(a, lg) ==
  LET k == (IF a["n1"] < a["n2"] THEN a["n1"] ELSE a["n2"]) - 1 IN
  /\ log' = SubSeq(lg, k + 1, Len(lg))
  /\ app' = [b \in Broker |-> a[b] - k]
  /\ last' = [n \in Node |-> Minus(last[n], k)]
  /\ msg' = [b \in Broker |-> [n \in Node |-> [msg[b][n] EXCEPT !.idx = Minus(@, k)]]]

(* n no longer leads: what it knew as a leader is forgotten.               *)
Requests(ms, gone) ==
  [b \in Broker |-> [n \in Node |-> IF n \in gone /\ ms[b][n].st \in {"sent", "confirmed"} THEN NoMsg ELSE ms[b][n]]]

(* n becomes leader of a new term with the votes of Q.  Its log may hold   *)
(* an uncommitted entry of an earlier leader, or not.  It does not know    *)
(* what its predecessors granted, so it starts as if it had just granted   *)
(* everybody a lease.                                                      *)
EntryWait == FullWait
Elect(n) ==
  \E Q \in {S \in SUBSET Node : Cardinality(S) = 2}, p \in {None} \cup {pend[m] : m \in Node} :
    LET t == (CHOOSE x \in {term[m] : m \in Node} : \A m \in Node : term[m] <= x) + 1
        losers == {m \in Q : lead[m]} \cup {n}
    IN /\ n \in Q /\ t <= MaxTerm /\ ~calm
       /\ term' = [m \in Node |-> IF m \in Q THEN t ELSE term[m]]
       /\ lead' = [m \in Node |-> IF m = n THEN TRUE ELSE lead[m] /\ m \notin Q]
       /\ ready' = [m \in Node |-> ready[m] /\ m \notin Q]
       /\ last' = [m \in Node |-> IF m = n THEN Len(log) ELSE IF m \in Q THEN 0 ELSE last[m]]
       /\ pend' = [pend EXCEPT ![n] = p]
       /\ wait' = [m \in Node |-> IF m = n THEN EntryWait ELSE IF m \in Q THEN NoWait ELSE wait[m]]
       /\ msg' = Requests(msg, losers)
       /\ UNCHANGED <<log, app, lease, op, badAck, gives, restarts, calm>>

(* A node hears of a newer term.                                           *)
Hear(n) ==
  \E m \in Node :
    /\ term[m] > term[n]
    /\ term' = [term EXCEPT ![n] = term[m]]
    /\ lead' = [lead EXCEPT ![n] = FALSE]
    /\ ready' = [ready EXCEPT ![n] = FALSE]
    /\ last' = [last EXCEPT ![n] = 0]
    /\ wait' = [wait EXCEPT ![n] = NoWait]
    /\ msg' = Requests(msg, {n})
    /\ UNCHANGED <<log, app, pend, lease, op, badAck, gives, restarts, calm>>

(* The leader's next entry is committed: the one that is pending, or, when *)
(* it is new and has none, its first and empty one.  Whatever others have  *)
(* pending at this index is void from now on, or has become this entry; in *)
(* the log of a deposed leader it still takes up the index.                *)
Commit(n) ==
  /\ lead[n] /\ HasQuorum(n) /\ (ready[n] => pend[n] # None)
  /\ log' = Append(log, IF pend[n] # None THEN pend[n] ELSE Owner)
  /\ last' = [m \in Node |-> IF m = n \/ (lead[m] /\ pend[m] # None) THEN Len(log) + 1 ELSE last[m]]
  /\ pend' = [m \in Node |-> None]
  /\ ready' = [ready EXCEPT ![n] = TRUE]
  /\ UNCHANGED <<app, term, lead, wait, lease, msg, op, badAck, gives, restarts, calm>>

(* A broker applies the next entry.  If it loses the segment by that, it   *)
(* refuses what it has not answered.                                       *)
ApplyEntry(b) ==
  /\ app[b] < Len(log)
  /\ Reindex([app EXCEPT ![b] = @ + 1], log)
  /\ op' = [op EXCEPT ![b] = @ /\ log[app[b] + 1] = b]
  /\ UNCHANGED <<term, lead, ready, pend, wait, lease, badAck, gives, restarts, calm>>

---------------------------------------------------------------------------
(* metadata/lease.rs, the broker's side *)

(* b asks n for a lease.  msg[b][n] goes through these stages; its age is  *)
(* what b's clock has counted since the request left:                      *)
(*   "sent"       on its way, or waiting at n for a quorum round           *)
(*   "confirmed"  a round that began after it was sent found a quorum      *)
(*   "granted"    the grant is on its way, and may arrive many times       *)
(* A new request to the same node takes the place of the old one, which is *)
(* then lost.                                                              *)
Send(b, n) ==
  /\ lead[n]
  /\ msg' = [msg EXCEPT ![b][n] = [st |-> "sent", age |-> 0, idx |-> 0]]
  /\ UNCHANGED <<log, app, term, lead, ready, last, pend, wait, lease, op, badAck, gives, restarts, calm>>

(* The grant arrives.  It counts from the time when its request left, and  *)
(* only once b has applied the entry that it names.                        *)
Since(m) == m.age
MayCount(b, m) == m.idx <= app[b]
Receive(b, n) ==
  LET m == msg[b][n] IN
  /\ m.st = "granted" /\ MayCount(b, m)
  /\ lease' = [lease EXCEPT ![b] = Max(@, Hold - Since(m))]
  /\ UNCHANGED <<log, app, term, lead, ready, last, pend, wait, msg, op, badAck, gives, restarts, calm>>

(* A write (or a tail read) is accepted, and answered when it is durable   *)
(* (has been read); the lease is looked at both times.                     *)
MayAck(b) == Valid(b)
Accept(b) ==
  /\ Writes /\ Owns(b) /\ Valid(b) /\ ~op[b]
  /\ op' = [op EXCEPT ![b] = TRUE]
  /\ UNCHANGED <<log, app, term, lead, ready, last, pend, wait, lease, msg, badAck, gives, restarts, calm>>
Answer(b) ==
  /\ op[b]
  /\ op' = [op EXCEPT ![b] = FALSE]
  /\ badAck' = (badAck \/ (MayAck(b) /\ Owner # b))      \* if it may not: refused, not acknowledged
  /\ UNCHANGED <<log, app, term, lead, ready, last, pend, wait, lease, msg, gives, restarts, calm>>

---------------------------------------------------------------------------
(* metadata/lease.rs, the Raft leader's side *)

(* A quorum still follows n, after b's request was sent.  A leader that    *)
(* has not committed an entry of its own term yet answers nobody.          *)
RoundWorks(n) == HasQuorum(n) /\ ready[n]
Round(n, b) ==
  /\ lead[n] /\ msg[b][n].st = "sent" /\ RoundWorks(n)
  /\ msg' = [msg EXCEPT ![b][n].st = "confirmed"]
  /\ UNCHANGED <<log, app, term, lead, ready, last, pend, wait, lease, op, badAck, gives, restarts, calm>>

(* The grant is sent: perhaps long after the round, when n is not really   *)
(* the leader any more.  It names the last entry in n's log, committed or  *)
(* not.                                                                    *)
LastIndex(n) == last[n] + (IF pend[n] # None THEN 1 ELSE 0)
Grant(n, b) ==
  /\ lead[n] /\ msg[b][n].st = "confirmed"
  /\ msg' = [msg EXCEPT ![b][n].st = "granted", ![b][n].idx = LastIndex(n)]
  /\ wait' = [wait EXCEPT ![n][b] = Wait]
  /\ UNCHANGED <<log, app, term, lead, ready, last, pend, lease, op, badAck, gives, restarts, calm>>

(* The owner's lease has run out for sure: the segment goes to the other   *)
(* one.  The look at the wait and the entry in n's log are one step: were  *)
(* a grant to come between them, it would not name the entry.  (A leader   *)
(* that is deposed already may do it too: Raft drops the entry.)           *)
GiveAway(n) ==
  /\ lead[n] /\ ready[n] /\ HasQuorum(n) /\ pend[n] = None /\ last[n] = Len(log)
  /\ wait[n][Owner] = 0 /\ gives < MaxGives /\ ~calm
  /\ pend' = [pend EXCEPT ![n] = Other(Owner)]
  /\ gives' = gives + 1
  /\ UNCHANGED <<log, app, term, lead, ready, last, wait, lease, msg, op, badAck, restarts, calm>>

---------------------------------------------------------------------------
(* The process of n starts again.  A lease is lost with it, and the view   *)
(* may begin at an older entry.  If n was the Raft leader it is so again,  *)
(* in the same term and without an election; what it had granted it has    *)
(* forgotten, so it waits as a new leader does.                            *)
RestartWait(n) == IF lead[n] THEN FullWait ELSE NoWait
Restart(n) ==
  /\ restarts < MaxRestarts /\ ~calm
  /\ restarts' = restarts + 1
  /\ wait' = [wait EXCEPT ![n] = RestartWait(n)]
  /\ lease' = [b \in Broker |-> IF b = n THEN 0 ELSE lease[b]]
  /\ op' = [b \in Broker |-> op[b] /\ b # n]
  /\ msg' = [b \in Broker |-> [m \in Node |-> IF b = n \/ (m = n /\ msg[b][m].st = "confirmed") THEN NoMsg ELSE msg[b][m]]]
  /\ app' = [b \in Broker |-> IF b = n THEN 1 ELSE app[b]]
  /\ UNCHANGED <<log, term, lead, ready, last, pend, badAck, gives, calm>>

---------------------------------------------------------------------------
(* Calm (for liveness only): from some moment on there is a leader, there  *)
(* are no elections, restarts or giveaways, and everybody is prompt: time  *)
(* passes only when no protocol step is waiting.                           *)
TrueLeader(n) == lead[n] /\ \A m \in Node : term[m] <= term[n]
Calm == /\ Calming /\ ~calm /\ \E n \in Node : TrueLeader(n)
        /\ calm' = TRUE
        /\ UNCHANGED <<log, app, term, lead, ready, last, pend, wait, lease, msg, op, badAck, gives, restarts>>

(* b asks the leader again whenever time has passed since it last did: not *)
(* sooner, because a new request takes the place of the old one, and whose *)
(* every request overtakes the last grant never gets a lease.              *)
MayRenew(b, n) == TrueLeader(n) /\ (msg[b][n].st = "none" \/ (msg[b][n].st = "granted" /\ msg[b][n].age > 0))
Renew(b) == \E n \in Node : MayRenew(b, n) /\ Send(b, n)
Count(b) == \E n \in Node : Receive(b, n) /\ lease' # lease
Prompt == \/ \E n \in Node : Hear(n) \/ Commit(n) \/ \E b \in Broker : Round(n, b) \/ Grant(n, b)
          \/ \E b \in Broker : ApplyEntry(b) \/ Renew(b) \/ Count(b)
Tick == (calm => ~ENABLED Prompt) /\ TickStep

Ask(b, n) == (calm => MayRenew(b, n)) /\ Send(b, n)
Next ==
  \/ Tick \/ Calm
  \/ \E n \in Node : Elect(n) \/ Hear(n) \/ Commit(n) \/ GiveAway(n) \/ Restart(n)
  \/ \E b \in Broker : ApplyEntry(b) \/ Accept(b) \/ Answer(b)
  \/ \E b \in Broker, n \in Node : Ask(b, n)
  \/ \E b \in Broker, n \in Node : Receive(b, n) \/ Round(n, b) \/ Grant(n, b)

Spec == Init /\ [][Next]_vars

(* Fairness: in the calm every protocol step that waits is taken, and time *)
(* passes.  Nothing is asked before it.                                    *)
FairSpec == /\ Spec /\ WF_vars(Tick)
            /\ \A n \in Node : WF_vars(Hear(n)) /\ WF_vars(Commit(n))
            /\ \A b \in Broker : WF_vars(ApplyEntry(b)) /\ WF_vars(Renew(b)) /\ WF_vars(Count(b))
            /\ \A b \in Broker, n \in Node : WF_vars(Round(n, b)) /\ WF_vars(Grant(n, b))

---------------------------------------------------------------------------
TypeOK ==
  /\ \A b \in Broker : app[b] \in 1..Len(log) /\ lease[b] \in 0..Hold
  /\ \A n, m \in Node : (lead[n] /\ lead[m] /\ term[n] = term[m]) => n = m
  /\ \A n \in Node : lead[n] => last[n] <= Len(log)

(* S9: no two valid leases for one segment in real time: at no instant do  *)
(* two brokers both believe that they own it and that their lease runs.    *)
S9 == ~(\E b, c \in Broker : b # c /\ Owns(b) /\ Valid(b) /\ Owns(c) /\ Valid(c))

(* The stronger reason: whoever believes so is right.                      *)
S9Owner == \A b \in Broker : (Owns(b) /\ Valid(b)) => Owner = b

(* What was acknowledged after a look at the lease, was acknowledged by    *)
(* the owner.                                                              *)
S9Ack == ~badAck

(* In the calm every broker has a lease in the end, and keeps it.          *)
LeaseAgain == \A b \in Broker : calm ~> [](Valid(b))

(* Reachability: deliberately false *)
(* a lease runs while the Raft leader changes *)
R_NoChangeUnderLease == ~(\E b \in Broker, n \in Node : Valid(b) /\ Owns(b) /\ lead[n] /\ ready[n] /\ term[n] > 1)
(* a lease expires while a write is under way *)
R_NoExpiredWrite == ~(\E b \in Broker : op[b] /\ ~Valid(b) /\ Owner # b)
(* the segment has been given away, and the new owner has a running lease *)
R_NoNewOwner == ~(Owner = "n2" /\ Owns("n2") /\ Valid("n2") /\ app["n1"] < Len(log))
(* a deposed leader's late grant is counted *)
R_NoLateGrant == ~(\E b \in Broker, n, m \in Node : Valid(b) /\ msg[b][n].st = "granted" /\ lead[n] /\ lead[m] /\ ready[m] /\ term[m] > term[n])
(* an entry of a deposed leader is committed by a later one *)
R_NoInherited == ~(Owner = "n2" /\ gives = 1 /\ \E n \in Node : lead[n] /\ term[n] > 1 /\ ready[n] /\ wait[n]["n1"] > 0)
(* a grant waits for an entry to be applied *)
R_NoWaitingGrant == ~(\E b \in Broker, n \in Node : msg[b][n].st = "granted" /\ ~MayCount(b, msg[b][n]))
=============================================================================
