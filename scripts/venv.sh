#!/bin/sh
# Makes the virtual environment that everything else here runs in: venv.sh DIRECTORY [PYTHON].
#
# Takes the first Python 3.11 or newer that it finds, and says what to install when there is none or when Debian's
# lacks its venv module. It replaces whatever stands at DIRECTORY, and touches nothing outside it.
set -eu

directory=$1
shift

for python in ${1:-python3 python3.13 python3.12 python3.11}; do
    command -v "$python" >/dev/null 2>&1 || continue
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        echo "signalkeep: $python has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
    "$python" -m venv --clear "$directory"
    pwd >"$directory/.made"
    exit 0
done

echo "signalkeep: no Python 3.11 or newer found (looked for: ${1:-python3 python3.13 python3.12 python3.11})." >&2
echo "            Install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2
exit 1
