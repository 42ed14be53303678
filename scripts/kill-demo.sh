#!/usr/bin/env bash
# Kills the flights example ten times with kill -9, and counts what that did to its results.
#
#   scripts/kill-demo.sh                     the demonstration; its last line is: kills=10 lost=0 doubled=0
#   scripts/kill-demo.sh --compare ONE TWO   only compares two output folders of the example
#
# The job runs undisturbed once. Then it runs again, slowed down, into another folder; at random moments the process is killed, and
# started again with one worker and two in turn. In the end both outputs are compared:
#
#   routes     has a row for every flight, in which the route's counter has gone up by one. So every (route, counter) must be there
#              exactly once, and in order. A row that is missing is lost, one that is there again is doubled.
#   disrupted  are flights as they were read: the same rows, as often.
#   carriers   has a row when a carrier has changed: its counter never falls.
#   routes and carriers: the last row of each key is the same.
#
# SEED=n kills at the same moments again; KEEP=1 keeps the folder with both outputs, which is kept after a failure anyway.
set -euo pipefail
export LC_ALL=C

kills=10
rate=30000 # Ten attempts of a second at the most don't reach the end of 336,776 flights.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    echo "FAILED: $*"
    exit 1
}

# The parts of a sink one after another, in order, without the header that each begins with.
csv_rows() { # FOLDER
    local part
    for part in "$1"/part-*.csv; do
        tail -n +2 "$part"
    done
}

json_rows() { # FOLDER
    cat "$1"/part-*.ndjson
}

carrier_counters() { # FOLDER
    json_rows "$1" | sed -E 's/^\{"carrier":"([^"]+)","flights":([0-9]+),.*/\1 \2/'
}

# Compares two output folders. Sets lost and doubled, and problem if something else is wrong.
compare() { # EXPECTED FOUND
    local one=$1 two=$2 sorted sink rows
    sorted=$(mktemp -d)
    lost=0 doubled=0 problem=
    for sink in routes disrupted; do
        # Of a route only the key and the counter: means depend on which flight came before which.
        local columns=1-
        [ $sink = routes ] && columns=1-4
        csv_rows "$one/$sink" | cut -d, -f$columns | sort >"$sorted/one"
        csv_rows "$two/$sink" | cut -d, -f$columns | sort >"$sorted/two"
        comm -23 "$sorted/one" "$sorted/two" >"$sorted/lost"
        comm -13 "$sorted/one" "$sorted/two" >"$sorted/doubled"
        rows=$(wc -l <"$sorted/one")
        echo "$sink: $rows rows expected, $(wc -l <"$sorted/two") found"
        head -n 3 "$sorted/lost" | sed 's/^/  lost: /'
        head -n 3 "$sorted/doubled" | sed 's/^/  doubled: /'
        lost=$((lost + $(wc -l <"$sorted/lost")))
        doubled=$((doubled + $(wc -l <"$sorted/doubled")))
        [ "$rows" -gt 0 ] || problem="$one/$sink is empty"
    done

    csv_rows "$two/routes" | awk -F, '++seen[$1 "," $2 "," $3] != $4 { print "  out of order: " $0; exit 1 }' ||
        problem="a route's counter doesn't go up by one with every row"
    carrier_counters "$two/carriers" | awk '$2 < last[$1] { print "  fell: " $0; exit 1 } { last[$1] = $2 }' ||
        problem="a carrier's counter falls"

    for rows in one two; do
        csv_rows "${!rows}/routes" | awk -F, '{ last[$1 "," $2 "," $3] = $0 } END { for (key in last) print last[key] }' |
            sort >"$sorted/routes-$rows"
        json_rows "${!rows}/carriers" | awk -F'"' '{ last[$4] = $0 } END { for (key in last) print last[key] }' |
            sort >"$sorted/carriers-$rows"
    done
    for sink in routes carriers; do
        if diff "$sorted/$sink-one" "$sorted/$sink-two" >"$sorted/different"; then
            echo "$sink: the last rows of all $(wc -l <"$sorted/$sink-one") keys are equal"
        else
            head -n 4 "$sorted/different"
            problem="the last rows of $sink differ"
        fi
    done
    rm -r "$sorted"
}

# Says how it went, in the last line.
verdict() { # KILLS
    [ -z "$problem" ] || fail "$problem (kills=$1 lost=$lost doubled=$doubled)"
    echo "kills=$1 lost=$lost doubled=$doubled"
    [ "$1 $lost $doubled" = "$kills 0 0" ]
}

if [ "${1-}" = --compare ]; then
    compare "$2" "$3"
    verdict $kills
    exit
fi
[ $# -eq 0 ] || fail "unknown argument $1"

cd "$root"
cargo build --release --package highwater --example flights
target=$(cargo metadata --format-version 1 --no-deps | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
flights="$target/release/examples/flights"
work=$(mktemp -d "$target/kill-demo-XXXXXX")
pid=
finish() {
    local status=$?
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
    if [ $status -eq 0 ] && [ -z "${KEEP-}" ]; then rm -r "$work"; else echo "outputs and logs are in $work" >&2; fi
}
trap finish EXIT
trap 'exit 130' INT TERM

# The checkpoint interval is short, because so are the lives of the process.
job() { # OUTPUT ARGUMENTS...
    local output=$1
    shift
    "$flights" --output "$work/$output" --checkpoints "$work/$output-checkpoints" --checkpoint-interval 100ms "$@"
}

published() {
    csv_rows "$work/killed/routes" 2>/dev/null | wc -l
}

echo "undisturbed ..."
job calm >"$work/calm.log" 2>&1 || { cat "$work/calm.log"; fail "the undisturbed run"; }
total=$(gzip -dc crates/highwater/examples/data/flights/*.csv.gz | grep -vc '^year')
[ "$(csv_rows "$work/calm/routes" | wc -l)" -eq "$total" ] || fail "the undisturbed run doesn't have all $total flights"

seed=${SEED:-$RANDOM}
RANDOM=$seed
echo "now with kill -9 (SEED=$seed) ..."
for ((killed = 0; killed < kills;)); do
    workers=$((killed % 2 + 1))
    ms=$((RANDOM % 950 + 50))
    job killed --workers $workers --rate $rate >"$work/killed.log" 2>&1 &
    pid=$!
    sleep "$(printf '0.%03d' $ms)"
    # A process that has ended meanwhile has another status.
    kill -9 "$pid" 2>/dev/null || true
    status=0
    { wait "$pid" || status=$?; } 2>/dev/null
    pid=
    if [ $status -ne 137 ]; then
        cat "$work/killed.log"
        fail "attempt $((killed + 1)) ended by itself with status $status"
    fi
    killed=$((killed + 1))
    printf 'kill %d after 0.%03d s, %d worker(s): %d of %d flights published\n' $killed $ms $workers "$(published)" "$total"
done

echo "and to the end ..."
job killed --workers 2 >"$work/killed.log" 2>&1 || { cat "$work/killed.log"; fail "the run after the last kill"; }
grep '^flights: finished' "$work/killed.log" || fail "the run after the last kill didn't finish"
compare "$work/calm" "$work/killed"
verdict $killed
