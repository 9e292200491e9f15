#!/bin/sh
# Fetch Debian's or Ubuntu's Prometheus, promtool and node_exporter into .rigs/, for the tests and `make bench`.
# Unpacked and not installed: their packages would start services on this machine.
cd "$(dirname "$0")/.." || exit
have() { [ -x ".rigs/usr/bin/$1" ] || command -v "$1" >/dev/null 2>&1; }
have prometheus && have promtool && have prometheus-node-exporter && exit 0

without="tests against a real Prometheus and node_exporter are skipped"
command -v apt-get >/dev/null 2>&1 || { echo "no apt-get to fetch Prometheus with: $without"; exit 0; }
mkdir -p .rigs/packages
# apt's own user may not be able to write here, and says so at length.
fetch() { (cd .rigs/packages && apt-get -qq -o APT::Sandbox::User=root download "$@") 2>.rigs/apt.log; }
# promtool is a package of its own since Debian 13.
packages() { echo prometheus prometheus-node-exporter; apt-cache -q show promtool >/dev/null 2>&1 && echo promtool; }

# shellcheck disable=SC2046  # names of packages, to be split
if fetch $(packages) || { [ "$(id -u)" = 0 ] && apt-get update -qq && fetch $(packages); }; then
    for package in .rigs/packages/*.deb; do dpkg -x "$package" .rigs; done
else
    echo "Prometheus cannot be fetched: $without"
    cat .rigs/apt.log
fi
rm -r .rigs/packages
