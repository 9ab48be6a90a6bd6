#!/bin/sh
# A scheduler that is a script: it leaves what it was configured with where the test finds it, and goes on as the
# fixture, which the test stages.
case "$1" in
--config=*)
    read -r first <"${1#--config=}"
    echo "$first" >/tmp/configured
    shift
    ;;
*) echo "nothing" >/tmp/configured ;;
esac
exec /ktstr/schedulers/fixture/scx-fixture "$@"
