# How scripts/engine starts each engine and what it removes after it. Sourced, never run.
# shellcheck shell=bash
# `state` and the functions that are not here come from state.bash.
# shellcheck disable=SC2154

# The ordinary user of the rootless engines, whose subordinate ids the remapped one takes, too.
user=sandbox-test

# What the state of an engine is filed under.
key() {
    case $1 in
        docker) printf 'engine\n' ;;
        *) printf '%s\n' "$1" ;;
    esac
}

# The directory of an engine.
home() { printf '%s\n' "$state/$1"; }

# The address of an engine of ours.
own() {
    case $1 in
        docker) printf 'unix://%s\n' "$state/docker.sock" ;;
        docker-remote) printf 'tcp://127.0.0.1:%s\n' "$(cat "$(home docker-remote)/port" 2>/dev/null || echo 0)" ;;
        *) printf 'unix://%s/engine.sock\n' "$(home "$1")" ;;
    esac
}

# The socket of docker-remote, by which the scripts reach it.
inner() { printf 'unix://%s/engine.sock\n' "$(home docker-remote)"; }

# The variable in which tests find an engine's address.
variable() {
    local upper=${1^^}
    case $1 in
        docker) printf 'DOCKER_HOST\n' ;;
        *) printf 'SANDBOX_TEST_%s\n' "${upper//-/_}" ;;
    esac
}

# at ADDRESS COMMAND…: runs a command of Docker's client against an engine, with our certificates where it has a port.
at() {
    local address=$1 tls=()
    shift
    if [[ $address == tcp://* ]]; then
        tls=(DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH="${SANDBOX_TEST_DOCKER_REMOTE_CERTIFICATES:-$(home docker-remote)/tls}")
    fi
    env -u DOCKER_CONTEXT -u DOCKER_TLS_VERIFY -u DOCKER_CERT_PATH "${tls[@]}" DOCKER_HOST="$address" "$@"
}

answers() { at "$1" timeout 5 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }
own_answers() { answers "$(own "$1")"; }

# launch NAME: starts it, and does not wait for it.
launch() {
    local root address
    root=$(home "$1")
    address=$(own "$1")
    need "${1%%-*}"
    case $1 in
        docker)
            [[ -e /sys/class/net/docker0 ]] || touch "$state/engine.bridge"
            mkdir -p "$root"
            docker_options docker
            spawn engine dockerd "${options[@]}"
            ;;
        docker-remote)
            need openssl python3
            mkdir -p "$root"
            certificates "$root/tls"
            docker_options docker-remote
            # In a network namespace of its own, for the reason below, on a port of this one; and where it sees none of
            # the directories in which tests and sandboxes keep what is theirs.
            mkdir -p /run/sandbox
            # shellcheck disable=SC2016 # its own arguments
            spawn docker-remote python3 -c "$listening" "$root/port" unshare --net --mount sh -ec '
                for hidden in /tmp /var/tmp /run/sandbox /run/user; do
                    [ ! -d "$hidden" ] || mount -t tmpfs -o mode=1777 tmpfs "$hidden"
                done
                exec "$@"
            ' hide dockerd --bridge none --tlsverify --tlscacert "$root/tls/ca.pem" \
                --tlscert "$root/tls/server-cert.pem" --tlskey "$root/tls/server-key.pem" --host "$(inner)" "${options[@]}"
            ;;
        docker-gvisor)
            mkdir -p "$root"
            gvisor_settings
            docker_options docker-gvisor
            # In a network namespace of its own, for the reason below.
            spawn docker-gvisor unshare --net dockerd --bridge none --config-file "$root/daemon.json" "${options[@]}"
            ;;
        docker-remap)
            make_user
            mkdir -p "$root"
            docker_options docker-remap
            # In a network namespace of its own: a daemon without a bridge removes that of any other. What it calls runsc is
            # runc, as in an engine that lies.
            spawn docker-remap unshare --net dockerd --bridge none --userns-remap "$user" \
                --add-runtime "runsc=$(command -v runc)" "${options[@]}"
            ;;
        docker-rootless)
            need rootlesskit newuidmap
            make_user
            user_home "$root"
            docker_options docker-rootless
            # What `dockerd-rootless.sh` does, but for the network
            # (https://docs.docker.com/engine/security/rootless/): what root keeps in /run would be taken for its own.
            # shellcheck disable=SC2016 # its own arguments
            spawn docker-rootless unshare --net "${as_user[@]}" rootlesskit --net=host --state-dir="$root/kit" \
                --copy-up=/etc --copy-up=/run \
                sh -c 'rm -f /run/docker /run/containerd /run/xtables.lock; exec dockerd "$@"' dockerd-rootless \
                --bridge none "${options[@]}"
            ;;
        podman)
            mkdir -p "$root"
            podman_settings
            # Its monitors write a file where they are started when memory runs out (conmon(8)): a folder of its own.
            spawn podman env --chdir="$root" CONTAINERS_CONF="$state/containers.conf" podman --root "$root/data" --runroot "$root/run" \
                --tmpdir "$root/tmp" --storage-driver overlay system service --time 0 "$address"
            ;;
        podman-gvisor)
            mkdir -p "$root"
            podman_settings
            podman_on_gvisor
            spawn podman-gvisor env --chdir="$root" CONTAINERS_CONF="$root/containers.conf" podman --root "$root/data" --runroot "$root/run" \
                --tmpdir "$root/tmp" --storage-driver overlay system service --time 0 "$address"
            ;;
        podman-rootless)
            need newuidmap
            make_user
            user_home "$root"
            podman_settings
            spawn podman-rootless env --chdir="$root" "${as_user[@]}" CONTAINERS_CONF="$state/containers.conf" podman --root "$root/data" \
                --runroot "$root/run" --tmpdir "$root/tmp" --storage-driver overlay \
                system service --time 0 "$address"
            ;;
    esac
}

need() {
    local program
    [[ $1 != docker ]] || set -- dockerd "${@:2}"
    for program in "$@"; do
        command -v "$program" >/dev/null || die "$program is not on the PATH: run scripts/install"
    done
}

# Listens on a free port of loopback, writes its number to a file, and becomes a program that takes the socket as its third
# descriptor (https://man7.org/linux/man-pages/man3/sd_listen_fds.3.html).
listening='
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
if listener.fileno() != 3:
    os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
with open(sys.argv[1], "w") as port:
    port.write(str(listener.getsockname()[1]))
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
'

# certificates DIRECTORY: makes an authority, and what a server on loopback and a client have from it, unless they are
# there (https://docs.docker.com/engine/security/protect-access/).
certificates() {
    [[ ! -e $1/key.pem ]] || return 0
    rm -rf "$1"
    install --directory --mode 700 "$1"
    local kind
    (
        cd "$1" || exit
        key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null ||
            openssl ecparam -genkey -name prime256v1 -noout -out "$1"; }
        key ca-key.pem
        openssl req -new -x509 -days 30 -subj '/CN=sandbox test authority' -key ca-key.pem -out ca.pem
        for kind in server client; do
            key "$kind-key.pem"
            openssl req -new -subj "/CN=sandbox test $kind" -key "$kind-key.pem" -out "$kind.csr"
            printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=%sAuth\n' "$kind" >"$kind.ext"
            openssl x509 -req -days 30 -in "$kind.csr" -CA ca.pem -CAkey ca-key.pem -CAcreateserial -extfile "$kind.ext" \
                -out "$kind-cert.pem" 2>/dev/null
        done
        mv client-cert.pem cert.pem
        mv client-key.pem key.pem
    )
}

# Sets `options` to those that all Dockers share.
docker_options() {
    local host
    host=$(own "$1")
    [[ $1 != docker-remote ]] || host=fd://
    options=(
        --host "$host" --pidfile "$root/pid" --data-root "$root/data" --exec-root "$root/exec"
        --iptables=false --ip6tables=false --ip-masq=false --ip-forward=false
        --shutdown-timeout 5 --log-level warn
    )
}

# What gVisor is told beside what Docker tells it (https://gvisor.dev/docs/user_guide/quick_start/docker/): to apply the
# filter of system calls inside, and to make no network, which it cannot where Docker makes none either.
gvisor_settings() {
    local runsc
    find_runsc
    cat >"$root/daemon.json" <<JSON
{"runtimes": {"runsc": {"path": "$runsc", "runtimeArgs": ["--oci-seccomp", "--network=none"]}}}
JSON
}

find_runsc() {
    runsc=$(command -v runsc || printf '%s\n' "$state/runsc/usr/bin/runsc")
    [[ -x $runsc ]] || die "runsc is not on the PATH: run scripts/install"
}

# Podman 4.3 has no file for what a runtime is told beside: a program in its place tells it.
podman_on_gvisor() {
    local runsc
    find_runsc
    printf '#!/bin/sh\nexec %q --oci-seccomp --network=none "$@"\n' "$runsc" >"$root/runsc"
    chmod 755 "$root/runsc"
    sed 's/^runtime = .*/runtime = "runsc"/' "$state/containers.conf" >"$root/containers.conf"
    printf '[engine.runtimes]\nrunsc = ["%s"]\n' "$root/runsc" >>"$root/containers.conf"
}

# Podman raises limits to what it thinks is usual, which fails without CAP_SYS_RESOURCE, and crun refuses control
# groups of both versions at once (cgroups(7) calls them hybrid): both are set for our engines alone
# (https://github.com/containers/common/blob/main/docs/containers.conf.5.md).
podman_settings() {
    local files processes most
    files=$(ulimit -Hn) processes=$(ulimit -Hu)
    most=$(</proc/sys/kernel/pid_max) # to which Podman lowers its own
    if [[ $processes == unlimited ]] || ((processes > most)); then
        processes=$most
    fi
    cat >"$state/containers.conf" <<TOML
[containers]
default_ulimits = ["nofile=$files:$files", "nproc=$processes:$processes"]
[network]
network_backend = "cni"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "runc"
TOML
    chmod 644 "$state/containers.conf"
}

# Makes the ordinary user with its subordinate ids, which useradd chooses to be nobody else's.
make_user() (
    lock user
    if ! id "$user" >/dev/null 2>&1; then
        touch /etc/subuid /etc/subgid # useradd hands out ids only where these exist
        useradd --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --user-group \
            --key UID_MIN=20000 --key GID_MIN=20000 "$user"
        touch "$state/user.made"
    fi
    for file in /etc/subuid /etc/subgid; do
        grep --quiet "^$user:" "$file" || die "user $user has no ids in $file: add 65536 with usermod"
    done
)

# Removes the user, if it is ours and nothing of it runs.
remove_user() (
    [[ -e $state/user.made ]] || exit 0
    lock user
    for name in docker-remap docker-rootless podman-rootless; do
        ! running "$name" >/dev/null || exit 0
    done
    deadline=$((SECONDS + 10))
    until userdel "$user" 2>"$state/user.log"; do # what was killed may not be gone yet
        ((SECONDS < deadline)) || die "user $user cannot be removed: $(cat "$state/user.log")"
        sleep 0.1
    done
    rm -f "$state/user.made" "$state/user.log"
    # The next user may have other numbers, so these files would be a stranger's.
    rm -rf "$(home docker-remap)" "$(home docker-rootless)" "$(home podman-rootless)"
)

# user_home DIRECTORY: makes it the user's, and sets `as_user` to what runs a program as that user.
user_home() {
    install --directory --owner "$user" --group "$user" --mode 700 "$1" "$1/home" "$1/run"
    as_user=(
        setpriv --reuid "$user" --regid "$user" --clear-groups
        env -i HOME="$1/home" XDG_RUNTIME_DIR="$1/run" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    )
    setpriv --reuid "$user" --regid "$user" --clear-groups test -x "$1" ||
        die "user $user cannot reach $1: set SANDBOX_DEV_STATE to a directory that everybody may pass through"
}

# clean_up NAME: removes what an engine leaves, above all one that was killed.
clean_up() {
    local root process mount id pause
    root=$(home "$1")
    # Podman's keeper of the user namespace has nothing of us in its arguments.
    if pause=$(cat "$root/tmp/pause.pid" 2>/dev/null); then
        [[ $(readlink "/proc/$pause/exe") != */catatonit ]] || kill -KILL "$pause" 2>/dev/null || true
    fi
    for process in /proc/[0-9]*; do
        ! is_left "$process" || kill -KILL "${process##*/}" 2>/dev/null || true
    done
    # The fifth field of mountinfo is the mount point, with blanks written in octal (proc(5)); deepest first.
    while IFS= read -r mount; do
        umount "$mount" 2>/dev/null || umount --lazy "$mount" || true
    done < <(awk '{print $5}' /proc/self/mountinfo | while IFS= read -r mount; do printf '%b\n' "$mount"; done |
        grep --fixed-strings "$root/" | sort --reverse)
    if [[ $1 == docker ]]; then
        if [[ -e $state/engine.bridge && -e /sys/class/net/docker0 ]]; then
            ip link delete docker0 || true
        fi
        rm -f "$state/docker.sock" "$state/engine.bridge"
    fi
    for id in "$root"/data/containers/* "$root"/data/[0-9]*.[0-9]*/containers/* "$root"/data/overlay-containers/*; do
        id=${id##*/}
        rmdir /sys/fs/cgroup{,/*}/docker/"$id" /sys/fs/cgroup{,/*}/libpod_parent/libpod-{,conmon-}"$id" 2>/dev/null || true
    done
    rmdir /sys/fs/cgroup{,/*}/{docker,libpod_parent/conmon,libpod_parent} 2>/dev/null || true
    rm -rf "$root/exec" "$root/kit" "$root/run" "$root/tmp" "$root/pid" "$root/engine.sock" "$root/port"
    [[ $1 != *-* ]] || remove_user
}

# Tells whether a process is what an engine has left: one of its helpers, known by our paths in its arguments, or one of
# its containers, known by its control group or by the file system at its root.
is_left() {
    local arguments cgroups
    case $(readlink "$1/exe" 2>/dev/null || true) in
        */runsc | */conmon | */containerd | */containerd-shim* | */dockerd | */podman | */rootlesskit)
            arguments=$(tr '\0' ' ' 2>/dev/null <"$1/cmdline") || return 1
            [[ $arguments == *"$root/"* ]] && return
            ;;
    esac
    mapfile -t cgroups 2>/dev/null <"$1/cgroup" || return 1
    if [[ ${cgroups[*]} =~ [0-9a-f]{64} && -d $root/data/containers/${BASH_REMATCH[0]} ]]; then
        return 0
    fi
    awk -v root="$root/" '$5 == "/" && index($0, root) { found = 1 } END { exit !found }' "$1/mountinfo" 2>/dev/null
}
