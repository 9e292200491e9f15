#!/bin/sh
# Without an argument: the versions of Python, besides 3.11 … the default one, that are here and that we support.
# With one: how to call it. Looks on PATH and where pyenv keeps them.
find_python() {
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/"python$1"; do
        if "$candidate" -c "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != tuple(map(int, '$1'.split('.'))))" >/dev/null 2>&1; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

if [ $# -gt 0 ]; then
    find_python "$1"
    exit
fi
default=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
for version in 3.11 3.12 3.13; do
    [ "$version" = "$default" ] || ! find_python "$version" >/dev/null || echo "$version"
done
