#!/usr/bin/env bash
# Forwards real hidden states through one layer of a Hugging Face checkpoint, on three workers.
#
#   examples/run-checkpoint.sh [OUT.safetensors] [more flags of `expertmesh run`]
#
# The checkpoint here is a tiny Mixtral block of the test data. With a real one, put its directory,
# a layer, and a file with `hidden_states` [T, H] or [B, S, H] in their places.
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

output=${1:-target/run-checkpoint.safetensors}
shift $(($# > 0))
checkpoint=crates/testkit/goldens/mixtral
mkdir -p "$(dirname "$output")"

# What the directory holds, and what each worker would load.
"${expertmesh[@]}" inspect "$checkpoint"

"${expertmesh[@]}" run --model "$checkpoint" --layer 1 --workers 3 \
    --input "$checkpoint/input.safetensors" --output "$output" "$@"
