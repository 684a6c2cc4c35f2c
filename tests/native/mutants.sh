#!/bin/sh
# Takes one rule of the worker's journal away at a time: kill.c, or wires_kill.c, must find each mutant out, or it checks nothing.
#
# usage: mutants.sh KILL_BINARY COMPILE...   (in this folder; COMPILE compiles the binary's source, but for its -I)
set -eu
kill_binary=$1
shift
out=$(dirname "$kill_binary")/mutants
found=0

# name, source, sed expression, compiler
try() {
    name=$1 source=$2 change=$3
    shift 3
    rm -rf "${out:?}/$name"
    mkdir -p "$out/$name"
    # A quoted include looks first where the including file is: here, for a mutant of a header.
    cp ../../native/worker.c ../../native/vcpu_loop.h ../../native/client.c ../../native/posting.[ch] ../../native/journal.c "$out/$name"
    sed "$change" "../../native/$source" >"$out/$name/$source"
    if cmp -s "../../native/$source" "$out/$name/$source"; then
        echo "mutants: '$name' changes nothing in $source any more: write it anew" >&2
        exit 1
    fi
    "$@" "-I$out/$name" -I../../native -o "$out/$name/kill" || { echo "mutants: '$name' does not compile" >&2; exit 1; }
    if "$out/$name/kill" >"$out/$name/log" 2>&1; then
        if grep -q skipped "$out/$name/log"; then
            cat "$out/$name/log"
            exit 0
        fi
        echo "mutants: '$name' was not found out" >&2
        exit 1
    fi
    grep -q "^kill: " "$out/$name/log" || { echo "mutants: '$name' broke the harness:" >&2; cat "$out/$name/log" >&2; exit 1; }
    found=$((found + 1))
}

if [ "$(basename "$kill_binary")" = wires_kill ]; then
    try output-not-kept vcpu_wires.h '/^    look_at_output(v);/d' "$@"
    try lines-forgotten-first vcpu_wires.h 's/int send = (told/v->client.lines = 0; sio_fence_compiler(); &/' "$@"
    try vector-not-kept vcpu_wires.h 's/if (!v->vector) {/if (1) {/' "$@"
    try wires-not-resumed vcpu_loop.h 's/v->wire_step && resume_wires/0 \&\& resume_wires/' "$@"
    echo "mutants: $found of $found mutants of the wires' journal were found out"
    exit 0
fi

try no-sentinel vcpu_loop.h '/exit_reason, SIO_SENTINEL);/d' "$@"
try journal-forgotten-before-sentinel vcpu_loop.h \
    's/sio_store_release(&v->run->exit_reason, SIO_SENTINEL);/sio_client_complete(\&v->client); &/' "$@"
try fragment-forgotten-before-sentinel vcpu_loop.h \
    's/sio_store_release(&v->run->exit_reason, SIO_SENTINEL);/v->fragment = 0; sio_fence_compiler(); &/' "$@"
try no-fragment-journal vcpu_loop.h '/sio_store_release(&v->fragment/d' "$@"
try no-sync-journal request.h '/SIO_PENDING(SIO_PENDING_SYNC, shard, seq)/d' "$@"
try counted-before-published posting.h 's/pending | SIO_PENDING(SIO_PENDING_POSTED, 0, 0)/pending + 1/' "$@"
try first-counted-before-published posting.c 's/SIO_PENDING(SIO_PENDING_POSTED, to->shard, n)/SIO_PENDING(0, to->shard, n + 1)/' "$@"
try posted-twice client.c 's/if (sio_load_relaxed(&sio_posted_slot/if (1 || sio_load_relaxed(\&sio_posted_slot/' "$@"
try never-posted client.c 's/if (sio_load_relaxed(&sio_posted_slot/if (0 \&\& sio_load_relaxed(\&sio_posted_slot/' "$@"
try ring-not-noted-on-resumption client.c '/note_posted(c, SIO_PENDING(0, shard, n))/d' "$@"
try resting-kept-on-resumption client.c '/^            c->resting = 0;/d' "$@"
try resting-kept-while-a-ring-opens posting.c '/c->resting = 0;/d' "$@"
try taken-before-counted journal.c 's/ + (pending >> 62 == SIO_PENDING_POSTED)//' "$@"
try question-forgotten-before-sentinel vcpu_loop.h \
    's/^    complete(v);$/    sio_store_release(\&v->question, SIO_NO_QUESTION);\n&/' "$@"
try question-asked-anew vcpu_loop.h 's/sio_load_acquire(&v->question) == SIO_NO_QUESTION/1/' "$@"
try question-not-finished-on-resumption vcpu_loop.h 's/if (v->question != SIO_NO_QUESTION)/if (0)/' "$@"
try routes-not-forgotten vcpu_loop.h '/sio_client_resume/d' "$@"
echo "mutants: $found of $found mutants of the worker's journal were found out"
