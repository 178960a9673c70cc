#!/usr/bin/env bash
# The one command: makes the environment of Python's peers if it can, and runs the comparison. `--help` tells the options.
set -euo pipefail
cd "$(dirname "$0")"
./venv.sh || echo "going on without it"
exec cargo run --release --locked --manifest-path Cargo.toml -- "$@"
