#!/usr/bin/env bash
# packages.sh: builds the two published packages from their archives, runs the unit tests that are in them, and compares the public API
# with the last tag, if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
copy=$target/ci/packages
rm -rf "$copy"
mkdir -p "$copy"
# The contents of the archives are built and tested here, so cargo's own build of them is left out.
cargo package --package procession-macros --package procession --allow-dirty --no-verify --target-dir "$target"
for archive in "$target"/package/procession-[0-9]*.crate "$target"/package/procession-macros-[0-9]*.crate; do
    tar -xzf "$archive" -C "$copy"
done
cd "$copy"
cat >Cargo.toml <<EOF
[workspace]
resolver = "3"
members = ["procession-*"]

[patch.crates-io]
procession = { path = "$(echo procession-[0-9]*)" }
procession-macros = { path = "$(echo procession-macros-*)" }
EOF
cargo test --quiet --package procession --lib --all-features --target-dir "$target"
cargo build --quiet --package procession --target-dir "$target"
cd - >/dev/null

if tag=$(git describe --tags --abbrev=0 2>/dev/null); then
    cargo semver-checks --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-semver-checks
    cargo semver-checks --package procession --baseline-rev "$tag"
else
    echo "no version has been tagged yet: there is no public API to compare with"
fi
