#!/usr/bin/env bash
# The mutation proof: every deliberate bug in sim/mutations must be found by the simulation, within the number of seeds that the first
# line of its patch allows. A bug that isn't found shows what the simulation doesn't reach or doesn't check.
#
#   scripts/mutations.sh             # all of them
#   scripts/mutations.sh 03 07       # some of them
#
# What is tried is the commit that is checked out, with changes to files that git knows, and the patches as they are. All are applied, one
# after the other, to one copy at a place that stays: only what a patch touches is built again. What is built there has a profile of its own,
# so that cargo doesn't take it for what is built here.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
# Nobody looks at backtraces here, and this links faster; a build of one's own must not say the same.
export CARGO_PROFILE_DEV_DEBUG=0
place="$CARGO_TARGET_DIR/mutations"
tree="$place/tree"
log="$place/log"
mkdir -p "$tree"

patches=()
if [ $# -eq 0 ]; then
    patches=("$PWD"/sim/mutations/*.patch)
else
    for number in "$@"; do
        patches+=("$PWD/sim/mutations/$number"-*.patch)
        [ -f "${patches[-1]}" ] || { echo "there is no mutation $number" >&2; exit 2; }
    done
fi

commit=$(git stash create)
commit=${commit:-$(git rev-parse HEAD)}
# An index of its own, so that git sees in the copy only what differs there.
in_copy() {
    GIT_DIR="$git_dir" GIT_WORK_TREE="$tree" GIT_INDEX_FILE="$place/index" git -C "$tree" "$@"
}
git_dir=$(git rev-parse --absolute-git-dir)
restore() { in_copy read-tree --reset -u "$commit"; }

seed= after= violation=
# Sets the three, or says why it can't.
try() {
    local patch=$1 budget
    seed=- after=-
    budget=$(head -n 1 "$patch" | sed -n 's/.*; within \([0-9]*\) seeds$/\1/p')
    [ -n "$budget" ] || { violation="NO BUDGET in its first line"; return 1; }
    restore
    in_copy apply -C1 "$patch" >"$log" 2>&1 || { violation="DOESN'T APPLY: see $log"; return 1; }
    cargo build -q -p highwater-sim --manifest-path "$tree/Cargo.toml" >"$log" 2>&1 ||
        { violation="DOESN'T BUILD: see $log"; return 1; }
    cp "$CARGO_TARGET_DIR/debug/highwater-sim" "$place/highwater-sim"
    timeout 900 "$place/highwater-sim" --stop-at-first --seeds "$budget" --twice-every 0 >"$log" 2>&1 || true
    after=$(sed -n 's/^seeds=\([0-9]*\) .*/\1/p' "$log")
    seed=$(sed -n 's/^seed \([0-9]*\): .*/\1/p' "$log" | head -n 1)
    violation=$(sed -n 's/^seed [0-9]*: //p' "$log" | head -n 1)
    [ -n "$seed" ] && return
    seed=- violation="NOT FOUND: $(tail -n 1 "$log")"
    return 1
}

found=0
printf '%-42s | %5s | %5s | %s\n' mutation 'seed' 'after' 'violation'
for patch in "${patches[@]}"; do
    if try "$patch"; then found=$((found + 1)); fi
    printf '%-42s | %5s | %5s | %s\n' "$(basename "$patch" .patch)" "$seed" "$after" "${violation:0:110}"
done
restore
echo "mutations=${#patches[@]} found=$found"
[ "$found" -eq "${#patches[@]}" ]
