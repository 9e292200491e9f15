#!/bin/sh
# Show this machine; where it is no Spark, say so and show the built-in one beside it.
agent=$1
"$agent" snapshot
code=$?
# 1, 2 and 3 are what was found, not a failure to look.
[ "$code" -le 3 ] || exit "$code"
if ! "$agent" snapshot --only platform --output json | grep -q '"is_spark": true'; then
    printf '\nThis machine is no DGX Spark, so here is a built-in, synthetic one: spark-agent --demo fe-stock snapshot\n\n'
    "$agent" --demo fe-stock snapshot
    code=$?
    [ "$code" -le 3 ] || exit "$code"
fi
printf '\nNext: %s --help\n' "$agent"
