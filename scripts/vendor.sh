#!/usr/bin/env bash
# Brings the chat page's libraries again, from their npm packages. After raising a version here, change it in
# vendor/README.md too, and run `make test-page`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../src/moreseek/server/static/vendor"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$work" \
  marked@18.2.1 dompurify@3.4.18 @highlightjs/cdn-assets@11.12.0 katex@0.19.1
from=$work/node_modules

# bring FOLDER PACKAGE FILE…
bring() {
  local folder=$1 package=$2
  rm -rf "$folder"
  mkdir -p "$folder"
  for file in "${@:3}" LICENSE; do cp "$from/$package/$file" "$folder/"; done
}
bring marked marked lib/marked.esm.js
bring dompurify dompurify dist/purify.min.js
bring highlight @highlightjs/cdn-assets es/highlight.min.js
bring katex katex dist/katex.min.js dist/katex.min.css
mkdir katex/fonts
cp "$from"/katex/dist/fonts/*.woff2 katex/fonts/
find . -type f ! -name README.md ! -name SHA256SUMS | LC_ALL=C sort | xargs sha256sum >SHA256SUMS
