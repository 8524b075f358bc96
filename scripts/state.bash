# What the scripts share: where state is kept, how they speak, and how a background
# process is started, recognised and ended. Sourced by the others, never run.

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export LC_ALL=C.UTF-8

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "error: $*"; exit 1; }

# The header comment of a script is its help.
help() { sed -n '2,/^$/s/^#\( \|$\)//p' "$0"; }
usage_error() { say "error: $*"; help >&2; exit 2; }

# Chooses the state directory. Memory is preferred: engines call fsync a lot. A directory
# that is already ours is kept even when space has run low, so that the choice is stable.
choose_state() {
    local shm=/dev/shm/sandbox-dev free options
    if [[ -n ${SANDBOX_DEV_STATE:-} ]]; then
        printf '%s\n' "$SANDBOX_DEV_STATE"
        return
    fi
    if [[ -d $shm && -O $shm && ! -L $shm ]]; then
        printf '%s\n' "$shm"
        return
    fi
    if [[ ! -e $shm && -w /dev/shm ]]; then
        options=$(findmnt --noheadings --output OPTIONS --target /dev/shm || true)
        free=$(df --output=avail -k /dev/shm | tail -n 1)
        # Programs in an image must be executable from there.
        if [[ ,$options, != *,noexec,* ]] && ((free >= 4 * 1024 * 1024)); then
            printf '%s\n' "$shm"
            return
        fi
    fi
    printf '%s\n' "${HOME:?HOME is not set}/.cache/sandbox-dev"
}

state=$(choose_state)
# A socket's path holds at most 107 bytes (unix(7)); containerd's is 33 longer than ours.
((${#state} <= 70)) || die "the state directory '$state' is too long: set SANDBOX_DEV_STATE to a path of at most 70 bytes"
[[ $state == /* ]] || die "SANDBOX_DEV_STATE '$state' is not an absolute path"
mkdir -p "$state"
[[ -O $state ]] || die "the state directory '$state' belongs to someone else: set SANDBOX_DEV_STATE"
chmod 711 "$state"

# lock NAME: waits its turn; the lock ends with this process.
lock() {
    local fd
    exec {fd}>"$state/$1.lock"
    flock --wait 300 "$fd" || die "another script has held $state/$1.lock for 300 seconds"
}

# start_time PID: when the process started, in clock ticks since boot; fails if it is gone
# or a zombie. Field 22 of /proc/PID/stat (proc(5)); the name in field 2 may hold spaces.
start_time() {
    local stat fields
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    read -ra fields <<<"${stat##*) }"
    [[ ${fields[0]} != Z ]] && printf '%s\n' "${fields[19]}"
}

# running NAME: prints the pid of what `spawn NAME` started, if that very process still runs.
running() {
    local pid started
    read -r pid started 2>/dev/null <"$state/$1.pid" || return 1
    [[ $(start_time "$pid") == "$started" ]] && printf '%s\n' "$pid"
}

# spawn NAME COMMAND…: starts it in a session of its own with no descriptor of ours but the log,
# so that it holds none of our locks.
spawn() {
    local name=$1 pid fd
    shift
    (
        for fd in /proc/"$BASHPID"/fd/*; do
            fd=${fd##*/}
            ((fd <= 2)) || eval "exec $fd>&-"
        done
        exec setsid nohup "$@" >"$state/$name.log" 2>&1 </dev/null
    ) &
    pid=$!
    printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$state/$name.pid"
}

# end NAME SECONDS: TERM, then KILL after the deadline. Touches nothing but that process.
end() {
    local pid deadline=$((SECONDS + $2))
    if pid=$(running "$1"); then
        kill -TERM "$pid" 2>/dev/null || true
        while running "$1" >/dev/null; do
            if ((SECONDS >= deadline)); then
                say "$1 (pid $pid) ignored TERM for $2 seconds: killing it"
                kill -KILL "$pid" 2>/dev/null || true
                deadline=$((SECONDS + $2))
            fi
            sleep 0.1
        done
    fi
    rm -f "$state/$1.pid" "$state/$1.borrowed"
}

# await NAME SECONDS COMMAND…: until the command succeeds; fails early if NAME has died.
await() {
    local name=$1 deadline=$((SECONDS + $2)) why=''
    shift 2
    until "$@"; do
        running "$name" >/dev/null || why="has ended"
        ((SECONDS < deadline)) || why="did not answer in time"
        if [[ -n $why ]]; then
            say "$name $why; the end of $state/$name.log:"
            tail -n 20 "$state/$name.log" >&2
            return 1
        fi
        sleep 0.1
    done
}

# use NAME [WHICH]: takes the environment of scripts/NAME, which must run.
use() {
    local lines
    lines=$("$scripts/$1" env "${@:2}")
    eval "$lines"
}

# borrow NAME [WHICH]: makes sure that scripts/NAME runs, and takes its environment; WHICH is one of several that it knows.
# What a borrower started is stopped by the last borrower to give it back; what was started by hand stays.
declare -A borrowed=()
borrow() {
    local name=$1 which=${2:-} fd
    exec {fd}>"$state/${which:-$name}.borrowers"
    flock --shared "$fd"
    borrowed[${which:-$name}]="$fd $name $which"
    "$scripts/$name" start --borrowed ${which:+"$which"}
    use "$name" ${which:+"$which"}
}
give_back() {
    local each fd name which
    trap '' HUP INT TERM # a second signal must not stop the clean-up half way
    for each in "${!borrowed[@]}"; do
        read -r fd name which <<<"${borrowed[$each]}"
        flock --unlock "$fd"
        "$scripts/$name" stop --if-borrowed ${which:+"$which"} || true
    done
    borrowed=()
}

# in_use NAME: someone has borrowed it and not given it back. Otherwise nobody can until we exit.
in_use() {
    local fd
    exec {fd}>"$state/$1.borrowers"
    ! flock --exclusive --nonblock "$fd"
}
