#!/usr/bin/env bash
# install.sh PYTHON VENV EXTRAS: the environment of the book, quietly. Called by the Makefile.
set -euo pipefail
python=$1 venv=$2 extras=$3
constraints=constraints/cpu-py311.txt
log=$venv/install.log

if [ -z "$python" ]; then
  echo "No Python found: install Python 3.11 (or 3.12, 3.13), or say make PYTHON=/path/to/python." >&2
  exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
  3.11) pins=(-c "$constraints") ;;
  3.12 | 3.13)
    pins=()
    echo "Python $version: tested pins exist for 3.11 only, so versions are resolved from the bounds of pyproject.toml." ;;
  *)
    echo "Python $version cannot run this book: it needs 3.11, 3.12 or 3.13 (make PYTHON=/path/to/python3.11)." >&2
    exit 1 ;;
esac

echo "Setting up $venv with Python $version (a few minutes the first time)."
[ -x "$venv/bin/python" ] && [ "$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$version" ] \
  || { rm -rf "$venv" && "$python" -m venv "$venv"; }
: > "$log"
pip() { "$venv/bin/python" -m pip install --quiet "$@" >> "$log" 2>&1; }
fail() { echo "The installation failed; the last lines of $log:" >&2; tail -15 "$log" >&2; exit 1; }

# torch first, in its CPU build: on Linux the default wheel brings several GB of CUDA. TORCH_INDEX="" takes the default.
torch=$(grep -E '^torch==' "$constraints")
index=${TORCH_INDEX-https://download.pytorch.org/whl/cpu}
if ! "$venv/bin/python" -m pip show --quiet torch >> "$log" 2>&1; then
  if [ "$(uname -s)" = Linux ] && [ -n "$index" ]; then
    pip --no-deps --retries 0 --timeout 15 --index-url "$index" "$torch" || pip "${pins[@]}" "$torch" || fail
  else
    pip "${pins[@]}" "$torch" || fail
  fi
fi
pip "${pins[@]}" -e ".[$extras]" || fail
# Chapters say `kernelspec: python3`: make that this environment's Python, whatever else is installed.
"$venv/bin/python" -m ipykernel install --sys-prefix --name python3 --display-name "Python 3" >> "$log" 2>&1 || fail
