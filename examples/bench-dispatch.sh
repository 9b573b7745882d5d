#!/usr/bin/env bash
# Measures the exchange beside its floor: messages of the same sizes in the same pattern, answered
# without any work. Identity experts leave nothing but dispatch to be measured.
#
#   examples/bench-dispatch.sh [more flags of `expertmesh bench dispatch`]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# EXPERTMESH names the binary; without it, the one on the PATH, else the one that cargo builds.
if [[ -n ${EXPERTMESH:-} ]]; then
    expertmesh=("$EXPERTMESH")
elif command -v expertmesh >/dev/null; then
    expertmesh=(expertmesh)
else
    expertmesh=(cargo run --release --locked --quiet --)
fi

for exchange in star all-to-all; do
    "${expertmesh[@]}" bench dispatch --exchange "$exchange" --workers 4 \
        --expert identity --experts 8 --top-k 2 --hidden 1024 "$@"
done
