---------------------------- MODULE SegmentChain ----------------------------
(***************************************************************************)
(* One topic of Walrus, seen from its metadata: the chain of segments,     *)
(* how one segment ends and the next one opens (rollover and failover),    *)
(* and the position of one reader group.                                   *)
(*                                                                         *)
(* HOW TO READ THIS.  The VARIABLES below are the whole state of the       *)
(* cluster.  Init says what they are at the start.  Every "action" is one  *)
(* step that somebody can take: the lines that speak of plain variables    *)
(* are its condition, the lines with a prime (x' = ...) say what x is      *)
(* afterwards.  TLC tries every order of all possible steps; a pause of a  *)
(* process is simply a run in which others step and it does not.           *)
(*                                                                         *)
(* WHAT IS ABSTRACT.                                                       *)
(*  - Raft is one log of commands.  `metas` is the metadata after each     *)
(*    command; each node has applied a prefix (view[n]), so a view can be  *)
(*    stale but never wrong.  A proposal is in `flight`: it may be applied *)
(*    at once, much later, several times, or never.                        *)
(*  - The copies of one segment are three numbers, as Replication.tla      *)
(*    justifies: `asg` records were given an index by the leader, `stored` *)
(*    of them lie on a write quorum, `tail` of them are acknowledged.      *)
(*    After a recovery has fenced the replica set at a newer epoch, the    *)
(*    old leader stores nothing more on a quorum, but it may still learn   *)
(*    of what was stored before; the recovery returns some length that is  *)
(*    at least `stored` and at most `asg`, and stores it on a quorum.      *)
(*  - Leases are absent: any node may be suspected at any time.  Nothing   *)
(*    here may rest on them (Lease.tla looks at what they are good for).   *)
(*  - One topic: commands for two topics never touch the same data, and a  *)
(*    list in one command is the same as its entries one after another.    *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
  MaxSegments,    \* no rollover starts once the chain is this long
  MaxRecords,     \* records assigned in the whole run
  MaxCrashes,     \* crashes of processes in the whole run
  MaxSuspicions,  \* failovers of a process that is in fact alive
  MaxSeeks,       \* SEEKs of the reader group
  MaxInFlight,    \* proposals whose outcome is open at one time
  MoveBound,      \* how far a cursor may run ahead of its durable position:
                  \* the model's "200 ms of uncommitted moves" (0: no GETs)
  Fetching        \* TRUE: a FETCH reader follows the topic as well

(* Three nodes in a ring: the order in which leadership rotates.  The      *)
(* first leader is always n1; that uses up the symmetry there is.      *)
Node == {"n1", "n2", "n3"}
Quorum == 2
Nobody == [node |-> "-", run |-> 0]

VARIABLES
  metas,   \* the metadata after each applied command, oldest first.  What
           \* no node's view can show any more is dropped from the front.
  view,    \* view[n]: node n has applied up to metas[view[n]]
  flight,  \* proposals that may still be applied
  up,      \* nodes whose process runs
  run,     \* run[n]: which run of node n's process this is (= its crashes)
  seg,     \* per segment: its records and its leader's memory (see SegInit)
  high,    \* per generation: the first offset that GET has not delivered
  rd,      \* the FETCH reader: segment, index in it, records read so far
  sus,     \* suspicions used up
  seeker,  \* whose SEEK took effect last: it answers once its view shows that
  stale    \* has a command with an outdated basis ever changed anything?

vars == <<metas, view, flight, up, run, seg, high, rd, sus, seeker, stale>>

---------------------------------------------------------------------------
(* Small helpers *)

Max(a, b) == IF a > b THEN a ELSE b
RECURSIVE SumCounts(_, _)
SumCounts(chain, s) == IF s = 0 THEN 0 ELSE chain[s].count + SumCounts(chain, s - 1)
Base(m, s) == SumCounts(m.chain, s - 1)   \* offset of segment s's record 0
RECURSIVE SumAsg(_)
SumAsg(k) == IF k = 0 THEN 0 ELSE seg[k].asg + SumAsg(k - 1)

Now  == metas[Len(metas)]        \* the true metadata
M(n) == metas[view[n]]           \* what node n believes
Tip(m) == Len(m.chain)           \* the newest segment's number
Me(n) == [node |-> n, run |-> run[n]]
QuorumUp == Cardinality(up) >= Quorum

(* The Raft leader's choice when it fills in a leader or a recoverer: the  *)
(* next live node after x, x itself only when nobody else lives.           *)
Succ(n) == CASE n = "n1" -> "n2" [] n = "n2" -> "n3" [] n = "n3" -> "n1"
NextLive(x) == CASE Succ(x) \in up       -> Me(Succ(x))
                 [] Succ(Succ(x)) \in up -> Me(Succ(Succ(x)))
                 [] OTHER                -> Me(x)

(* A segment as metadata knows it.  e0 is the epoch it was opened at, the  *)
(* one that its leader writes under; epoch rises with every BeginSeal.     *)
Opened(who, e) == [st |-> "Open", ldr |-> who, rec |-> Nobody, e0 |-> e, epoch |-> e, count |-> 0]

(* A segment's records, and what its leader's process remembers of it      *)
(* (st, by, gen, pos are lost in a crash).  st: "none" nobody writes it,   *)
(* "open", "draining" no longer assigns, "sent" has sent its SealAndOpen.  *)
SegInit(e) == [asg |-> 0, stored |-> 0, tail |-> 0, fence |-> 0, end |-> 0, e0 |-> e,
               st |-> "none", by |-> Nobody, gen |-> 0, pos |-> 0, writers |-> {}]

Init ==
  /\ metas = <<[chain |-> <<Opened([node |-> "n1", run |-> 0], 1)>>, cur |-> [gen |-> 1, pos |-> 0]]>>
  /\ view = [n \in Node |-> 1]
  /\ flight = {}
  /\ up = Node
  /\ run = [n \in Node |-> 0]
  /\ seg = <<SegInit(1)>>
  /\ high = [g \in 1..(MaxSeeks + 1) |-> 0]
  /\ rd = [seg |-> 1, idx |-> 0, n |-> 0]
  /\ sus = 0
  /\ seeker = Nobody
  /\ stale = FALSE

---------------------------------------------------------------------------
(* metadata/state.rs: the pure state machine.  Every change is a           *)
(* compare-and-set on the newest segment's number and epoch.               *)

(* Cursors only advance, and only within their generation: a CommitCursors *)
(* that was overtaken by a later one must not take the position back.      *)
Advanced(cur, c) == IF c.gen = cur.gen /\ c.pos > cur.pos THEN c ELSE cur

Effect(m, c) ==
  LET s == Tip(m)
      g == m.chain[s]
  IN CASE c.t = "BeginSeal" /\ c.seg = s /\ c.epoch = g.epoch ->
            [m EXCEPT !.chain[s] = [g EXCEPT !.st = "Sealing", !.epoch = g.epoch + 1, !.rec = c.who]]
       [] c.t = "SealAndOpen" /\ c.seg = s /\ c.epoch = g.epoch ->
            [chain |-> Append([m.chain EXCEPT ![s] =
                          [g EXCEPT !.st = "Sealed", !.count = c.count, !.ldr = Nobody, !.rec = Nobody]],
                          Opened(c.who, g.epoch + 1)),
             cur |-> IF g.st = "Open" THEN Advanced(m.cur, c.cur) ELSE m.cur]
       [] c.t = "CommitCursors" /\ c.seg = s /\ c.epoch = g.epoch /\ g.st = "Open" ->
            [m EXCEPT !.cur = Advanced(m.cur, c.cur)]
       [] c.t = "Seek" /\ c.seg = s /\ c.epoch = g.epoch /\ g.st = "Open" /\ c.cur.gen = m.cur.gen ->
            [m EXCEPT !.cur = [gen |-> m.cur.gen + 1, pos |-> c.cur.pos]]
       [] OTHER -> m

(* Did the proposer know the newest segment, epoch and (where it matters)  *)
(* generation?  Only used to state S8; Effect must not need it.            *)
Basis(m, c) == /\ c.seg = Tip(m) /\ c.epoch = m.chain[Tip(m)].epoch
               /\ c.t \in {"CommitCursors", "Seek"} => c.cur.gen = m.cur.gen

(* Raft commits one proposal, which stays in flight: it may come again.    *)
ApplyOne(c) ==
  LET m == Effect(Now, c) IN
  /\ QuorumUp
  /\ m # Now
  /\ metas' = Append(metas, m)
  /\ seg' = IF Tip(m) > Len(seg) THEN Append(seg, SegInit(m.chain[Tip(m)].e0)) ELSE seg
  /\ high' = IF c.t = "Seek" THEN [high EXCEPT ![m.cur.gen] = m.cur.pos] ELSE high
  /\ seeker' = IF c.t # "Seek" THEN seeker
               ELSE IF c.who.node \in up /\ run[c.who.node] = c.who.run THEN c.who ELSE Nobody
  /\ stale' = (stale \/ ~Basis(Now, c))
  /\ UNCHANGED <<view, flight, up, run, rd, sus>>

ApplyKind(t) == \E c \in flight : c.t = t /\ ApplyOne(c)
Apply == \E c \in flight : ApplyOne(c)

(* A proposal is lost, or the last of its repetitions has had its turn.    *)
LoseOne(c) ==
  /\ flight' = flight \ {c}
  /\ UNCHANGED <<metas, view, up, run, seg, high, rd, sus, seeker, stale>>

Lose == \E c \in flight : LoseOne(c)
LoseIdle == \E c \in flight : Effect(Now, c) = Now /\ LoseOne(c)

Propose(c) == Cardinality(flight \cup {c}) <= MaxInFlight /\ c \notin flight /\ flight' = flight \cup {c}

BeginSeal(s, e, who) == [t |-> "BeginSeal", seg |-> s, epoch |-> e, who |-> who]
SealAndOpen(s, e, count, who, cur) ==
  [t |-> "SealAndOpen", seg |-> s, epoch |-> e, count |-> count, who |-> who, cur |-> cur]
CommitCmd(s, e, cur) == [t |-> "CommitCursors", seg |-> s, epoch |-> e, cur |-> cur]
SeekCmd(s, e, cur, who) == [t |-> "Seek", seg |-> s, epoch |-> e, cur |-> cur, who |-> who]
NoCursors == [gen |-> 0, pos |-> 0]    \* what a recoverer carries: nothing

---------------------------------------------------------------------------
(* Views, crashes, restarts *)

Least(f) == CHOOSE i \in {f[n] : n \in Node} : \A n \in Node : i <= f[n]
SetView(v) == LET low == Least(v) IN
  /\ metas' = SubSeq(metas, low, Len(metas))
  /\ view' = [n \in Node |-> v[n] - low + 1]

(* Node n applies the next command.  A leader that finds a new generation  *)
(* goes on from there.                                                     *)
Advance(n) ==
  /\ n \in up /\ view[n] < Len(metas)
  /\ SetView([view EXCEPT ![n] = @ + 1])
  /\ LET cur == metas[view[n] + 1].cur IN
     seg' = [s \in 1..Len(seg) |-> IF seg[s].by = Me(n) /\ seg[s].gen < cur.gen
                                   THEN [seg[s] EXCEPT !.gen = cur.gen, !.pos = cur.pos]
                                   ELSE seg[s]]
  /\ UNCHANGED <<flight, up, run, high, rd, sus, seeker, stale>>

Crashes == run["n1"] + run["n2"] + run["n3"]

(* The process dies: what its leaders remembered is gone.                  *)
Forget(g) == [g EXCEPT !.st = "none", !.by = Nobody, !.gen = 0, !.pos = 0]
Crash(n) ==
  /\ n \in up /\ Crashes < MaxCrashes
  /\ up' = up \ {n}
  /\ run' = [run EXCEPT ![n] = @ + 1]
  /\ seg' = [s \in 1..Len(seg) |-> IF seg[s].by = Me(n) THEN Forget(seg[s]) ELSE seg[s]]
  /\ seeker' = IF seeker = Me(n) THEN Nobody ELSE seeker
  /\ UNCHANGED <<metas, view, flight, high, rd, sus, stale>>

(* It comes back as a new run.  What it had applied need not be durable:   *)
(* its view may start again from an older prefix.                          *)
Restart(n) ==
  /\ n \notin up
  /\ up' = up \cup {n}
  /\ \E v \in 1..view[n] : SetView([view EXCEPT ![n] = v])
  /\ UNCHANGED <<flight, run, seg, high, rd, sus, seeker, stale>>

---------------------------------------------------------------------------
(* log/writer.rs: the leader of a segment *)

Segs == 1..(MaxSegments + MaxCrashes + MaxSuspicions)   \* TypeOK makes sure that there are never more
Led(s) == s <= Len(seg) /\ seg[s].by # Nobody    \* by a process that lives: a crash makes it Nobody
Ldr(s) == seg[s].by.node
Local == <<metas, view, up, run, rd, sus, seeker, stale>>   \* untouched by most leader steps

(* A process begins to lead a segment that metadata opened for this very   *)
(* run of it.  The opening names node *and run*: a name alone would let a  *)
(* restarted process take up what its former run has already written to.   *)
MayOpen(n, g) == g.st = "Open" /\ g.ldr = Me(n)
Open(n) ==
  LET s == Tip(M(n)) IN
  /\ n \in up /\ MayOpen(n, M(n).chain[s]) /\ seg[s].st = "none"
  /\ seg' = [seg EXCEPT ![s] = [@ EXCEPT !.st = "open", !.by = Me(n), !.writers = @ \cup {Me(n)},
                                         !.gen = M(n).cur.gen, !.pos = M(n).cur.pos]]
  /\ UNCHANGED <<Local, flight, high>>

(* A PUT is given the next index.  No look at the metadata: the process    *)
(* may have looked long ago and been paused since.                         *)
MayAssign(g) == g.st = "open"
Assign(s) ==
  /\ Led(s) /\ MayAssign(seg[s]) /\ SumAsg(Len(seg)) < MaxRecords
  /\ seg' = [seg EXCEPT ![s].asg = @ + 1]
  /\ UNCHANGED <<Local, flight, high>>

(* The next record reaches a write quorum (its leader may be dead by now): *)
(* impossible once a quorum has promised a newer epoch (Replication.tla).  *)
Unfenced(g) == g.fence <= g.e0
Store(s) ==
  /\ s <= Len(seg) /\ QuorumUp /\ seg[s].stored < seg[s].asg /\ Unfenced(seg[s])
  /\ seg' = [seg EXCEPT ![s].stored = @ + 1]
  /\ UNCHANGED <<Local, flight, high>>

(* The leader learns of it, and acknowledges.  This may come long after a  *)
(* fence, and after the seal: a late acknowledgement.                      *)
Ack(s) ==
  /\ Led(s) /\ seg[s].st \in {"open", "draining"} /\ seg[s].tail < seg[s].stored
  /\ seg' = [seg EXCEPT ![s].tail = @ + 1]
  /\ UNCHANGED <<Local, flight, high>>

(* Rollover, first step: full (in records or bytes), or below strength.    *)
Drain(s) == LET n == Ldr(s) IN
  /\ Led(s) /\ seg[s].st = "open" /\ seg[s].asg > 0 /\ Tip(M(n)) < MaxSegments
  /\ seg' = [seg EXCEPT ![s].st = "draining"]
  /\ UNCHANGED <<Local, flight, high>>

(* Second step: everything in flight is committed, so the count is known;  *)
(* the proposal carries it and the cursors.  The same action repeats the   *)
(* proposal (the Raft leader may fill in another next leader this time).   *)
ClosedFor(n, s) == Tip(M(n)) > s \/ M(n).chain[s].st # "Open"
SendSeal(s) == LET n == Ldr(s) IN
  /\ Led(s) /\ seg[s].st \in {"draining", "sent"} /\ ~ClosedFor(n, s)
  /\ seg[s].tail = seg[s].asg
  /\ Propose(SealAndOpen(s, seg[s].e0, seg[s].asg, NextLive(n), [gen |-> seg[s].gen, pos |-> seg[s].pos]))
  /\ seg' = [seg EXCEPT ![s].st = "sent"]
  /\ UNCHANGED <<Local, high>>

(* Instead of it: what is in flight does not commit, so it is recovered.   *)
StallSeal(s) == LET n == Ldr(s) IN
  /\ Led(s) /\ seg[s].st = "draining" /\ ~ClosedFor(n, s) /\ seg[s].tail < seg[s].asg
  /\ Propose(BeginSeal(s, seg[s].e0, NextLive(n)))
  /\ UNCHANGED <<Local, seg, high>>

(* The leader's own metadata shows that the segment is no longer its own:  *)
(* it answers NotLeader to whatever is not acknowledged yet, and is done.  *)
Leave(s) == LET n == Ldr(s) IN
  /\ Led(s) /\ ClosedFor(n, s)
  /\ seg' = [seg EXCEPT ![s] = Forget(seg[s])]
  /\ UNCHANGED <<Local, flight, high>>

---------------------------------------------------------------------------
(* log/seal.rs and metadata/lease.rs: failover *)

Holder(g) == IF g.st = "Open" THEN g.ldr ELSE g.rec   \* on whom it hangs now

(* Some node, as Raft leader with perhaps an old view, gives the newest    *)
(* segment to a recoverer: its holder is down, or only suspected to be.    *)
Suspect(p, real) ==
  LET s == Tip(M(p))
      g == M(p).chain[s]
      x == Holder(g).node
  IN /\ p \in up
     /\ IF real THEN x \notin up /\ sus' = sus
                ELSE x \in up /\ sus < MaxSuspicions /\ sus' = sus + 1
     /\ Propose(BeginSeal(s, g.epoch, NextLive(x)))
     /\ UNCHANGED <<metas, view, up, run, seg, high, rd, seeker, stale>>

(* A started process finds the newest segment hanging on an earlier run of *)
(* itself, as leader or as recoverer, and asks for BeginSeal.              *)
AskOwn(n) ==
  LET s == Tip(M(n))
      g == M(n).chain[s]
  IN /\ n \in up /\ Holder(g).node = n /\ Holder(g).run # run[n]
     /\ Propose(BeginSeal(s, g.epoch, Me(n)))
     /\ UNCHANGED <<Local, seg, high>>

(* The recoverer named at epoch e fences the set, finds an end, copies it  *)
(* forward to a write quorum, and proposes the seal.  One step here; what  *)
(* can happen in between is the subject of Replication.tla.                *)
(* It decides on an end ONCE in its epoch and repeats that proposal: were  *)
(* it to start again and find a longer copy, its copying would put records *)
(* on a write quorum that its first proposal still cuts off, and the old   *)
(* leader, slow to notice, could acknowledge them.                         *)
MayDecide(g, e) == g.fence < e
Recover(n) ==
  LET s == Tip(M(n))
      g == M(n).chain[s]
      Seal(c) == Propose(SealAndOpen(s, g.epoch, c, NextLive(g.ldr.node), NoCursors))
  IN /\ n \in up /\ g.st = "Sealing" /\ g.rec = Me(n)
     /\ \/ /\ QuorumUp /\ MayDecide(seg[s], g.epoch)
           /\ \E c \in seg[s].stored..seg[s].asg :
                /\ seg' = [seg EXCEPT ![s].stored = c, ![s].end = c, ![s].fence = g.epoch]
                /\ Seal(c)
        \/ seg[s].fence = g.epoch /\ Seal(seg[s].end) /\ seg' = seg
     /\ UNCHANGED <<Local, high>>

---------------------------------------------------------------------------
(* log/cursor.rs: the reader group's GET cursor, owned by the leader of    *)
(* the open segment, and log/reader.rs: FETCH                              *)

(* GET delivers the record at the cursor, if it is committed, and unless   *)
(* too much of the cursor's way is not durable yet (then: NotReady).       *)
Deliver(s) ==
  LET n == Ldr(s)
      g == seg[s] IN
  /\ Led(s) /\ g.st \in {"open", "draining"}
  /\ g.pos < Base(M(n), s) + g.tail
  /\ g.pos < M(n).cur.pos + MoveBound
  /\ seg' = [seg EXCEPT ![s].pos = @ + 1]
  /\ high' = [high EXCEPT ![g.gen] = Max(@, g.pos + 1)]
  /\ UNCHANGED <<Local, flight>>

CommitCursors(s) == LET n == Ldr(s) IN
  /\ Led(s) /\ seg[s].st \in {"open", "draining"} /\ ~ClosedFor(n, s) /\ seg[s].pos > M(n).cur.pos
  /\ Propose(CommitCmd(s, seg[s].e0, [gen |-> seg[s].gen, pos |-> seg[s].pos]))
  /\ UNCHANGED <<Local, seg, high>>

(* SEEK goes to the leader as well, which checks it against the tail.      *)
Seek(s) == LET n == Ldr(s) IN
  /\ Led(s) /\ seg[s].st = "open" /\ seg[s].gen <= MaxSeeks
  /\ \E p \in {0, Base(M(n), s) + seg[s].tail} :
       Propose(SeekCmd(s, seg[s].e0, [gen |-> seg[s].gen, pos |-> p], Me(n)))
  /\ UNCHANGED <<Local, seg, high>>

(* FETCH at any node: a sealed segment up to its count, any other up to    *)
(* the committed tail.                                                     *)
FetchEnd(p, s) == IF M(p).chain[s].st = "Sealed" THEN M(p).chain[s].count ELSE seg[s].tail
Fetch(p) ==
  /\ Fetching /\ p \in up /\ rd.seg <= Tip(M(p))
  /\ IF rd.idx < FetchEnd(p, rd.seg)
     THEN rd' = [rd EXCEPT !.idx = @ + 1, !.n = @ + 1]
     ELSE M(p).chain[rd.seg].st = "Sealed" /\ rd' = [rd EXCEPT !.seg = @ + 1, !.idx = 0]
  /\ UNCHANGED <<metas, view, flight, up, run, seg, high, sus, seeker, stale>>

---------------------------------------------------------------------------
LeaderStep(s) ==
  \/ Assign(s) \/ Ack(s) \/ Drain(s) \/ SendSeal(s) \/ StallSeal(s) \/ Leave(s)
  \/ Deliver(s) \/ CommitCursors(s) \/ Seek(s)

NodeStep(n) ==
  \/ Advance(n) \/ Open(n) \/ AskOwn(n) \/ Recover(n) \/ Fetch(n) \/ Crash(n) \/ Restart(n)
  \/ \E real \in BOOLEAN : Suspect(n, real)

Next ==
  \/ Apply \/ Lose
  \/ \E n \in Node : NodeStep(n)
  \/ \E s \in Segs : Store(s) \/ LeaderStep(s)

Spec == Init /\ [][Next]_vars

(***************************************************************************)
(* Fairness: what must not be put off for ever, so that liveness holds.    *)
(* WF (weak): a step that stays possible is taken at last.  SF (strong): a *)
(* step that is possible again and again is taken at last; needed only for *)
(* Raft, which may lose a proposal many times but not every time.          *)
(* Nothing is asked of: Crash, Suspect without cause, Assign, Drain, Seek, *)
(* Lose of a proposal that still could do something.  A crashed node comes *)
(* back only when otherwise no quorum is up.  "Some node does it" is       *)
(* enough everywhere: no node need be treated better than another.         *)
(***************************************************************************)
Fairness ==
  /\ SF_vars(ApplyKind("BeginSeal")) /\ SF_vars(ApplyKind("SealAndOpen")) /\ SF_vars(ApplyKind("CommitCursors"))
  /\ WF_vars(LoseIdle)
  /\ WF_vars(~QuorumUp /\ \E n \in Node : Restart(n))
  /\ WF_vars(\E n \in Node : Advance(n)) /\ WF_vars(\E n \in Node : Open(n))
  /\ WF_vars(\E n \in Node : AskOwn(n)) /\ WF_vars(\E n \in Node : Suspect(n, TRUE))
  /\ WF_vars(\E n \in Node : Recover(n)) /\ WF_vars(\E n \in Node : Fetch(n))
  /\ WF_vars(\E s \in Segs : Store(s))
  /\ WF_vars(\E s \in Segs : Ack(s)) /\ WF_vars(\E s \in Segs : SendSeal(s))
  /\ WF_vars(\E s \in Segs : Leave(s)) /\ WF_vars(\E s \in Segs : Deliver(s))
  /\ WF_vars(\E s \in Segs : CommitCursors(s))
FairSpec == Spec /\ Fairness

---------------------------------------------------------------------------
(* What must always be true (design §10) *)

TypeOK ==
  /\ view \in [Node -> 1..Len(metas)] /\ up \subseteq Node
  /\ Len(seg) = Tip(Now) /\ Len(seg) \in Segs
  /\ \A s \in 1..Len(seg) : seg[s].tail <= seg[s].stored /\ seg[s].stored <= seg[s].asg
  /\ \A i \in 1..Len(metas) : \A s \in 1..Tip(metas[i]) :
       (metas[i].chain[s].st = "Sealed") = (s < Tip(metas[i]))

SealedSegs == 1..(Tip(Now) - 1)
CommittedEnd == Base(Now, Tip(Now)) + seg[Tip(Now)].stored   \* first offset not on a write quorum

(* S1, at this level: a sealed end never reaches past what a quorum holds. *)
S1 == \A s \in SealedSegs : Now.chain[s].count <= seg[s].stored

(* S2: a sealed count never changes; the chain only grows.  (A property of *)
(* steps: it compares the metadata before and after.)                      *)
S2 == [][ /\ Tip(Now') >= Tip(Now)
          /\ \A s \in SealedSegs : Now'.chain[s] = Now.chain[s] ]_vars

(* S3: nothing is acknowledged at or past a sealed end.                    *)
S3 == \A s \in SealedSegs : seg[s].tail <= Now.chain[s].count

(* S4: one writable segment a topic: nothing can be added to a sealed one, *)
(* neither by its leader nor by what is still under way.                   *)
CanGrow(g) == Unfenced(g) /\ (g.stored < g.asg \/ MayAssign(g))
S4 == \A s \in SealedSegs : ~CanGrow(seg[s])

(* S5, at this level: one run of one process writes a segment, ever.       *)
(* Replication.tla takes this for granted.                                 *)
S5 == \A s \in 1..Len(seg) : Cardinality(seg[s].writers) <= 1

(* S6: FETCH sees the committed prefix only, and what it saw keeps its     *)
(* offset: the n records that it read are exactly the topic's first n.     *)
S6 == /\ rd.seg <= Tip(Now)
      /\ rd.n = Base(Now, rd.seg) + rd.idx
      /\ rd.idx <= seg[rd.seg].stored
      /\ rd.seg < Tip(Now) => rd.idx <= Now.chain[rd.seg].count

(* S7, at this level: epochs rise along the chain, and in every change.    *)
S7 == /\ \A s \in SealedSegs : Now.chain[s].epoch < Now.chain[s + 1].e0
      /\ \A i \in 1..(Len(metas) - 1) :
           metas[i].chain[Tip(metas[i])].epoch <= metas[i+1].chain[Tip(metas[i])].epoch

(* S8: stale metadata never wins.                                          *)
S8 == ~stale

(* S10.  Within a generation cursors only advance (a property of steps);   *)
(* they never pass the committed tail, nor a record that was not delivered *)
(* (nothing is skipped); what a failover can repeat is bounded; and a SEEK *)
(* that was answered is in force at the present leader.                    *)
S10Advance == [][ Now'.cur.gen > Now.cur.gen \/ (Now'.cur.gen = Now.cur.gen /\ Now'.cur.pos >= Now.cur.pos) ]_vars
S10Tail == /\ Now.cur.pos <= CommittedEnd
           /\ \A s \in 1..Len(seg) : seg[s].by # Nobody => seg[s].pos <= CommittedEnd
S10NoSkip == /\ Now.cur.pos <= high[Now.cur.gen]
             /\ \A s \in 1..Len(seg) : seg[s].by # Nobody => seg[s].pos <= high[seg[s].gen]
S10Repeat == high[Now.cur.gen] <= Now.cur.pos + MoveBound
S10Seek == LET g == seg[Tip(Now)] IN
  (seeker # Nobody /\ g.by # Nobody /\ Now.chain[Tip(Now)].st = "Open") => g.gen >= M(seeker.node).cur.gen

---------------------------------------------------------------------------
(* Liveness.  Writes, crashes and suspicions are finite in a model, so "X  *)
(* is always followed by Y" is the same as "again and again nothing waits  *)
(* for Y".  Said this way all four fit into one property, which TLC checks *)
(* much faster: Settles implies each of them.                              *)

(* L1: a sealing segment gets sealed.                                      *)
NothingSealing == Now.chain[Tip(Now)].st = "Open"
L1 == []<>NothingSealing

(* L2: a write that was given an index is answered: acknowledged, refused  *)
(* when the leader leaves, or its connection is cut by the leader's crash. *)
AllAnswered == \A s \in 1..Len(seg) : seg[s].tail = seg[s].asg \/ seg[s].by = Nobody
L2 == []<>AllAnswered

(* L3: a rollover once begun completes, and the next leader takes over: the *)
(* newest segment is led by a live process in the end.                     *)
RolledOver == /\ \A s \in 1..Len(seg) : seg[s].st \notin {"draining", "sent"}
              /\ NothingSealing /\ seg[Tip(Now)].by \in {Me(n) : n \in up}
L3 == []<>RolledOver

(* L4: readers catch up: FETCH with everything acknowledged or sealed, the *)
(* group's durable cursor as well.                                         *)
AckedEnd == Base(Now, Tip(Now)) + seg[Tip(Now)].tail
CaughtUp == (Fetching => rd.n = AckedEnd) /\ (MoveBound > 0 => Now.cur.pos = AckedEnd)
L4 == []<>CaughtUp

Settles == []<>(NothingSealing /\ AllAnswered /\ RolledOver /\ CaughtUp)

(***************************************************************************)
(* Reachability: deliberately false.  TLC must find a run that breaks each *)
(* of them, else the interesting cases are never explored.                 *)
(***************************************************************************)
(* a failover: a segment was ended by a recovery with records in it *)
R_NoFailover == ~(\E s \in SealedSegs : seg[s].fence > 0 /\ Now.chain[s].count > 0)
(* an old leader acknowledges after the seal *)
R_NoLateAck == [][ \A s \in SealedSegs : seg'[s].tail = seg[s].tail ]_vars
(* two different SealAndOpen for the same segment are under way at once *)
R_NoRepeatedSeal == ~(\E c, d \in flight : c # d /\ c.t = "SealAndOpen" /\ d.t = "SealAndOpen" /\ c.seg = d.seg)
(* a leader's SealAndOpen is still under way after a recovery has won *)
R_NoLateLoser == ~(\E c \in flight : c.t = "SealAndOpen" /\ c.cur # NoCursors /\ c.seg < Tip(Now) /\ seg[c.seg].fence > 0)
(* a recovery seals more than was ever acknowledged *)
R_NoLongerEnd == ~(\E s \in SealedSegs : Now.chain[s].count > seg[s].tail)
(* an old leader still assigns in a segment that is sealed *)
R_NoStaleAssign == ~(\E s \in SealedSegs : seg[s].st = "open" /\ seg[s].asg > Now.chain[s].count)
(* a segment is opened for a run that is already dead *)
R_NoDeadLeader == ~(Now.chain[Tip(Now)].st = "Open" /\ Now.chain[Tip(Now)].ldr.run # run[Now.chain[Tip(Now)].ldr.node])
(* after a failover the new leader's cursor is behind what was delivered *)
R_NoRepeat == ~(\E s \in 2..Len(seg) : seg[s].by # Nobody /\ seg[s].pos < high[seg[s].gen])
(* a leader goes on delivering in an old generation *)
R_NoOldGeneration == ~(\E s \in 1..Len(seg) : seg[s].by # Nobody /\ seg[s].gen < Now.cur.gen /\ seg[s].pos > 0)
(* leadership goes once round the ring without any failover *)
R_NoRotation == ~(Tip(Now) = 3 /\ seg[3].by = [node |-> "n3", run |-> 0] /\ seg[1].fence = 0 /\ seg[2].fence = 0)
=============================================================================
