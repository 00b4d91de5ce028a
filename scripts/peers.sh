#!/usr/bin/env bash
# Builds the peers that the benchmarks measure against, each in its own folder under .peers/.
# Run it again at any time: a peer that is already built from the same list is left alone.
#   scripts/peers.sh          (PYTHON=… picks the interpreter)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -z ${PYTHON:-} ]]; then
  if [[ -x .venv/bin/python ]]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi

build_trl() {
  local folder=.peers/trl list=scripts/peers-trl.txt
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
  "${pip[@]}" "$(grep '^torch==' "$list")"
  "${pip[@]}" --requirement "$list"
  "$folder/bin/python" -c 'import torch, transformers, trl; print("torch", torch.__version__, "transformers", transformers.__version__, "trl", trl.__version__)'
  cp "$list" "$built"
}

build_trl
