#!/usr/bin/env bash
# The one command: creates the environment of Python's peers if possible, and runs the comparison. `--help` lists the options.
set -euo pipefail
cd "$(dirname "$0")"
./venv.sh || echo "going on without it"
exec cargo run --release --locked --manifest-path Cargo.toml -- "$@"
