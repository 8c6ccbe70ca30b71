---------------------------- MODULE Replication ----------------------------
(***************************************************************************)
(* ONE SEGMENT of a topic: how its records reach the replicas, and how it  *)
(* is sealed at the right length, whatever breaks meanwhile.               *)
(*                                                                         *)
(* One node, the leader, assigns indices 1, 2, 3.. to records and sends    *)
(* them to the replica set (itself included). A record is acknowledged to  *)
(* the producer as soon as W of the set have stored it. The segment ends   *)
(* in one of two ways:                                                     *)
(*                                                                         *)
(*   rollover  the leader stops, waits for what is in flight, and asks the *)
(*             metadata (Raft) to close the segment: SealAndOpen.          *)
(*   failover  somebody else asks for BeginSeal. That makes a new epoch    *)
(*             and names a recoverer, which fences the replicas (they      *)
(*             promise to refuse everything older and tell their length),  *)
(*             takes the longest length as the end, copies the tail        *)
(*             forward until W nodes have it, and asks for SealAndOpen.    *)
(*                                                                         *)
(* Both may happen at the same time, several recoverers may be at work,    *)
(* and each of them may be long dead without knowing it.                   *)
(*                                                                         *)
(* HOW TO READ THIS. A behaviour is a sequence of states. `Next` at the    *)
(* end lists the steps that are possible; TLC tries every order of them.   *)
(* In a step, x' is the value of variable x afterwards. Pauses need no     *)
(* step of their own: any actor may simply not move for as long as it      *)
(* likes, while all others do.                                             *)
(*                                                                         *)
(* THE NETWORK. A message that was ever sent can be delivered at any later *)
(* time, any number of times, in any order, or never. So messages are sets *)
(* that only grow (`sent`, `replies`, `props`), and "the leader knows that *)
(* n has stored k" is just "n once said so" (`acks`).                      *)
(*                                                                         *)
(* WHO ELSE. Who may lead, rotation and the chain of segments are in       *)
(* SegmentChain.tla, the leases in Lease.tla. Nothing here relies on a     *)
(* lease: BeginSeal may come at any moment, with or without a reason.      *)
(***************************************************************************)
EXTENDS Integers, Sequences, FiniteSets, TLC

CONSTANTS
    Node,           \* all nodes
    ReplicaSet,     \* the nodes that the segment names ("S"); fixed while it is not sealed
    Leader,         \* the one of them that writes
    W,              \* how many of the set must store a record before it is acknowledged
    Synced,         \* TRUE: the synced tier; FALSE: the page-cache tier
    MaxRecords,     \* bounds, so that there are finitely many states: records ...
    MaxEpoch,       \*   ... epochs (1 is the leader's; each BeginSeal makes the next) ...
    Reader,         \* nodes where somebody reads
    Crasher,        \* nodes whose process may crash alone
    MaxCrashes,     \*   ... crashes of a process, or of a machine in the synced tier ...
    MaxLosses,      \*   ... and lost copies: disks, or machines in the page-cache tier
    LateFaults      \* TRUE: faults strike after the seal too

ASSUME Leader \in ReplicaSet /\ ReplicaSet \subseteq Node
ASSUME W = (Cardinality(ReplicaSet) \div 2) + 1 \/ W = Cardinality(ReplicaSet)

VARIABLES
  \* --- metadata: the segment's entries in the Raft log. A node's view is always some prefix of it.
    hist,           \* Open(1), then any number of Sealing(e), then at most one Sealed
    props,          \* SealAndOpen proposals ever sent; each may be applied late, or never
  \* --- each node's disk and page cache
    log,            \* log[n]: its records of this segment. A record's bytes are named by the run that wrote them
    flushed,        \* flushed[n]: how many of them a machine crash cannot take (synced tier only, else 0)
    promised,       \* promised[n]: the newest epoch that it has promised; always durable
    doubt,          \* doubt[n]: the durable in-doubt mark
    wiped,          \* wiped[n]: it came back with another disk id than the one that the set names
    rebooted,       \* rebooted[n]: the boot id that its disk records is not the kernel's
  \* --- each node's process
    up,             \* up[n]: it runs and serves
    mode,           \* the leader: "writing", "proposed" (it has sent SealAndOpen) or "gone" (that run is dead)
    run,            \* 1: the run of the leader's process that opened the segment; 2: a later one
  \* --- messages
    sent,           \* Append messages: [at, run]
    acks,           \* acks[n]: the highest "I have stored up to here" that n ever sent to the leader
    replies,        \* answers to recoverers: [epoch, node, kind, len]
  \* --- what clients have been told
    acked,          \* the leader has acknowledged records 1..acked; that is the committed tail
    seen,           \* some reader has seen records 1..seen
  \* --- bookkeeping of the faults
    crashes,
    losses,         \* losses ever
    lost            \* nodes whose copy is lost now

metadata == <<hist, props>>
disks    == <<log, flushed, promised, doubt, wiped, rebooted>>
process  == <<up, mode, run>>
messages == <<sent, acks, replies>>
clients  == <<acked, seen>>
faults   == <<crashes, losses, lost>>
vars     == <<metadata, disks, process, messages, clients, faults>>

----------------------------------------------------------------------------
\* Words

Max(numbers) == CHOOSE x \in numbers : \A y \in numbers : y <= x
Larger(a, b) == IF a > b THEN a ELSE b
Smaller(a, b) == IF a < b THEN a ELSE b

Now      == hist[Len(hist)]                       \* what the metadata says now
Sealed   == Now.st = "Sealed"

\* The committed tail (its length): what is acknowledged, and everything below the end once the segment is sealed.
Committed == IF Sealed THEN Now.count ELSE acked

\* The highest index that the leader's present run has given out.
Assigned == LET mine == {m.at : m \in {x \in sent : x.run = run}}
            IN  IF mine = {} THEN Len(log[Leader]) ELSE Max(mine)

\* A negative answer ("I have no more than this") is needed from so many that every W nodes include one of them.
NeedExact == Cardinality(ReplicaSet) - W + 1

----------------------------------------------------------------------------
\* The start: the segment is open, and empty everywhere.

OpenEntry == [st |-> "Open", epoch |-> 1, count |-> 0, replicas |-> ReplicaSet, loss |-> FALSE]

Init ==
    /\ hist = <<OpenEntry>>
    /\ props = {}
    /\ log = [n \in Node |-> <<>>]
    /\ flushed = [n \in Node |-> 0]
    /\ promised = [n \in Node |-> 1]
    /\ doubt = [n \in Node |-> FALSE]
    /\ wiped = [n \in Node |-> FALSE]
    /\ rebooted = [n \in Node |-> FALSE]
    /\ up = [n \in Node |-> TRUE]
    /\ mode = "writing"
    /\ run = 1
    /\ sent = {}
    /\ acks = [n \in Node |-> 0]
    /\ replies = {}
    /\ acked = 0
    /\ seen = 0
    /\ crashes = 0
    /\ losses = 0
    /\ lost = {}

----------------------------------------------------------------------------
\* The data path

\* The leader takes a record from a producer, gives it the next index, and sends it to the whole set at once: the
\* message to its own disk is like any other, so a replica may have the record before the leader has.
LeaderAssigns ==
    /\ up[Leader]
    /\ mode = "writing"
    /\ Assigned < MaxRecords
    /\ sent' = sent \cup {[at |-> Assigned + 1, run |-> run]}
    /\ UNCHANGED <<metadata, disks, process, acks, replies, clients, faults>>

\* A replica stores the next record, unless it has promised a newer epoch (the leader's is 1), or its disk is not the
\* one that the set names. In the page-cache tier it acknowledges as soon as the write has returned.
\* (It also refuses what its metadata shows sealed. That is not needed for safety, and a view may be old: so the
\* check is left out here, and the records that slip in are cut by ReplicaAppliesSeal.)
ReplicaAppends(n) ==
    /\ n \in ReplicaSet
    /\ up[n]
    /\ ~wiped[n]
    /\ promised[n] <= 1
    /\ \E m \in sent :
         /\ m.at = Len(log[n]) + 1
         /\ log' = [log EXCEPT ![n] = Append(@, m.run)]
    /\ acks' = IF Synced THEN acks ELSE [acks EXCEPT ![n] = Larger(@, Len(log'[n]))]
    /\ UNCHANGED <<metadata, flushed, promised, doubt, wiped, rebooted, process, sent, replies, clients, faults>>

\* Synced tier: the flush returns, and the replica acknowledges everything that it covered.
ReplicaFlushes(n) ==
    /\ Synced
    /\ up[n]
    /\ flushed[n] < Len(log[n])
    /\ flushed' = [flushed EXCEPT ![n] = Len(log[n])]
    /\ acks' = [acks EXCEPT ![n] = Larger(@, Len(log[n]))]
    /\ UNCHANGED <<metadata, log, promised, doubt, wiped, rebooted, process, sent, replies, clients, faults>>

\* The leader counts: W of the set have stored the next record, so the producer gets its answer. Nothing here looks
\* at the metadata: this leader may have been deposed long ago.
LeaderAcks ==
    /\ up[Leader]
    /\ mode = "writing"
    /\ acked < Assigned
    /\ Cardinality({n \in ReplicaSet : acks[n] > acked}) >= W
    /\ acked' = acked + 1
    /\ UNCHANGED <<metadata, disks, process, messages, seen, faults>>

\* A reader at any node: it is given no more than the committed tail, and no more than what the node has.
\* (A node may know an older, lower tail; its readers see less, which can do no harm.)
ReaderReads(n) ==
    /\ n \in Reader
    /\ up[n]
    /\ LET bound == Smaller(Committed, Len(log[n]))
       IN  /\ bound > seen
           /\ seen' = bound
    /\ UNCHANGED <<metadata, disks, process, messages, acked, faults>>

----------------------------------------------------------------------------
\* The metadata: a register that changes only by compare-and-set

\* Anybody may ask for BeginSeal at any time: the Raft leader because a lease ran out, the leader because its writes
\* do not commit, a started process because it finds its own segment open. Each one makes a new epoch and a new
\* recoverer. Neither touches the replica set: it is frozen until the segment is sealed.
BeginSeal ==
    /\ ~Sealed
    /\ Now.epoch < MaxEpoch
    /\ hist' = Append(hist, [Now EXCEPT !.st = "Sealing", !.epoch = @ + 1])
    /\ UNCHANGED <<props, disks, process, messages, clients, faults>>

\* A SealAndOpen proposal reaches the Raft log, perhaps long after its sender gave it up. It takes effect only if it
\* bears the newest epoch and the segment is not sealed yet.
SealAndOpenApplies ==
    \E p \in props :
        /\ ~Sealed /\ p.epoch = Now.epoch       \* the compare of compare-and-set
        /\ hist' = Append(hist, [st |-> "Sealed", epoch |-> p.epoch, count |-> p.count,
                                 replicas |-> p.replicas, loss |-> p.loss])
        /\ UNCHANGED <<props, disks, process, messages, clients, faults>>

----------------------------------------------------------------------------
\* Rollover

\* The leader has stopped assigning, everything in flight is committed: it proposes to close the segment there. From
\* now on it neither assigns nor acknowledges here, whatever it hears or does not hear; it only repeats the very same
\* proposal (which is why `props` needs it only once).
LeaderProposesSealAndOpen ==
    /\ up[Leader]
    /\ mode = "writing"
    /\ acked = Assigned                         \* nothing is in flight
    /\ props' = props \cup {[epoch |-> 1, count |-> Assigned, replicas |-> ReplicaSet, loss |-> FALSE]}
    /\ mode' = "proposed"
    /\ UNCHANGED <<hist, disks, up, run, messages, clients, faults>>

----------------------------------------------------------------------------
\* Failover. The recoverer of epoch e is an actor of its own; it has no memory but the answers to its own messages, and
\* it may act on any selection of them, so it stands for one that is slow, confused by old answers, or dead.
\* (Once the segment is sealed, recoverers are left out of the model: what they still can do is to make replicas refuse
\* more, to copy records that are already the same everywhere, and to send proposals that the compare-and-set drops.)

\* What a replica can say about its length. "I never had more than this" (Exact) may be said only by the very disk that
\* the set names, and only if nothing that it once acknowledged can be missing.
Answer(n) == IF wiped[n] THEN "Unknown"
             ELSE IF doubt[n] THEN "AtLeast"
             ELSE "Exact"

\* The Fence message of recovery e arrives at n. In one step, under the lock that appends take: what was written is
\* flushed (synced tier: an unflushed record is not yet stored, and must not be acknowledged after this answer),
\* the promise is made durable, and the length is told.
ReplicaFences(e, n) ==
    /\ ~Sealed /\ e <= Now.epoch
    /\ n \in ReplicaSet
    /\ up[n]
    /\ promised[n] <= e                         \* an older recovery is refused
    /\ promised' = [promised EXCEPT ![n] = e]   \* the fence
    /\ flushed' = IF Synced THEN [flushed EXCEPT ![n] = Len(log[n])] ELSE flushed
    /\ replies' = replies \cup {[epoch |-> e, node |-> n, kind |-> Answer(n),
                                 len |-> IF wiped[n] THEN 0 ELSE Len(log[n])]}
    /\ UNCHANGED <<metadata, log, doubt, wiped, rebooted, process, sent, acks, clients, faults>>

\* The answers to recovery e. A node may have answered twice, and differently (it crashed in between); the recoverer
\* cannot know which answer is the newer one, so it may have either in hand, but never both.
Answers(e) == {r \in replies : r.epoch = e /\ r.kind # "Stored"}

\* The end is the longest length in hand. (One writer, one run: all logs are prefixes of each other.) So `r.len` may be
\* the end if enough nodes gave an exact answer that is no longer. Lengths "at least" are good sources, but they do
\* not count; silence counts for nothing.
Ends(e) ==
    LET answers == Answers(e)
        Exact(r) == {x.node : x \in {y \in answers : y.kind = "Exact" /\ y.len <= r.len /\ (y.node = r.node => y = r)}}
    IN  {r.len : r \in {x \in answers : x.kind # "Unknown" /\ Cardinality(Exact(x)) >= NeedExact}}

\* When too much is lost: every node of the set has answered, and still there are too few exact answers (one that a
\* later answer has replaced is none). Then the longest length that is left becomes the end, and that is reported.
LossEnds(e) ==
    LET answers == Answers(e)
        OnlyExact == {n \in ReplicaSet : \A r \in answers : r.node = n => r.kind = "Exact"}
        MayBeLongest(r) == \A n \in ReplicaSet : \E x \in answers : x.node = n /\ x.len <= r.len
    IN  IF Cardinality(answers) < Cardinality(ReplicaSet) \/ Cardinality(OnlyExact) >= NeedExact THEN {}
        ELSE {r.len : r \in {x \in answers : MayBeLongest(x)}}

\* Who holds everything up to `end`, as far as recovery e has been told.
\* (Unknown comes with length 0, so it counts only if there is nothing to hold.)
Holders(e, end) == {r.node : r \in {x \in replies : x.epoch = e /\ x.len >= end}}

\* Copying forward: node n, one of the set or one that stands in (a wiped node may), takes its next record from a
\* source that answered this recovery. It promises the recovery's epoch first, and says so when the record is stored.
ReplicaTakesCopy(e, n) ==
    /\ ~Sealed
    /\ up[n]
    /\ promised[n] <= e
    /\ \E source \in {s \in Node : up[s] /\ Len(log[s]) > Len(log[n])} :
         /\ \E r \in replies : r.epoch = e /\ r.node = source /\ r.len > Len(log[n])
         /\ \E end \in Ends(e) \cup LossEnds(e) : Len(log[n]) < end
         /\ log' = [log EXCEPT ![n] = Append(@, log[source][Len(@) + 1])]
    /\ promised' = [promised EXCEPT ![n] = e]
    /\ flushed' = [flushed EXCEPT ![n] = IF Synced THEN Len(log'[n]) ELSE @]
    /\ replies' = replies \cup {[epoch |-> e, node |-> n, kind |-> "Stored", len |-> Len(log'[n])]}
    /\ UNCHANGED <<metadata, doubt, wiped, rebooted, process, sent, acks, clients, faults>>

\* W nodes have everything up to the end: the recoverer proposes to close the segment there, once.
RecovererProposesSealAndOpen(e) ==
    /\ ~Sealed
    /\ \A p \in props : p.epoch # e
    /\ \E loss \in BOOLEAN : \E end \in (IF loss THEN LossEnds(e) ELSE Ends(e)) :
         /\ Cardinality(Holders(e, end)) >= W
         /\ props' = props \cup {[epoch |-> e, count |-> end, replicas |-> Holders(e, end), loss |-> loss]}
    /\ UNCHANGED <<hist, disks, process, messages, clients, faults>>

\* A node's view shows the segment sealed: only now it cuts what lies beyond the end.
ReplicaAppliesSeal(n) ==
    /\ Sealed
    /\ up[n]
    /\ Len(log[n]) > Now.count
    /\ log' = [log EXCEPT ![n] = SubSeq(@, 1, Now.count)]
    /\ flushed' = [flushed EXCEPT ![n] = Smaller(@, Now.count)]
    /\ UNCHANGED <<metadata, promised, doubt, wiped, rebooted, process, messages, clients, faults>>

----------------------------------------------------------------------------
\* Faults, and how a node comes back

\* A run of the leader's process that has ended never comes back: what it had assigned and counted is gone.
LeaderRunEnds(n) ==
    /\ mode' = IF n = Leader THEN "gone" ELSE mode
    /\ run' = IF n = Leader THEN 2 ELSE run

\* The process dies. What was written is still in the kernel's page cache.
ProcessCrashes(n) ==
    /\ LateFaults \/ ~Sealed
    /\ n \in Crasher
    /\ crashes < MaxCrashes
    /\ up[n]
    /\ crashes' = crashes + 1
    /\ up' = [up EXCEPT ![n] = FALSE]
    /\ LeaderRunEnds(n)
    /\ UNCHANGED <<metadata, log, flushed, promised, doubt, wiped, rebooted, messages, clients, losses, lost>>

\* The machine dies: what was not flushed may be gone, in any order. Recovery ends the log at the first record that is
\* missing, so what is left is a prefix, no shorter than what was flushed. In the page-cache tier this loses a copy.
MachineCrashes(n) ==
    /\ LateFaults \/ ~Sealed
    /\ IF Synced THEN crashes < MaxCrashes ELSE losses < MaxLosses
    /\ IF Synced THEN crashes' = crashes + 1 /\ UNCHANGED <<losses, lost>>
                 ELSE losses' = losses + 1 /\ lost' = lost \cup {n} /\ UNCHANGED crashes
    /\ \E left \in flushed[n]..Len(log[n]) : log' = [log EXCEPT ![n] = SubSeq(@, 1, left)]
    /\ promised' = promised                     \* fences are durable before they are answered
    /\ rebooted' = [rebooted EXCEPT ![n] = ~Synced /\ ~wiped[n]]
    /\ up' = [up EXCEPT ![n] = FALSE]
    /\ LeaderRunEnds(n)
    /\ UNCHANGED <<metadata, flushed, doubt, wiped, messages, clients>>

\* The disk is lost, with all that it knew; the node will come back with an empty one.
DiskIsLost(n) ==
    /\ LateFaults \/ ~Sealed
    /\ losses < MaxLosses
    /\ losses' = losses + 1
    /\ lost' = lost \cup {n}
    /\ log' = [log EXCEPT ![n] = <<>>]
    /\ flushed' = [flushed EXCEPT ![n] = 0]
    /\ promised' = [promised EXCEPT ![n] = 0]
    /\ doubt' = [doubt EXCEPT ![n] = FALSE]
    /\ wiped' = [wiped EXCEPT ![n] = TRUE]
    /\ rebooted' = [rebooted EXCEPT ![n] = FALSE]
    /\ up' = [up EXCEPT ![n] = FALSE]
    /\ LeaderRunEnds(n)
    /\ UNCHANGED <<metadata, messages, clients, crashes>>

\* Coming back, page-cache tier: the recorded boot id is not the kernel's. The open segment is marked in doubt, and
\* only after that mark is durable the new boot id is recorded: a crash between the two finds the old id again.
\* (Synced tier: nothing that this node acknowledged can be missing after a reboot, so there is no mark; else one
\* power cut would leave nobody to say Exact.)
NodeMarksDoubt(n) ==
    /\ ~up[n] /\ rebooted[n] /\ ~doubt[n]
    /\ doubt' = [doubt EXCEPT ![n] = TRUE]
    /\ UNCHANGED <<metadata, log, flushed, promised, wiped, rebooted, process, messages, clients, faults>>

\* The node records the boot id and serves again. It first flushes what it recovered. The leader's node comes back as a
\* replica only: its new process never appends to the segment that it finds open under its own name; BeginSeal is
\* asked for instead.
NodeStarts(n) ==
    /\ ~up[n]
    /\ rebooted[n] => doubt[n]                  \* the mark comes first
    /\ rebooted' = [rebooted EXCEPT ![n] = FALSE]
    /\ up' = [up EXCEPT ![n] = TRUE]
    /\ flushed' = [flushed EXCEPT ![n] = IF Synced THEN Len(log[n]) ELSE @]
    /\ mode' = mode                             \* the leader's stays "gone"
    /\ UNCHANGED <<metadata, log, promised, doubt, wiped, run, messages, clients, faults>>

\* The leader, still the same run, has sent everything again to a replica in doubt, and that has all of it: the mark
\* goes, and the copy is whole again. One step here; the code must tie the message to the replica's boot id, so that
\* an old one cannot take away a newer mark.
DoubtIsCleared(n) ==
    /\ mode # "gone"
    /\ up[n] /\ doubt[n]
    /\ promised[n] <= 1
    /\ Len(log[n]) = Assigned
    /\ doubt' = [doubt EXCEPT ![n] = FALSE]
    /\ lost' = lost \ {n}
    /\ UNCHANGED <<metadata, log, flushed, promised, wiped, rebooted, process, messages, clients, crashes, losses>>

----------------------------------------------------------------------------
Next ==
    \/ LeaderAssigns
    \/ LeaderAcks
    \/ LeaderProposesSealAndOpen
    \/ BeginSeal
    \/ SealAndOpenApplies
    \/ \E n \in Node :
         \/ ReplicaAppends(n)
         \/ ReplicaFlushes(n)
         \/ ReplicaAppliesSeal(n)
         \/ ReaderReads(n)
         \/ ProcessCrashes(n)
         \/ MachineCrashes(n)
         \/ DiskIsLost(n)
         \/ NodeMarksDoubt(n)
         \/ NodeStarts(n)
         \/ DoubtIsCleared(n)
         \/ \E e \in 2..MaxEpoch :
              \/ ReplicaFences(e, n)
              \/ ReplicaTakesCopy(e, n)
    \/ \E e \in 2..MaxEpoch : RecovererProposesSealAndOpen(e)

Spec == Init /\ [][Next]_vars

\* The nodes of the set other than the leader are alike, so TLC need not look at both of two mirrored states. (Not to
\* be used where liveness is checked.)
Mirror == Permutations(ReplicaSet \ {Leader}) \cup Permutations(Node \ ReplicaSet)

----------------------------------------------------------------------------
\* Fairness: what must happen sooner or later, and nothing more. Only liveness needs it.
\* "Weak fairness" of a step (WF): it cannot stay possible for ever without being taken.

Newest == Now.epoch

Fairness ==
    \* a node that is down comes back
    /\ \A n \in Node : /\ WF_vars(NodeMarksDoubt(n))
                       /\ WF_vars(NodeStarts(n))
    \* while the leader's run lives, its messages arrive in the end, flushes return, and it counts
    /\ \A n \in ReplicaSet : /\ WF_vars(mode # "gone" /\ ReplicaAppends(n))
                             /\ WF_vars(mode # "gone" /\ ReplicaFlushes(n))
    /\ WF_vars(LeaderAcks)
    \* a full segment is closed; if its leader is dead, or is stuck with it for long, somebody asks for BeginSeal
    /\ WF_vars(Assigned = MaxRecords /\ LeaderProposesSealAndOpen)
    /\ WF_vars(Now.st = "Open" /\ (mode = "gone" \/ (mode = "writing" /\ acked < Assigned)) /\ BeginSeal)
    \* the recoverer of the newest epoch goes on asking, copying and proposing (older ones may stop at any time)
    /\ \A e \in 2..MaxEpoch : /\ \A n \in Node : /\ WF_vars(e = Newest /\ ReplicaFences(e, n))
                                                 /\ WF_vars(e = Newest /\ ReplicaTakesCopy(e, n))
                              /\ WF_vars(e = Newest /\ RecovererProposesSealAndOpen(e))
    \* a proposal that bears the newest epoch is repeated until it gets through
    /\ WF_vars(SealAndOpenApplies)
    \* readers ask again
    /\ \A n \in Node : WF_vars(ReaderReads(n))

FairSpec == Spec /\ Fairness

----------------------------------------------------------------------------
\* Always true. The names are those of the list in the design. "Fewer than W copies are lost" is `FewLost`.

FewLost == Cardinality(lost) < W

Holds(n, i) == Len(log[n]) >= i /\ (Synced => flushed[n] >= i)

TypeOK ==
    /\ \A i \in 1..Len(hist) : hist[i].st \in {"Open", "Sealing", "Sealed"} /\ hist[i].epoch \in 1..MaxEpoch
    /\ \A n \in Node : /\ Len(log[n]) <= MaxRecords
                       /\ flushed[n] <= Len(log[n])
                       /\ promised[n] \in 0..MaxEpoch
    /\ acked \in 0..MaxRecords /\ seen \in 0..MaxRecords
    /\ mode \in {"writing", "proposed", "gone"}

\* S1: every record below the committed tail is on W replicas, counting lost copies.
S1 == FewLost => \A i \in 1..Committed : Cardinality({n \in Now.replicas : Holds(n, i) \/ n \in lost}) >= W

\* S2: the count never changes: there is at most one Sealed entry, it is the last, and the entries only grow.
S2 == \A i \in 1..Len(hist) : hist[i].st = "Sealed" => i = Len(hist)
S2Grows == [][Len(hist') >= Len(hist) /\ SubSeq(hist', 1, Len(hist)) = hist]_vars

\* S3: nothing is acknowledged at or past a sealed end.
S3 == (Sealed /\ FewLost) => acked <= Now.count

\* S5: below the committed tail, the same index has the same bytes everywhere.
SameUpTo(end) == \A a, b \in Node : \A i \in 1..Smaller(end, Smaller(Len(log[a]), Len(log[b]))) : log[a][i] = log[b][i]
S5 == SameUpTo(Committed)

\* Stronger, and what the recoverer relies on when it takes the longest log: all logs are prefixes of each other.
OneWriter == SameUpTo(MaxRecords)

\* S6: readers see only what is committed, and what was seen once stays.
S6 == FewLost => seen <= Committed

\* S7: a promised epoch never goes back, unless the disk itself is gone.
S7 == [][\A n \in Node : promised'[n] >= promised[n] \/ (wiped'[n] /\ losses' > losses)]_vars

\* S8: stale metadata never wins: epochs only rise along the entries, and what closes the segment bears the newest.
S8 == \A i \in 2..Len(hist) : /\ hist[i].st = "Sealing" => hist[i].epoch = hist[i - 1].epoch + 1
                              /\ hist[i].st = "Sealed" => hist[i].epoch = hist[i - 1].epoch

\* The replica set does not change before the seal.
Frozen == \A i \in 1..Len(hist) : hist[i].st # "Sealed" => hist[i].replicas = ReplicaSet

\* S11: when more is lost, it is reported: either the mark is there, or nothing acknowledged lies past the end. ...
S11 == (Sealed /\ acked > Now.count) => Now.loss
\* ... and a mark without a reason does not occur.
S11NoFalseAlarm == (Sealed /\ Now.loss) => losses >= W

----------------------------------------------------------------------------
\* Sooner or later true, under Fairness.

L1 == (Now.st = "Sealing") ~> Sealed
L2 == \A i \in 1..MaxRecords : (\E m \in sent : m.at = i) ~> (acked >= i \/ Sealed)
L3 == (Assigned = MaxRecords \/ mode # "writing") ~> Sealed
L4 == \A i \in 1..MaxRecords : (Committed >= i) ~> (seen >= i \/ ~FewLost)

----------------------------------------------------------------------------
\* Deliberately false: TLC must find a run that violates each, else the model does not explore what it should.

ReachFailover      == ~(Sealed /\ Now.epoch > 1 /\ Now.count > 0)
ReachRepeatedSeal  == ~(Sealed /\ Now.epoch = MaxEpoch /\ Now.count > 0 /\ \E p \in props : p.epoch = MaxEpoch - 1 /\ p.count < Now.count)
ReachLateAck       == [][~(Sealed /\ Now.epoch > 1 /\ acked' > acked)]_vars
ReachLostProposal  == ~(Sealed /\ Now.epoch > 1 /\ \E p \in props : p.epoch = 1)
ReachStandIn       == ~(Sealed /\ Now.count > 0 /\ \E n \in Now.replicas : wiped[n] \/ n \notin ReplicaSet)
ReachCut           == [][~(Sealed /\ \E n \in Node : up[n] /\ Len(log'[n]) < Len(log[n]) /\ up'[n])]_vars
ReachStaleAnswer   == ~(\E a, b \in replies : a.epoch = b.epoch /\ a.node = b.node /\ a.kind = "Exact" /\ b.kind = "AtLeast" /\ b.len < a.len)
ReachPossibleLoss  == ~(Sealed /\ Now.loss /\ acked > Now.count)
ReachDoubtCleared  == [][~(\E n \in Node : doubt[n] /\ ~doubt'[n] /\ up[n] /\ Len(log[n]) > 0)]_vars
=============================================================================
