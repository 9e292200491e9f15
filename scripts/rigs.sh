#!/bin/sh
# Install what the tests need from the system, where that is allowed; without it they are skipped and say so.
command -v gcc >/dev/null 2>&1 && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq && apt-get install -qq -y --no-install-recommends gcc libc6-dev >/dev/null
else
    echo "no gcc: the tests against a fake libnvidia-ml.so.1 are skipped; this helps: sudo apt-get install gcc libc6-dev"
fi
exit 0
