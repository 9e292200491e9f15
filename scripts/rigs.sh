#!/bin/sh
# Install what the tests need from the system, where that is allowed; without it they are skipped and say so.
# gcc: a fake libnvidia-ml.so.1. systemd-container: a booted systemd. libfaketime: a clock that jumps.
# python3-*: what the Debian package stands on.
sh "$(dirname "$0")/prometheus.sh"
wanted=
command -v gcc >/dev/null 2>&1 || wanted="$wanted gcc libc6-dev"
command -v systemd-nspawn >/dev/null 2>&1 || wanted="$wanted systemd-container"
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || wanted="$wanted libfaketime"
for module in psutil bcrypt yaml; do
    [ -d /usr/lib/python3/dist-packages/$module ] || wanted="$wanted python3-$module"
done
[ -n "$wanted" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    # shellcheck disable=SC2086  # several words are meant
    apt-get update -qq && apt-get install -qq -y --no-install-recommends $wanted >/dev/null
else
    echo "some tests are skipped; this helps: sudo apt-get install$wanted"
fi
exit 0
