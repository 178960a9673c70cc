#!/usr/bin/env bash
# Builds one small program (tests/way_in) in every manner and has it prove that its workers find their functions: in every shape of
# target, with every profile setting that affects the linker, and with each linker that is installed.
#
# A cell passes if the program prints the expected sentence and exits with 0. Linkers that are not installed are named and left out.
set -uo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
package=procession-way-in
failed=0

# cell NAME SENTENCE COMMAND...: runs a command that must succeed and print the sentence.
cell() {
    local name=$1 sentence=$2 start=$SECONDS said
    shift 2
    if said=$("$@" 2>&1) && grep -qF -- "$sentence" <<<"$said"; then
        printf 'ok      %3d s  %s\n' $((SECONDS - start)) "$name"
    else
        printf 'FAILED  %3d s  %s\n%s\n' $((SECONDS - start)) "$name" "$said"
        failed=1
    fi
}

# built NAME FOLDER COMMAND...: builds both programs into target/FOLDER by a command, and has both prove themselves.
built() {
    local name=$1 folder=$2 said start=$SECONDS
    shift 2
    if ! said=$("$@" 2>&1); then
        printf 'FAILED         %s: it does not build\n%s\n' "$name" "$said"
        failed=1
        return 1
    fi
    printf 'built   %3d s  %s\n' $((SECONDS - start)) "$name"
    cell "$name" "workers run from a program" "$target/$folder/way_in"
    cell "$name, #[procession::main]" "workers run from a program with the attribute" "$target/$folder/way_in_at_main"
}

build() { cargo build --quiet --package $package --bins "$@"; }

# optimised NAME FLAG...: both programs with these flags for the last step of the compiler, which optimises all that was compiled before as
# one, and links. What was compiled before has the bitcode that this takes, which cargo leaves out where it does not know of it, and little
# optimisation. The target is named because RUSTFLAGS are for programs alone then: what runs as they are compiled is the release's.
optimised() {
    local name=$1
    shift
    built "$name" "$host/release" at_the_end "$@"
}

at_the_end() {
    local bin
    for bin in way_in way_in_at_main; do
        env RUSTFLAGS=-Cembed-bitcode=yes CARGO_PROFILE_RELEASE_OPT_LEVEL=1 ${profile[@]+"${profile[@]}"} \
            cargo rustc --quiet --release --target "$host" ${units[@]+"${units[@]}"} --package $package --bin "$bin" -- "$@" || return
        [[ " $* " != *" -Cstrip=symbols "* || -z $(nm "$target/$host/release/$bin" 2>/dev/null) ]] || { echo "$bin has symbols"; return 1; }
    done
}

# Only the last step is repeated, with another linker. The program contains the name of the linker.
link() {
    local linker=$1 bin
    shift
    for bin in way_in way_in_at_main; do
        cargo rustc --quiet --package $package --bin "$bin" -- "$@" || return
    done
    command -v readelf >/dev/null || return 0
    case $linker in
        *lld) readelf -p .comment "$target/debug/way_in" | grep -q LLD ;;
        mold) readelf -p .comment "$target/debug/way_in" | grep -q mold ;;
        gold) readelf -n "$target/debug/way_in" | grep -q gold ;;
        *) ! readelf -p .comment "$target/debug/way_in" | grep -qE 'LLD|mold' ;;
    esac || { echo "it was not $linker that linked it"; return 1; }
}

# Builds without optimisation, in target/debug.
unoptimised_cells() {
    # In test harnesses a worker's sentence is the harness's to show.
    shows=(-- --nocapture)
    built "debug" debug build
    cell "example" "workers run from an example" cargo run --quiet --package $package --example way_in
    cell "unit test" "workers run from a unit test" cargo test --quiet --package $package --lib "${shows[@]}"
    cell "integration test" "workers run from an integration test" cargo test --quiet --package $package --test way_in "${shows[@]}"
    cell "doc test" "test result: ok. 2 passed" cargo test --quiet --package $package --doc
    cell "bench, as a test" "workers run from a bench" cargo test --quiet --package $package --bench way_in
    if cargo nextest --version >/dev/null 2>&1; then
        cell "nextest, unit test" "workers run from a unit test" cargo nextest run --package $package --lib --no-capture
        cell "nextest, integration test" "workers run from an integration test" cargo nextest run --package $package --test way_in --no-capture
    else
        echo "not here        nextest"
    fi

    # rustc's own choice on this architecture is the linker that it brings; the others take its place.
    own=()
    if [[ $(uname -m) == x86_64 ]]; then
        built "linker rust-lld" debug link rust-lld
        own=(-Clinker-features=-lld)
    fi
    declare -A program=([bfd]=ld.bfd [gold]=ld.gold [lld]=ld.lld [mold]=mold)
    for linker in bfd gold lld mold; do
        if command -v "${program[$linker]}" >/dev/null; then
            built "linker $linker" debug link "$linker" ${own[@]+"${own[@]}"} "-Clink-arg=-fuse-ld=$linker"
        else
            echo "not here        linker $linker"
        fi
    done
}

# Builds of the release profile, in target/release and for a named target.
optimised_cells() {
    built "release" release build --release
    cell "bench" "workers run from a bench" cargo bench --quiet --package $package --bench way_in
    if command -v strip >/dev/null; then
        cp "$target/release/way_in" "$target/release/way_in_stripped"
        strip --strip-all "$target/release/way_in_stripped"
        cell "stripped by strip" "workers run from a program" "$target/release/way_in_stripped"
    fi
    local profile=() units=() crate
    optimised "stripped" -Cstrip=symbols
    optimised "thin LTO" -Clto=thin
    optimised "fat LTO" -Clto=fat
    # In how many object files a crate's functions are matters for the crates that have some.
    for crate in procession-foreign $package; do
        units+=(--config "profile.release.package.$crate.codegen-units=1")
    done
    optimised "one codegen unit" -Ccodegen-units=1
    # This is for all crates: the library asks for it when it is compiled.
    profile=(CARGO_PROFILE_RELEASE_PANIC=abort)
    optimised "fat LTO, one codegen unit, panic = \"abort\", stripped" -Clto=fat -Ccodegen-units=1 -Cstrip=symbols
    units=()
    optimised "panic = \"abort\""
}

# The two have folders of their own, so neither waits for the other.
host=$(rustc -vV | sed -n 's/^host: //p')
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
(optimised_cells; exit $failed) >"$scratch/said" 2>&1 &
unoptimised_cells
wait $! || failed=1
cat "$scratch/said"
exit $failed
