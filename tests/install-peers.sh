#!/bin/sh
# Installs the Debian programs that the tests, the demo and the bench use as real peers. Says which are missing where it
# may not install them; what needs them then fails by name. With nothing missing it does nothing and needs no network.
set -eu

PATH="$PATH:/usr/sbin:/sbin"

# program:package
peers='
docker-registry:docker-registry
htpasswd:apache2-utils
skopeo:skopeo
buildah:buildah
podman:podman
runc:runc
newuidmap:uidmap
debootstrap:debootstrap
/usr/sbin/dockerd:docker.io
/usr/bin/docker:docker.io
nginx:nginx-light
/usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream
wrk:wrk
busybox:busybox-static
umoci:umoci
/usr/sbin/sshd:openssh-server
'

missing=''
for peer in $peers; do
    command -v "${peer%%:*}" >/dev/null || [ -e "${peer%%:*}" ] || missing="$missing ${peer#*:}"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Peers that are not installed here, and cannot be (needs root and apt-get):$missing" >&2
    echo "What needs them will fail and say so." >&2
    exit 0
fi

# A registry from a package must not start to listen on this machine: Debian asks this file before it starts a service.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

echo "Installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
mkdir -p .cache
{
    apt-get update --quiet
    # shellcheck disable=SC2086
    apt-get install --quiet --yes --no-install-recommends $missing
} >.cache/apt.log 2>&1 || {
    tail -n 20 .cache/apt.log >&2
    echo "Could not install:$missing (the whole log: .cache/apt.log)" >&2
    exit 1
}
