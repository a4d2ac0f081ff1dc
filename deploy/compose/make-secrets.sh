#!/bin/sh
# Makes the passwords of the compose files: make-secrets.sh [DATABASE_HOST [BROKER_HOST]].
#
# It writes the folder `secrets` beside it, which only its owner can enter. The files in it can be read by whoever gets
# there: containers get single files, and their users have other numbers. The exception is the cookie of RabbitMQ's
# nodes, which must be its user's alone (999 in its image). What is there already is never overwritten.
set -eu

database=${1:-postgres}
broker=${2:-rabbitmq}
folder=$(dirname "$0")/secrets

if [ -e "$folder" ]; then
    echo "signalkeep: $folder is there already; nothing was changed" >&2
    exit 1
fi

word() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

umask 077
mkdir "$folder"
stored=$(word)
sent=$(word)
echo "$stored" >"$folder/postgres_password"
echo "postgresql://signalkeep:$stored@$database:5432/signalkeep" >"$folder/dsn"
echo "amqp://signalkeep:$sent@$broker:5672/" >"$folder/broker_url"
printf 'default_user = signalkeep\ndefault_pass = %s\n' "$sent" >"$folder/rabbitmq_user.conf"
chmod 444 "$folder"/*
word >"$folder/erlang_cookie"
chmod 400 "$folder/erlang_cookie"
chown 999:999 "$folder/erlang_cookie" 2>/dev/null ||
    echo "signalkeep: for a cluster of RabbitMQ run as root: chown 999:999 $folder/erlang_cookie" >&2
