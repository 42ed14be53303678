#!/usr/bin/env bash
# Runs every check and test of the project, and installs what they need. About half an hour on two cores when nothing is
# built yet. Usage: scripts/test.sh
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step "tools"
for component in rustfmt clippy; do
    cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$component"
done
missing=""
# The test that looks at fsyncs needs strace; the servers come with Python.
command -v strace >/dev/null 2>&1 || missing="strace"
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
if [ -n "$missing" ]; then
    sudo=""; [ "$(id -u)" = 0 ] || sudo="sudo"
    # shellcheck disable=SC2086 # words are packages
    $sudo apt-get update -qq && $sudo apt-get install -y -qq $missing >/dev/null
fi
scripts/test-servers.sh

step "format"
cargo fmt --all --check

# With what is off by default, and the same for all of these: another choice of features would build everything once more.
all="--workspace --features highwater/parquet --locked"

step "clippy"
cargo clippy $all --all-targets -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc $all --no-deps

step "tests"
cargo test $all --all-targets --no-fail-fast
cargo test $all --doc

step "simulation: fixed seeds, new ones, every crash of small jobs, a user's job"
# With debug assertions, and built already. A new seed that fails is reported, and doesn't hold up the change at hand.
cargo build $all --bins --examples
built="${CARGO_TARGET_DIR:-target}/debug"
simulate() { timeout 12m "$built/highwater-sim" "$@"; }
commits=$(git rev-list --count HEAD 2>/dev/null || echo 1)
simulate --seeds 3000
simulate --exhaustive --every 7 --pairs-every 61
simulate --minutes 3 --start $((commits * 1000000)) || echo "A NEW SEED FAILS: see above, and open an issue"
"$built/examples/first_visits"

step "the main job, killed ten times"
scripts/kill-demo.sh
