/* The takeover protocol of docs/internals/ha.md as a model for Spin: can two nodes, four drives and a network that does
 * what it likes lose an acknowledged write?
 *
 * It is written beside ha/*.py and not made from it: README.md says which lines stand for which module, and what is
 * left out.  Nothing here knows the time.  An agent that is slow, stopped for a while or paused with its whole node is one
 * that Spin does not let move yet; a command, a message or a write that is late is one that stays pending.
 *
 * Defines: TIME=1 adds the lease's promise (a node is fenced only when its data plane has ended) and with it I8.
 * FAULTS, MOVES, LIVES, VERSIONS bound the runs.  The mutants begin with M and an underscore: each breaks one rule, and Spin must find out.
 */
#ifndef TIME
#define TIME 0          /* 1: no node is fenced before its lease has ended */
#endif
#ifndef FAULTS
#define FAULTS 2        /* data planes that die by themselves, and takeovers without cause */
#endif
#ifndef MOVES
#define MOVES 1         /* planned moves, and records that change nothing (a saved state) */
#endif
#ifndef LIVES
#define LIVES 2         /* incarnations of each node's data plane */
#endif
#ifndef VERSIONS
#define VERSIONS 2      /* of the one block that hosts write: 1, 2, ... */
#endif

#define DATA 3          /* drives 0, 1, 2 are the quorum drives in the order of the race; 3 holds the block */
#define ALL 15
#define QUORUM 7

/* ---- incarnations: a slot for each, and a bit for each in a drive's table of registrants */
#define SLOT(n) ((n) * LIVES + life[n] - 1)
#define BIT(s) (1 << (s))
#define MINE(n) BIT(SLOT(n))
#define IN(d, s) ((reg[d] & BIT(s)) != 0)
#define IN_QUORUM(s) (IN(0, s) && IN(1, s) && IN(2, s))
#define NODE_OF(s) ((s) / LIVES)
#define CURRENT(s) (up[NODE_OF(s)] && SLOT(NODE_OF(s)) == (s))

/* ---- a record of the journal in 15 bits, highest first: epoch 4, sequence 4, leader 1, owner 1, members 2 + 2 */
#define REC(e, q, l, o, m) ((e) << 10 | (q) << 6 | (l) << 5 | (o) << 4 | (m))
#define AT(r) ((r) >> 6)
#define EPOCH(r) ((r) >> 10)
#define SEQ(r) (((r) >> 6) & 15)
#define LEADER(r) (((r) >> 5) & 1)
#define OWNER(r) (((r) >> 4) & 1)
#define MEMBER_LIFE(r, n) (((r) >> (2 - 2 * (n))) & 3)
#define ALONE(n) (life[n] << (2 - 2 * (n)))
#define JOINED(r, n) (((r) & ~(3 << (2 - 2 * (n)))) | (life[n] << (2 - 2 * (n))))
#define MOVED(r) ((r) ^ 16)
#define NEXT(r) ((r) + (1 << 6))
#define COPIES(r) ((journal[0] == (r)) + (journal[1] == (r)) + (journal[2] == (r)))
#ifdef M_MINORITY
#define ENOUGH 1
#else
#define ENOUGH 2
#endif
/* The newest record that lies on a majority; with ENOUGH copies, for a mutant. */
#define CERTAIN(r) (COPIES(r) >= ENOUGH)

/* ---- the drives */
byte reg[4];            /* registrants */
short journal[3];       /* the newest record on each quorum drive */
byte data;              /* the version of the block */

/* ---- what an incarnation has sent and what has not yet been carried out; it outlives the incarnation */
#define ACCEPTED 8
byte write[2 * LIVES];  /* 0, or the version; + ACCEPTED: the drive has let it past the reservation and works on it */
mtype = { none, REGISTER, FENCE };
mtype lane[2 * LIVES] = none;
byte pending[2 * LIVES]; /* the drives where the lane's command is still to be carried out */
bool refused[2 * LIVES]; /* one of its commands met a Reservation Conflict */

/* ---- the nodes */
mtype = { outside, joining, member, racing, verifying, reading, writing, confirming };
mtype phase[2] = outside;
bool up[2];             /* the data plane lives */
byte life[2];           /* its incarnation, or the last one */
byte place[2];          /* which drive of the race */
bool raised[2];         /* ANA optimized */
short known[2];         /* the record that the node acts on */
short draft[2];         /* the record that it writes, 0 for none */
byte to_write[2];       /* the quorum drives that have not got the draft */
byte released[2];       /* AT of the record under which it drained the group, 0 for none */
bool lowering[2];
bool newcomer[2];       /* it takes over from outside, so it has to register */
bool joins[2];          /* the draft admits the peer */
byte admitted[2];       /* by node n as the leader: the life of its peer */

/* ---- the network: what each node last heard; delivery is late as long as Spin likes */
byte heard_admitted[2];
byte heard_released[2];

/* ---- the hosts, and what only the properties look at */
byte acked;             /* the newest version that a host knows to be written */
byte acked_at;          /* AT of the record under which that was served */
byte consent;           /* bits of the incarnations that ever were admitted, or took over */
short acted;            /* the newest record that anybody acted on */
byte faults = FAULTS, moves = MOVES;
bool conflict_seen;     /* by a live data plane that serves */

#ifdef M_WRITE_EXCLUSIVE
#define CAN_READ(n) (up[n] && raised[n])
#else
#define CAN_READ(n) (up[n] && raised[n] && IN(DATA, SLOT(n)))
#endif
#define CAN_SERVE(n) CAN_READ(n)
#define UNDER(n) AT(known[n])
#define FRESH(n) (!CAN_READ(n) || UNDER(n) >= acked_at)

ltl i1 { [] !(CAN_SERVE(0) && CAN_SERVE(1)) }
ltl i3 { [] (data >= acked) }
ltl i5 { [] (FRESH(0) && FRESH(1)) }
ltl i8 { [] !conflict_seen }
ltl safe { [] (!(CAN_SERVE(0) && CAN_SERVE(1)) && data >= acked && FRESH(0) && FRESH(1) && !(TIME && conflict_seen)) }
/* L1. Every run is bounded, so what holds again and again is what holds at its end: somebody serves if anybody can live. */
#define LIVES_ON(n) (up[n] || life[n] < LIVES)
ltl l1 { []<> (CAN_SERVE(0) || CAN_SERVE(1) || !(LIVES_ON(0) || LIVES_ON(1))) }

inline die(n) {         /* crash, SIGKILL by the agent or the leash, power: the node forgets, its commands stay on their way */
    up[n] = false; refused[SLOT(n)] = false;
    if
    :: pending[SLOT(n)] == 0 -> lane[SLOT(n)] = none
    :: else
    fi;
    raised[n] = false; phase[n] = outside; known[n] = 0; draft[n] = 0; to_write[n] = 0;
    released[n] = 0; lowering[n] = false; admitted[n] = 0; heard_admitted[n] = 0; heard_released[n] = 0; place[n] = 0;
    newcomer[n] = false; joins[n] = false
}

inline send(n, kind, where) {
    lane[SLOT(n)] = kind; pending[SLOT(n)] = where; refused[SLOT(n)] = false
}

inline settle(n) { lane[SLOT(n)] = none; refused[SLOT(n)] = false }

#define ANSWERED(n) (pending[SLOT(n)] == 0)

inline learn(n, r) {    /* from here on the node acts on r */
    known[n] = r;
    assert(AT(r) != AT(acted) || r == acted);   /* I7: records are totally ordered */
    if
    :: AT(r) > AT(acted) -> acted = r
    :: else
    fi
}

/* ------------------------------------------------------------------ the drives carry out what is pending, in any order */

inline carry_out(s, d) {
    pending[s] = pending[s] & ~BIT(d);
    if
    :: lane[s] == REGISTER ->
        assert((consent & BIT(s)) != 0);        /* I6 */
        reg[d] = reg[d] | BIT(s)
    :: lane[s] == FENCE && IN(d, s) ->          /* preempt and abort, PRKEY 0: all others go, with what they had here */
        reg[d] = BIT(s);
#ifndef M_NO_ABORT
        if
        :: d == DATA ->
            for (i : 0 .. 2 * LIVES - 1) {
                if
                :: i != s && write[i] > ACCEPTED -> write[i] = 0
                :: else
                fi
            }
        :: else
        fi
#endif
    :: else -> refused[s] = CURRENT(s)
    fi;
    if
    :: pending[s] == 0 && !CURRENT(s) -> lane[s] = none; refused[s] = false    /* nobody waits for it */
    :: else
    fi
}

proctype Drive(byte d) {
    byte s, i;
end:
    do
    :: d_step { (pending[0] & BIT(d)) != 0 -> s = 0; carry_out(s, d); s = 0; i = 0 }
    :: d_step { (pending[1] & BIT(d)) != 0 -> s = 1; carry_out(s, d); s = 0; i = 0 }
    :: d_step { (pending[2] & BIT(d)) != 0 -> s = 2; carry_out(s, d); s = 0; i = 0 }
    :: d_step { (pending[3] & BIT(d)) != 0 -> s = 3; carry_out(s, d); s = 0; i = 0 }
#if LIVES > 2
    :: d_step { (pending[4] & BIT(d)) != 0 -> s = 4; carry_out(s, d); s = 0; i = 0 }
    :: d_step { (pending[5] & BIT(d)) != 0 -> s = 5; carry_out(s, d); s = 0; i = 0 }
#endif
    od
}

/* ------------------------------------------------------------------ a block, the writes to it, the hosts */

proctype Block(byte s) {        /* what incarnation s has written to drive DATA */
end:
    do
    :: d_step { write[s] > 0 && write[s] < ACCEPTED && IN(DATA, s) -> write[s] = write[s] + ACCEPTED }
    :: d_step {
        write[s] > 0 && write[s] < ACCEPTED && !IN(DATA, s) ->
        write[s] = 0;
        conflict_seen = conflict_seen || (CURRENT(s) && raised[NODE_OF(s)])
       }
    :: d_step {
        write[s] > ACCEPTED ->                  /* it lands; the host hears of it if the data plane still lives */
        data = write[s] - ACCEPTED;
        write[s] = 0;
        assert(data >= acked);                  /* I3, I4 */
        if
        :: CURRENT(s) && data > acked -> acked = data; acked_at = UNDER(NODE_OF(s))
        :: else
        fi
       }
    od
}

proctype Host() {               /* writes the next version by any path that is optimized, again and again until acknowledged */
end:
    do
    :: d_step { up[0] && raised[0] && acked < VERSIONS && write[SLOT(0)] == 0 -> write[SLOT(0)] = acked + 1 }
    :: d_step { up[1] && raised[1] && acked < VERSIONS && write[SLOT(1)] == 0 -> write[SLOT(1)] = acked + 1 }
    od
}

/* ------------------------------------------------------------------ a node: its agent, and the faults that befall it */

#define PEER (1 - n)
#define AGENT(p) (up[n] && phase[n] == p)
#define IDLE (AGENT(member) && draft[n] == 0)
#define LEADS (IDLE && LEADER(known[n]) == n)
#define PEER_IN_RECORD (MEMBER_LIFE(known[n], PEER) != 0)
#define PEER_ENDED (!up[PEER] || life[PEER] != MEMBER_LIFE(known[n], PEER))
#define HERE(d) IN(d, SLOT(n))
#define EVERYWHERE (HERE(0) && HERE(1) && HERE(2) && HERE(DATA))
#define ONLY_ME (reg[0] == MINE(n) && reg[1] == MINE(n) && reg[2] == MINE(n) && reg[DATA] == MINE(n))
#define RELEASE (OWNER(known[n]) == n -> released[n] : heard_released[n])

#define GIVES_UP (TIME && newcomer[n] && up[PEER] && raised[PEER])      /* a newcomer looks again before each command */

inline begin(n) {               /* a takeover: the node stops whatever else it was about to do */
    newcomer[n] = (phase[n] == outside);
    phase[n] = racing; place[n] = 0; admitted[n] = 0; heard_released[n] = 0; consent = consent | MINE(n);
    send(n, (newcomer[n] -> REGISTER : FENCE), 1)
}

inline look(q) {
    if
    :: AT(journal[q]) > AT(newest) -> newest = journal[q]
    :: AT(journal[q]) == AT(newest) && journal[q] != newest -> newest = journal[q]
    :: AT(journal[q]) <= AT(newest)
    fi
}

inline start(n) {               /* a new incarnation: outside, registered nowhere */
#ifdef M_OLD_KEY
    for (i : 0 .. DATA) {
        if
        :: IN(i, SLOT(n) - 1) -> reg[i] = reg[i] | MINE(n)
        :: else
        fi
    }
    i = 0;
    if
    :: EVERYWHERE -> known[n] = acted; phase[n] = member; consent = consent | MINE(n)
    :: else
    fi
#endif
#ifdef M_NO_CONSENT
    phase[n] = joining; send(n, REGISTER, ALL)
#endif
    skip
}

#ifdef M_MINORITY
#define WRITTEN(left) ((left) != QUORUM)
#else
#define WRITTEN(left) ((left) == 0 || (left) == 1 || (left) == 2 || (left) == 4)
#endif
#ifdef M_NO_CONFIRM
#define CONFIRMED true
#else
#define CONFIRMED ONLY_ME
#endif
#ifdef M_NO_DRAIN
#define DRAINED true
#else
#define DRAINED (write[SLOT(n)] == 0)
#endif
#ifdef M_STALE_RELEASE
#define RELEASED_UNDER(at) ((at) != 0)
#else
#define RELEASED_UNDER(at) ((at) == AT(known[n]))
#endif
#if defined(M_IGNORE_RECORD)
#define MAY_RAISE (!raised[n] && !lowering[n] && released[n] == 0)
#elif defined(M_RAISE_AGAIN)
#define MAY_RAISE (!raised[n] && !lowering[n] && OWNER(known[n]) == n)
#else
#define MAY_RAISE (!raised[n] && !lowering[n] && OWNER(known[n]) == n && released[n] != AT(known[n]))
#endif

inline raise(n) { newcomer[n] = false; raised[n] = true; lowering[n] = false; released[n] = 0 }

inline again(n) {               /* a Report shows that the node is not alone, or not there any more */
    if
    :: !EVERYWHERE -> die(n)
    :: else -> newcomer[n] = false; phase[n] = racing; place[n] = 0; send(n, FENCE, 1)
    fi
}

inline write_record(n, r) { draft[n] = r; to_write[n] = QUORUM; heard_released[n] = 0 }

inline written(n, q) {
    if
    :: HERE(q) -> journal[q] = draft[n]; to_write[n] = to_write[n] & ~BIT(q)
    :: else -> die(n)
    fi
}

inline follow(n, r) {           /* a record that lies on a majority and is newer than what the node knows */
    if
    :: MEMBER_LIFE(r, n) == life[n] -> learn(n, r); phase[n] = member
    :: else -> die(n)           /* it was put out */
    fi
}

#define READS (HERE(0) + HERE(1) + HERE(2) >= 2)         /* a majority of the quorum drives */
#define SETTLED (CERTAIN(journal[0]) || CERTAIN(journal[1]))   /* else the leader is writing: read again */
#define NEWER(r) (READS && CERTAIN(r) && AT(r) > AT(known[n]))

/* With TIME a consent stands only as long as who gave it is heard. */
#define ADMITS(r) (MEMBER_LIFE(r, n) == life[n] && (!TIME || (up[PEER] && MEMBER_LIFE(r, PEER) == life[PEER])))

proctype Node(byte n) {
    short newest;
    byte i;
end:
    do
    /* -- faults: a data plane ends; a new incarnation starts, outside and unregistered; a node that met a conflict ends itself */
    :: d_step { up[n] && faults > 0 -> faults--; die(n) }
    :: d_step { !up[n] && life[n] < LIVES -> life[n]++; up[n] = true; start(n) }
    :: d_step { AGENT(member) && !EVERYWHERE -> die(n) }

    /* -- why a takeover begins: the peer has ended; both have started; without TIME: because it seems so */
    :: d_step { IDLE && PEER_IN_RECORD && PEER_ENDED -> begin(n) }
    :: d_step { AGENT(outside) && ANSWERED(n) && (!up[PEER] || (phase[PEER] == outside && n == 0)) -> begin(n) }
#if !TIME
    :: d_step { IDLE && PEER_IN_RECORD && faults > 0 -> faults--; begin(n) }
    :: d_step { AGENT(outside) && ANSWERED(n) && faults > 0 -> faults--; begin(n) }
#endif

    /* -- takeover: the quorum drives one by one, then the others; a newcomer registers on each before it fences it */
    :: d_step { AGENT(racing) && ANSWERED(n) ->
        if
        :: refused[SLOT(n)] -> die(n)
        :: GIVES_UP -> newcomer[n] = false; phase[n] = outside; place[n] = 0; settle(n)
        :: !refused[SLOT(n)] && !GIVES_UP && lane[SLOT(n)] == REGISTER -> send(n, FENCE, BIT(place[n]))
        :: !refused[SLOT(n)] && !GIVES_UP && lane[SLOT(n)] == FENCE && place[n] < DATA ->
            place[n]++;
            send(n, (newcomer[n] -> REGISTER : FENCE), BIT(place[n]));
#ifdef M_RAISE_FIRST
            if
            :: place[n] == DATA -> known[n] = acted; raise(n)
            :: else
            fi
#endif
        :: else -> phase[n] = verifying; place[n] = 0; settle(n)
        fi
       }
    :: d_step { AGENT(verifying) ->             /* Reservation Report */
        if
        :: ONLY_ME -> phase[n] = reading
        :: else -> again(n)
        fi
       }
    :: atomic { AGENT(reading) ->
        if
        :: newest = journal[0]; look(1); look(2)
#ifdef M_READ_MAJORITY
        :: newest = journal[0]; look(1)
        :: newest = journal[0]; look(2)
        :: newest = journal[1]; look(2)
#endif
        fi;
        if
        :: !IN_QUORUM(SLOT(n)) -> die(n)
        :: else ->
            assert(newest == acted || AT(newest) > AT(acted));          /* I7: nothing that was acted on is lost */
            write_record(n, REC(EPOCH(newest) + 1, SEQ(newest) + 1, n, n, ALONE(n)));
            phase[n] = writing
        fi;
        newest = 0
       }

    /* -- a record is written to the quorum drives, in any order; a majority is enough to act on it */
    :: d_step { up[n] && (to_write[n] & 1) != 0 -> written(n, 0) }
    :: d_step { up[n] && (to_write[n] & 2) != 0 -> written(n, 1) }
    :: d_step { up[n] && (to_write[n] & 4) != 0 -> written(n, 2) }
    :: d_step { up[n] && draft[n] != 0 && WRITTEN(to_write[n]) ->
        learn(n, draft[n]); draft[n] = 0; to_write[n] = 0;
        if
        :: phase[n] == writing -> phase[n] = confirming
        :: phase[n] == member && PEER_IN_RECORD && joins[n] ->
            admitted[n] = MEMBER_LIFE(known[n], PEER); joins[n] = false;
            consent = consent | BIT(PEER * LIVES + admitted[n] - 1)
        :: else
        fi
       }

    :: d_step { AGENT(confirming) ->            /* Reservation Report once more: who has joined by the older record? */
        if
        :: CONFIRMED -> phase[n] = member; raise(n)
        :: else -> again(n)
        fi
       }

    /* -- the leader: admits its peer, moves a group that was released under this very record, keeps a state */
    :: d_step { LEADS && !PEER_IN_RECORD && up[PEER] && phase[PEER] == outside ->
        joins[n] = true; write_record(n, NEXT(JOINED(known[n], PEER)))
       }
    :: d_step { LEADS && PEER_IN_RECORD && RELEASED_UNDER(RELEASE) -> write_record(n, NEXT(MOVED(known[n]))) }
    :: d_step { LEADS && moves > 0 -> moves--; write_record(n, NEXT(known[n])) }

    /* -- join: the leader's consent, registration on every drive, the record */
    :: d_step { AGENT(outside) && heard_admitted[n] == life[n] && ANSWERED(n) -> phase[n] = joining; send(n, REGISTER, ALL) }
    :: d_step { AGENT(joining) && ANSWERED(n) && (!READS || SETTLED || !up[PEER] || phase[PEER] == outside) ->
        heard_admitted[n] = 0; settle(n);
        if
        :: READS && CERTAIN(journal[0]) && ADMITS(journal[0]) -> follow(n, journal[0])
        :: READS && !CERTAIN(journal[0]) && CERTAIN(journal[1]) && ADMITS(journal[1]) -> follow(n, journal[1])
        :: else -> phase[n] = outside
        fi
       }

    /* -- every member: learns what the record says, serves what it gives, releases what it is asked for */
    :: d_step { IDLE && NEWER(journal[0]) -> follow(n, journal[0]) }
    :: d_step { IDLE && NEWER(journal[1]) -> follow(n, journal[1]) }
    :: d_step { IDLE && MAY_RAISE -> raise(n) }
    :: d_step { IDLE && raised[n] && PEER_IN_RECORD && moves > 0 -> moves--; raised[n] = false; lowering[n] = true }
    :: d_step { IDLE && lowering[n] && DRAINED -> lowering[n] = false; released[n] = AT(known[n]) }

    /* -- the network brings what the peer last said, at any time */
    :: d_step { up[n] && up[PEER] && heard_released[n] != released[PEER] && AGENT(member) -> heard_released[n] = released[PEER] }
    :: d_step { up[n] && up[PEER] && admitted[PEER] != 0 -> heard_admitted[n] = admitted[PEER]; admitted[PEER] = 0 }
    od
}

/* ------------------------------------------------------------------ the start: an array that was formed, a leads and owns */

init {
    byte i;
    d_step {
        for (i : 0 .. 3) { reg[i] = BIT(0) | BIT(LIVES) }
        for (i : 0 .. 2) { journal[i] = REC(1, 1, 0, 0, 5) }
        for (i : 0 .. 1) { up[i] = true; life[i] = 1; phase[i] = member; known[i] = journal[0] }
        acted = journal[0]; acked_at = AT(acted); consent = reg[0]; raised[0] = true;
        i = 0
    }
    atomic {
        run Drive(0); run Drive(1); run Drive(2); run Drive(DATA);
        run Block(0); run Block(1); run Block(2); run Block(3);
#if LIVES > 2
        run Block(4); run Block(5);
#endif
        run Host(); run Node(0); run Node(1)
    }
}
