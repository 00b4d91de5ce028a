#!/usr/bin/env bash
# Builds llama.cpp's own server as .peers/llama-server/bin/llama-server, from the sources inside llama-cpp-python's release
# (whose Python server answers one request at a time). Called by scripts/peers.sh, which has made the environment.
# Without the page and HTTPS, whose parts would be downloaded. Compiled for this machine's CPU: minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=$PWD/.peers/llama-server
release=$(grep '^llama-cpp-python==' scripts/peers-llama.txt)
"$folder/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation \
  --dest "$folder" "$release"
mkdir -p "$folder/source"
tar xzf "$folder"/llama_cpp_python-*.tar.gz --directory "$folder/source" --strip-components 1
export PATH=$folder/bin:$PATH
cmake -S "$folder/source/vendor/llama.cpp" -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF >"$folder/build.log" 2>&1
cmake --build "$folder/build" --target llama-server >>"$folder/build.log" 2>&1
cp "$folder/build/bin/llama-server" "$folder/bin/"
"$folder/bin/llama-server" --version
rm -rf "$folder"/llama_cpp_python-*.tar.gz "$folder/source" "$folder/build"
