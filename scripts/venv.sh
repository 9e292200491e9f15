#!/bin/sh
# Make a virtual environment and install this project into it: scripts/venv.sh FOLDER WHAT [PYTHON]
# Says which one command helps where something is missing, instead of a traceback.
set -u
folder=$1 what=$2 python=${3:-}

stop() {
    printf '\nspark-agent: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '    %s\n' "$2" >&2
    exit 1
}

enough='import sys; sys.exit(sys.version_info < (3, 11))'
if [ -z "$python" ]; then
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c "$enough" >/dev/null 2>&1; then
            python=$candidate
            break
        fi
    done
fi
[ -n "$python" ] || stop "needs Python 3.11 or later; $(python3 --version 2>/dev/null || echo 'no python3') is there. This helps:" \
    "sudo apt-get install python3.12 python3.12-venv    # Ubuntu 24.04; on Debian 12: python3 python3-venv"
"$python" -c "$enough" 2>/dev/null || stop "needs Python 3.11 or later; $("$python" --version 2>&1) is too old. This helps:" \
    "make PYTHON=python3.12 run"

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    stop "this Python cannot make virtual environments. This helps:" "sudo apt-get install python$version-venv"
fi
# A folder left by another Python, or moved from elsewhere, does not work any more.
[ -x "$folder/bin/python" ] && "$folder/bin/python" -c "$enough" 2>/dev/null || rm -rf "$folder"
if [ ! -d "$folder" ]; then
    "$python" -m venv "$folder" || stop "could not make $folder; is the disk full or the folder read-only? This shows:" "df -h ."
fi
if ! "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$what" 2>"$folder/pip.log"; then
    grep -iv 'warning' "$folder/pip.log" | tail -n 5 >&2
    stop "the package index did not give what is needed. This shows whether it can be reached:" \
        "$folder/bin/python -m pip download --no-deps --dest /tmp click"
fi
# A start would spend more time compiling than looking where Python is told not to write what it compiled.
"$folder/bin/python" -m compileall -q "${0%/*}/../agent" "${0%/*}/../collectors" "${0%/*}/../exporters"
date >"$folder/ready"
