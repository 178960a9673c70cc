#!/usr/bin/env bash
# Runs the chaos program (tests/chaos) for SECONDS (default: 60) by each start method and transport, all at a time: a run computes for a
# quarter of its time at most (`time chaos --seed 1 --seconds 12 --method fork`), and waits for the rest.
# The line of a run that fails has the command that repeats it.
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
target=${CARGO_TARGET_DIR:-$PWD/target}
scratch=$target/ci/chaos
mkdir -p "$scratch"
cargo build --quiet --release --package procession-tests --bin chaos || exit 1
failed=0

# chaos METHOD TRANSPORT WORK: one run, whose output goes to a file.
chaos() {
    "$target/release/chaos" --seed "$RANDOM" --seconds "$seconds" --method "$1" --transport "$2" --work "$3" >"$scratch/$1-$2-$3" 2>&1
}

declare -A runs=()
for run in {spawn,forkserver,fork}-{rings,socket}-calls {spawn,forkserver,fork}-rings-state; do
    IFS=- read -r method transport work <<<"$run"
    chaos "$method" "$transport" "$work" &
    runs[$run]=$!
done
for run in "${!runs[@]}"; do
    wait "${runs[$run]}" || { failed=1; echo "FAILED: $run"; }
    # The panics and the printed lines of tasks are expected, so they are left out.
    grep -vE "^$|as it was told|^thread '|RUST_BACKTRACE|^task [0-9]+ prints$" "$scratch/$run"
done
exit $failed
