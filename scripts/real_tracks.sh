#!/bin/sh
# Fetches recordings of real receivers for `make quality TRACKS=DIR`: the test files of gpxpy, and gpsd's receiver logs
# with the answers that belong to them. They are other people's work: used where they lie, never copied into the project.
# Uses the ordinary clients, pip and apt-get; apt-get needs a source list of its own, since few systems have sources on.
set -eu

[ $# -eq 1 ] || { echo "usage: sh scripts/real_tracks.sh DIR" >&2; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
cd "$fetched"

echo "gpxpy: its source distribution"
python3 -m pip --disable-pip-version-check --quiet download --no-binary :all: --no-deps gpxpy
tar -xzf gpxpy-*.tar.gz
mkdir -p "$target/gpxpy"
cp gpxpy-*/test_files/*.gpx "$target/gpxpy"

echo "gpsd: the source package of this system"
mkdir -p apt/lists/partial apt/cache/archives/partial
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed -n 's/^deb /deb-src /p' > apt/sources.list
for listed in /etc/apt/sources.list.d/*.sources; do
  [ -e "$listed" ] && sed 's/^Types:.*/Types: deb-src/' "$listed" > "apt/$(basename "$listed")" && sources="apt/"
done
set -- -o "Dir::Etc::sourcelist=$fetched/apt/sources.list" -o "Dir::Etc::sourceparts=${sources:+$fetched/$sources}" \
  -o "Dir::State::lists=$fetched/apt/lists" -o "Dir::Cache=$fetched/apt/cache"
apt-get -qq "$@" update || echo "some lists could not be read; going on with those that could" >&2
apt-get -qq "$@" source --download-only gpsd
tar -xJf gpsd_*.orig.tar.xz
mkdir -p "$target/gpsd"
cp gpsd-*/test/daemon/*.log gpsd-*/test/daemon/*.log.chk "$target/gpsd"

echo "$(ls "$target/gpxpy" | wc -l) and $(ls "$target/gpsd"/*.log | wc -l) recordings in $target"
