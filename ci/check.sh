#!/usr/bin/env bash
# Everything that CI checks, in one go: ends with 0 if all of it passed.
#
# Each step runs once. The steps after a failed one run, too. The end repeats the results of the tests, and then
# lists the steps with their durations. What only compiles runs beside the tests.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
scratch=$target/ci
mkdir -p "$scratch"
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-always} CARGO_INCREMENTAL=0
# Tests of processes wait more than they compute.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}

steps=()
failed=0

# step NAME COMMAND...: runs a command and notes how it went.
step() {
    local name=$1 start=$SECONDS verdict=passed
    shift
    printf '\n=== %s\n' "$name"
    "$@" || { verdict="FAILED ($?)"; failed=1; }
    steps+=("$(printf '%-10s %4d s  %s' "$verdict" $((SECONDS - start)) "$name")")
    printf '=== %s: %s after %d s\n' "$name" "$verdict" $((SECONDS - start))
}

# The line between the marker and the end of its code block is the command that README.md gives for running the tests.
readme_test_command() {
    awk '/^cargo test( |$)/ { print; exit }' README.md
}

documented_tests() {
    local command
    command=$(readme_test_command 2>/dev/null)
    if [[ $command != "cargo test --workspace" ]]; then
        echo "README.md gives \`$command\` for running the tests, and not \`cargo test --workspace\`"
        return 1
    fi
    $command 2>&1 | tee "$scratch/test.log"
}

nextest() {
    if cargo nextest --version >/dev/null 2>&1; then
        # The promises that need worker processes are tried in many ways below: here it is that this runner, too, finds workers.
        cargo nextest run --workspace -E 'not (binary(integration) | binary(life)) | test(/^(pool|crash|panic)::/)'
    else
        echo "cargo-nextest is not installed: the suite is not run under it here"
    fi
}

# Repeats the tests that need worker processes with these variables: another transport or start method. It builds the workspace, because
# the features of dependencies are then those that all tests were built with.
integration() {
    env "$@" cargo test --quiet --workspace --test integration
}

# The same, by copies of the host. The tests that this start method cannot pass are named first, with the reason.
integration_by_fork() {
    cargo test --quiet --workspace --test integration -- --exact --nocapture \
        alone::few_tests_do_not_run_under_fork_and_each_has_a_reason || return
    integration PROCESSION_START_METHOD=fork
}

# Every call in the calling process. The tests that need processes by what they are about are named first, with the reason.
integration_in_process() {
    cargo test --quiet --workspace --test integration -- --exact --nocapture \
        alone::each_test_that_does_not_run_in_process_has_a_reason || return
    integration PROCESSION_IN_PROCESS=1
}

# Each feature by itself: an item that needs another one, or a link to it, is found here.
docs_by_feature() {
    local feature
    for feature in indicatif futures ndarray tokio tracing; do
        RUSTDOCFLAGS="-D warnings" cargo doc --quiet --package procession --no-deps --features "$feature" || return
    done
}

# Licenses, duplicates and sources of all that is built; known vulnerabilities where their list can be fetched.
deny() {
    cargo deny --log-level error check licenses bans sources || return
    cargo deny --log-level error --manifest-path benches/compare/Cargo.toml check licenses bans sources || return
    if cargo deny fetch db >/dev/null 2>&1; then
        cargo deny --log-level error check advisories
    else
        echo "the list of known vulnerabilities cannot be fetched from here: nothing has been looked up in it"
    fi
}

# The public API against that of the last release, if there has been one.
semver() {
    local last
    if ! last=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null); then
        echo "no release has been tagged yet: there is nothing to compare with"
    elif ! cargo semver-checks --version >/dev/null 2>&1; then
        echo "cargo-semver-checks is not installed: $last is not compared with"
        return 1
    else
        cargo semver-checks --package procession --all-features --baseline-rev "$last"
    fi
}

# address_sanitizer ARGUMENT...: the code that reads what another process writes, with every access to memory checked.
address_sanitizer() {
    RUSTFLAGS=-Zsanitizer=address cargo +nightly test --quiet --package procession --lib --target "$(rustc -vV | sed -n 's/^host: //p')" \
        --target-dir "$target/asan" "$@"
}

# models ARGUMENT...: the models of what is lock-free.
models() {
    RUSTFLAGS="--cfg loom" cargo test --quiet --package procession --lib --target-dir "$target/loom" "$@"
}

format() {
    cargo fmt --all --check && cargo fmt --check --manifest-path fuzz/Cargo.toml
}

# Fuzzes a target for this many seconds. The inputs that it found are kept for the next run.
fuzz() {
    local corpus=$scratch/corpus/$1
    mkdir -p "$corpus"
    cargo +nightly fuzz run "$1" --fuzz-dir fuzz --target-dir "$target/fuzz" "$corpus" -- -max_total_time="$2" -verbosity=0 -print_final_stats=1
}

build_fuzz() {
    cargo +nightly fuzz build --fuzz-dir fuzz --target-dir "$target/fuzz"
}

# Both are built before either runs; each then has a core to itself.
fuzz_both() {
    build_fuzz || return
    local frames verdict=0
    fuzz hostile_frames 20 >"$scratch/hostile_frames.log" 2>&1 &
    frames=$!
    fuzz hostile_ring 45 || verdict=$?
    wait "$frames" || verdict=$?
    cat "$scratch/hostile_frames.log"
    return "$verdict"
}

# A folder with a program or two, and with files that only look like programs.
small_folder() {
    local folder=$scratch/programs
    rm -rf "$folder"
    mkdir -p "$folder/nested"
    cp "$(command -v cargo)" "$folder/"
    cp "$(command -v sh)" "$(command -v cp)" "$folder/nested/"
    head -c 4096 "$(command -v sh)" >"$folder/cut-short"
    printf '\x7fELF' >"$folder/four-bytes"
    echo "$folder"
}

examples() {
    local example arguments
    for example in $(awk -F'"' '/^\[\[/ { in_example = /^\[\[example\]\]/ } in_example && /^name *=/ { print $2 }' examples/Cargo.toml); do
        printf -- '--- %s\n' "$example"
        arguments=()
        [[ $example == census ]] && arguments=("$(small_folder)")
        # A gigabyte is for a machine that has nothing else to do.
        [[ $example == preload ]] && arguments=(128)
        [[ $example == large_arguments ]] && arguments=(--mib 200)
        [[ $example == process_data ]] && arguments=(--mib 512)
        cargo run --quiet --package procession-examples --example "$example" -- ${arguments[@]+"${arguments[@]}"} || return
    done
}

benches() {
    if [[ -f benches/Cargo.toml ]]; then
        cargo bench --package procession-benches -- --test
    else
        echo "benches/ has no package yet: nothing is run"
    fi
}

# benches/compare is a workspace of its own, so the steps for ours do not see it. A peer that cannot be had here is named, and no failure.
compare() {
    local compare=(--locked --manifest-path benches/compare/Cargo.toml)
    export CARGO_TARGET_DIR=$target
    cargo fmt --manifest-path benches/compare/Cargo.toml --check || return
    cargo clippy "${compare[@]}" --all-targets -- -D warnings || return
    cargo test "${compare[@]}" || return
    benches/compare/venv.sh || echo "going on without it"
    cargo run "${compare[@]}" -- --test || return
    cargo run "${compare[@]}" -- real --test
}

# The oldest Rust that the packages are for. Where it is not installed, and cannot be, what is left is clippy's `incompatible_msrv`, which is
# among the lints above and knows since when each item of std is there, but not since when the language has what is written.
oldest_rust() {
    local oldest
    oldest=$(awk -F'"' '/^rust-version/ { print $2 }' Cargo.toml)
    if cargo "+$oldest" --version >/dev/null 2>&1; then
        cargo "+$oldest" check --package procession --all-features --target-dir "$target/oldest"
    else
        echo "Rust $oldest is not installed: only clippy::incompatible_msrv has been asked"
    fi
}

# What checks licenses takes minutes to build. A debug build takes half the time.
install_deny() {
    cargo deny --version >/dev/null 2>&1 ||
        cargo install --quiet --locked --debug --no-default-features --jobs 1 --target-dir "$scratch/deny" cargo-deny
}

# What only compiles, in target directories of its own. Tests wait more than they compute, so this takes the time that they leave. The
# results of its steps are printed in the end.
compile_beside() {
    renice -n 19 $BASHPID >/dev/null
    steps=()
    export CARGO_BUILD_JOBS=1
    step "dependencies, the lowest" ci/dependencies.sh lowest
    step "dependencies, the newest" ci/dependencies.sh newest
    step "docs, as docs.rs builds them" env RUSTDOCFLAGS="--cfg docsrs -D warnings" \
        cargo +nightly doc --package procession --no-deps --all-features --target-dir "$target/docsrs"
    step "models, built" models --no-run
    step "address sanitizer, built" address_sanitizer --no-run
    step "fuzzing, built" build_fuzz
    step "deny, installed" install_deny
    printf '%s\n' "${steps[@]}" >"$scratch/beside.steps"
    exit $failed
}

step "tools" ci/tools.sh
rm -f "$scratch/beside.steps"
(compile_beside) >"$scratch/beside.log" 2>&1 &
beside=$!
step "format" format
step "lints" cargo clippy --workspace --all-targets -- -D warnings
step "lints, with every feature" cargo clippy --workspace --all-targets --all-features -- -D warnings
step "lints, without any" cargo clippy --package procession --package procession-examples --all-targets -- -D warnings
step "the oldest Rust" oldest_rust
step "docs" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features
step "docs, with the default features" env RUSTDOCFLAGS="-D warnings" cargo doc --package procession --package procession-macros --no-deps
step "docs, with each feature alone" docs_by_feature
step "packages, from their archives" ci/packages.sh
step "the API against the last release" semver
step "tests, by the README's command" documented_tests
step "tests, under nextest" nextest
step "tests, over sockets" integration PROCESSION_TRANSPORT=socket
step "tests, by the fork server" integration PROCESSION_START_METHOD=forkserver
step "tests, by fork" integration_by_fork
step "tests, in process" integration_in_process
step "models of what is lock-free" models models
step "address sanitizer: ring and codec" address_sanitizer -- ring:: codec:: transport:: protocol::
step "fuzzing: a hostile ring, hostile frames" fuzz_both
step "chaos: random signals to workers and templates" ci/chaos.sh 60
step "every way in" ci/way-in.sh
step "every environment" ci/environments.sh
step "examples" examples
step "benches, once, as tests" benches
step "comparison with others, once, as a test" compare
wait "$beside" || failed=1
cat "$scratch/beside.log"
mapfile -t -O "${#steps[@]}" steps <"$scratch/beside.steps"
step "licenses and sources of dependencies" deny

printf '\n=== what cargo test said\n'
grep -E 'Running|Doc-tests|^test result|FAILED|panicked' "$scratch/test.log" 2>/dev/null
printf '\n=== steps, %d s in all\n' "$SECONDS"
printf '%s\n' "${steps[@]}"
exit $failed
