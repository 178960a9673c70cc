#!/usr/bin/env bash
# dependencies.sh lowest|newest: checks the two published packages, with every feature, against the lowest or the newest versions of what they
# depend on. In a copy, because the lock file of the workspace is for everything else.
set -euo pipefail
cd "$(dirname "$0")/.."
which=$1
target=${CARGO_TARGET_DIR:-$PWD/target}
copy=$target/ci/$which
rm -rf "$copy"
mkdir -p "$copy"
cp -rL runtime macros README.md "$copy/"
sed 's/^members = .*/members = ["macros", "runtime"]/' Cargo.toml >"$copy/Cargo.toml"
# What is for tests alone is not what users get.
for manifest in "$copy"/{runtime,macros}/Cargo.toml; do
    awk '/^\[/ { skip = /dev-dependencies\]$/ || /cfg\(loom\)/ } !skip' "$manifest" >"$manifest.new"
    mv "$manifest.new" "$manifest"
done
cd "$copy"
case $which in
    lowest) cargo +nightly generate-lockfile -Z direct-minimal-versions ;;
    newest) cargo generate-lockfile ;;
    *) echo "lowest or newest, not $which"; exit 1 ;;
esac
cargo tree --edges normal,build --depth 1 --all-features --prefix none | sort -u
cargo check --locked --all-features --target-dir "$target/dependencies"
cargo check --locked --package procession --target-dir "$target/dependencies"
