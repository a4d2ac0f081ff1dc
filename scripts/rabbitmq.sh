#!/bin/sh
# Sees to it that the tests of the broker have a RabbitMQ: the server's files, never a running service.
#
# With CI=true it installs Debian's package if that is missing. Elsewhere it installs nothing: it says which command
# does, and the tests without a broker go on. While the package is set up, services are forbidden to start by
# /usr/sbin/policy-rc.d; what stood there before stands there again afterwards, also when the installation fails.
set -eu

server=/usr/lib/rabbitmq/bin/rabbitmq-server
policy=/usr/sbin/policy-rc.d
kept=

[ ! -x "$server" ] || exit 0

if [ "${CI:-}" != true ]; then
    echo "signalkeep: NO RABBITMQ, THE BROKER IS NOT TESTED. On Debian and Ubuntu:" >&2
    echo "            apt-get install --no-install-recommends rabbitmq-server" >&2
    exit 0
fi

if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "signalkeep: RabbitMQ is missing, and only root can install it (there is no sudo either)." >&2
        exit 1
    fi
    exec sudo CI=true sh "$0"
fi

restore() {
    [ -n "$kept" ] || return 0
    rm -f "$policy"
    if [ -e "$kept/policy-rc.d" ] || [ -L "$kept/policy-rc.d" ]; then
        mv "$kept/policy-rc.d" "$policy"
    fi
    rmdir "$kept"
}
trap restore EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Beside the file itself, so that moving it keeps its owner, its mode and, if it is one, its being a link.
kept=$(mktemp -d "$policy.XXXXXX")
if [ -e "$policy" ] || [ -L "$policy" ]; then
    mv "$policy" "$kept/policy-rc.d"
fi
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || echo "signalkeep: package lists could not be refreshed, trying with those that are there." >&2
apt-get install -y -qq --no-install-recommends rabbitmq-server
test -x "$server"
