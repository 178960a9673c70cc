#!/usr/bin/env bash
# Makes the virtual environment with the peers of Python that do not come with it. Ends with 0 if it is there.
set -euo pipefail
cd "$(dirname "$0")"
packages=(joblib==1.6.0 mpire==2.10.2)
venv=${CARGO_TARGET_DIR:-$PWD/target}/compare-venv

command -v python3 >/dev/null || { echo "python3 is not here"; exit 1; }
# The mark is made last, so that an environment which was begun only is made again.
mark="$venv/$(printf '%s,' "${packages[@]}")"
[[ -e $mark ]] && exit 0
rm -rf "$venv"
if ! { python3 -m venv "$venv" && "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check "${packages[@]}"; }; then
    rm -rf "$venv"
    echo "no virtual environment with ${packages[*]} could be made: these peers are left out"
    exit 1
fi
touch "$mark"
