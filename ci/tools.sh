#!/usr/bin/env bash
# Installs the tools that the checks use. Rust's own tools must be there. Tools for fuzzing are installed, and linkers if possible (as
# root, with access to a package archive). Prints which linkers are not tried.
set -uo pipefail

missing=0
for component in rustfmt cargo-clippy rustdoc; do
    command -v "$component" >/dev/null || { echo "missing: $component, a component of the Rust toolchain"; missing=1; }
done
for tool in cc c++ strip; do
    command -v "$tool" >/dev/null || { echo "missing: $tool, without which not everything is built"; missing=1; }
done
[[ $missing == 0 ]] || exit 1

# Fuzz targets are built by a nightly compiler.
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "installing the nightly toolchain, for fuzzing"
    rustup toolchain install nightly --profile minimal || { echo "missing: the nightly toolchain"; exit 1; }
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "installing cargo-fuzz"
    cargo install --quiet --locked cargo-fuzz || { echo "missing: cargo-fuzz"; exit 1; }
fi

# A static build is tried where its target is.
musl=$(rustc -vV | sed -n 's/^host: \(.*\)-gnu$/\1-musl/p')
if [[ -n $musl ]] && ! rustup target list --installed 2>/dev/null | grep -qx "$musl"; then
    rustup target add "$musl" >/dev/null 2>&1 || echo "not here: the target $musl"
fi

declare -A package=([ld.gold]=binutils [ld.lld]=lld [mold]=mold [setpriv]=util-linux [strace]=strace [gdb]=gdb [valgrind]=valgrind [setcap]=libcap2-bin)
wanted=()
for tool in "${!package[@]}"; do
    command -v "$tool" >/dev/null || wanted+=("$tool")
done
# Allocators that `ci/environments.sh` loads are libraries.
package[libjemalloc.so.2]=libjemalloc2 package[libmimalloc.so.2]=libmimalloc2.0
has() { command -v "$1" >/dev/null || { [[ $1 == *.so.* ]] && ldconfig -p | grep -wF "$1" >/dev/null; }; }
for library in libjemalloc.so.2 libmimalloc.so.2; do
    has "$library" || wanted+=("$library")
done
if ((${#wanted[@]})); then
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null && apt-get update -qq >/dev/null 2>&1; then
        for tool in "${wanted[@]}"; do
            echo "installing ${package[$tool]}, for $tool"
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${package[$tool]}" >/dev/null || exit 1
            has "$tool" || { echo "missing: $tool, though ${package[$tool]} is installed"; exit 1; }
        done
    else
        echo "not here, and not to be installed from here: ${wanted[*]} (packages: $(for t in "${wanted[@]}"; do printf '%s ' "${package[$t]}"; done))"
        echo "what needs them says so and is not proven by this run"
    fi
fi
rustc --version
cargo --version
cargo +nightly --version
cargo fuzz --version
