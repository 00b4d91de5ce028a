#!/usr/bin/env bash
# Installs the clients that `make test-clients` runs, each in its own environment: .peers/client-NAME from
# tests/clients/requirements/NAME.txt, and where there is npm .peers/client-NAME-npm from tests/clients/npm/NAME.json.
# Run it again at any time: one that is up to date is left alone.
#   scripts/clients.sh          (PYTHON=… picks the interpreter)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -z ${PYTHON:-} ]]; then
  if [[ -x .venv/bin/python ]]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi

for list in tests/clients/requirements/*.txt; do
  folder=.peers/client-$(basename "$list" .txt)
  built=$folder/built-from.txt # written last, so a half-made environment is made again
  if [[ -f $built ]] && cmp -s "$list" "$built"; then continue; fi
  echo "$folder: building from $list"
  rm -rf "$folder"
  mkdir -p .peers
  "$PYTHON" -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$list"
  cp "$list" "$built"
done

for list in tests/clients/npm/*.json; do
  folder=.peers/client-$(basename "$list" .json)-npm
  built=$folder/built-from.json
  if [[ -f $built ]] && cmp -s "$list" "$built"; then continue; fi
  if ! command -v npm >/dev/null; then
    echo "$folder: left out, since npm is not here"
    continue
  fi
  echo "$folder: building from $list"
  rm -rf "$folder"
  mkdir -p "$folder"
  cp "$list" "$folder/package.json"
  npm install --silent --no-audit --no-fund --prefix "$folder"
  cp "$list" "$built"
done
