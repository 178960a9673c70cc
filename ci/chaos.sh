#!/usr/bin/env bash
# Runs the chaos program (tests/chaos) for SECONDS (default: 60) by each start method and transport, two at a time.
# Each line of a run that fails says how to try it again.
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
target=${CARGO_TARGET_DIR:-$PWD/target}
scratch=$target/ci/chaos
mkdir -p "$scratch"
cargo build --quiet --release --package procession-tests --bin chaos || exit 1
failed=0

# chaos METHOD TRANSPORT: one run; what it says goes to a file.
chaos() {
    "$target/release/chaos" --seed "$RANDOM" --seconds "$seconds" --method "$1" --transport "$2" >"$scratch/$1-$2" 2>&1
}

for method in spawn forkserver fork; do
    chaos "$method" rings &
    rings=$!
    chaos "$method" socket &
    socket=$!
    wait "$rings" || { failed=1; echo "FAILED: $method, rings"; }
    wait "$socket" || { failed=1; echo "FAILED: $method, socket"; }
    for transport in rings socket; do
        # Tasks that were told to panic have said so, and those that were told to print have printed.
        grep -vE "^$|as it was told|^thread '|RUST_BACKTRACE|^task [0-9]+ prints$" "$scratch/$method-$transport"
    done
done
exit $failed
