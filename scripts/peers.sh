#!/usr/bin/env bash
# Builds the peers that the benchmarks measure against, each in its own folder under .peers/.
# Run it again at any time: a peer that is already built from the same list is left alone.
#   scripts/peers.sh          (PYTHON=… picks the interpreter)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -z ${PYTHON:-} ]]; then
  if [[ -x .venv/bin/python ]]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi

# build NAME CHECK: .peers/NAME from scripts/peers-NAME.txt; CHECK prints what was built.
build() {
  local folder=.peers/$1 list=scripts/peers-$1.txt
  local built=$folder/built-from.txt # written last, so a half-made environment is made again
  if [[ -f $built ]] && cmp -s "$list" "$built"; then
    echo "$folder: up to date"
    return
  fi
  echo "$folder: building from $list"
  rm -rf "$folder"
  mkdir -p .peers
  "$PYTHON" -m venv "$folder"
  local pip=("$folder/bin/python" -m pip install --quiet --disable-pip-version-check)
  local torch
  torch=$(grep '^torch==' "$list" || true)
  if [[ -n $torch ]]; then "${pip[@]}" "$torch"; fi
  "${pip[@]}" --requirement "$list"
  "$folder/bin/python" -c "$2"
  cp "$list" "$built"
}

build trl 'import torch, transformers, trl; print("torch", torch.__version__, "transformers", transformers.__version__, "trl", trl.__version__)'
build arena 'from importlib.metadata import version; print("arena-rank", version("arena-rank"), "evalica", version("evalica"))'
