#!/usr/bin/env bash
# Tries every line of docs/environments.md: runs one small program (tests/environments) in each environment and compares its output
# with that page.
#
#     ci/environments.sh [PATTERN]      only the lines whose names match the pattern
#
# A line passes if the program does what is written here within its time, ends by itself, and leaves no process. It runs (every step has
# its result), or runs with less (the steps that are named here have another result), or does not run (it ends with the error that is
# written here). A line that cannot be tried on this machine is named with the reason, and counted at the end.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
only=${1:-.}
# The machine may be busy; a program that takes longer hangs.
limit=40
work=$(mktemp -d)
tools=$target/environments
mkdir -p "$tools"
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
declare -a names=()
running=0
# What this shell has inherited besides the standard streams would go to every program, and count where descriptors are few.
for descriptor in /proc/$$/fd/*; do
    descriptor=${descriptor##*/}
    flags=$(sed -n 's/^flags:\s*//p' "/proc/$$/fdinfo/$descriptor" 2>/dev/null) || continue
    # Of the shell's own, which it does not pass on, is the script.
    ((descriptor <= 2 || (8#$flags & 8#2000000))) || exec {descriptor}>&-
done

build() {
    cargo build --quiet --package procession-environments --bin environment "$@"
}

# The output of each part of the program if everything works.
transcript() {
    case $1 in
        process) printf '%s\n' "square=49" "kill=SIGKILL" ;;
        hog) printf '%s\n' "memory=out of memory" ;;
        descriptors) printf '%s\n' "plain=2" "captured=3" ;;
        jobs) printf '%s\n' "default=1" ;;
        shared) printf '%s\n' "value=499500" "slice=499500" "channel=499500" "file=good morning" "parts=2000" "lock=3" "manager=14" ;;
        stack-*) printf '%s\n' "taken=${1#stack-}" ;;
        *) printf '%s\n' "squares=328350" "large=3145728" "panic=as it was told" "crash=SIGABRT" "timeout=timed out" \
            "output=good morning, Ada" "join=joined" ;;
    esac
}

# expected OVERRIDE...: the transcript as one regular expression for each line. An override is PART:STEP=REGEX (`*` is every part); after
# an error of `pool`, `squares` or `square` a part goes no further.
expected() {
    local part step override found line
    for part in $parts; do
        for override in "$@"; do
            if [[ $override == "$part":pool=* || ($override == "*:pool="* && $part != process) ]]; then
                printf '%s: pool: %s\n' "$part" "${override#*=}"
                continue 2
            fi
        done
        while IFS= read -r line; do
            step=${line%%=*} found=${line#*=}
            for override in "$@"; do
                if [[ $override == "$part:$step="* || $override == "*:$step="* ]]; then
                    found=${override#*=}
                fi
            done
            printf '%s: %s: %s\n' "$part" "$step" "$found"
            if [[ $found == error* && $step == square* ]]; then
                [[ $part == process ]] || printf '%s: join: joined\n' "$part"
                continue 2
            fi
        done < <(transcript "$part")
    done
}

# left TOKEN: the processes that came of a program and live.
left() {
    grep -lzs "^PROBE_TOKEN=$1\$" /proc/[0-9]*/environ | cut -d/ -f3
}

# try NAME OVERRIDE... -- COMMAND...: the body of `line`.
try() {
    local name=$1 at=0 start end status token said=$work/$2.out words=$work/$2.err wanted got notice="" dies="" is_dead=0 overrides=() parts=$parts
    local lines i is_less faults=()
    token=environment-$$-$2
    shift 2
    while [[ $1 != -- ]]; do
        case $1 in
            parts=*) parts=${1#*=} ;;
            notice=*) notice=${1#*=} ;;
            dies=*) dies=${1#*=} is_dead=1 ;;
            *) overrides+=("$1") ;;
        esac
        shift
    done
    shift
    start=$(date +%s%N)
    PROBE_TOKEN=$token OUT=$said PARTS=$parts timeout -k 1 -s KILL $limit "$@" >"$said.stdout" 2>"$words" </dev/null
    status=$?
    end=$((($(date +%s%N) - start) / 1000000))
    [[ -s $said ]] || mv "$said.stdout" "$said"
    sed -E 's/^(.*: )?logged: Ada is greeted$//; /^$/d' "$said" >"$said.got"
    mapfile -t got < <(grep -v '^logged: ' "$said.got")
    [[ $status != 137 ]] || faults+=("it hangs, and was killed after $limit s")
    if ((is_dead)); then
        [[ $status != 0 ]] || faults+=("it ended with 0")
        [[ -z $dies ]] || grep -qE -- "$dies" "$words" "$said" || faults+=("it does not say: $dies")
    else
        mapfile -t lines < <(expected ${overrides[@]+"${overrides[@]}"})
        for ((i = 0; i < ${#lines[@]} || i < ${#got[@]}; i++)); do
            if [[ ! ${got[i]-} =~ ^${lines[i]-}$ ]]; then
                faults+=("line $((i + 1)) is to be: ${lines[i]-nothing}")
                break
            fi
        done
        # The program ends with 1 if something came to less, which some of the expectations leave open.
        is_less=0
        [[ $(printf '%s\n' "${got[@]}") == "$(expected)" ]] || is_less=1
        [[ $status == "$is_less" ]] || faults+=("it ended with $status, and is to end with $is_less")
    fi
    if [[ -n $notice ]]; then
        grep -qE -- "$notice" "$said" "$words" || faults+=("it does not say: $notice")
    fi
    # Processes that were just left behind may take a moment to end.
    for _ in {1..30}; do
        [[ -n $(left "$token") ]] || break
        sleep 0.1
    done
    if [[ -n $(left "$token") ]]; then
        faults+=("processes are left: $(left "$token" | tr '\n' ' ')")
        # shellcheck disable=SC2046
        kill -KILL $(left "$token") 2>/dev/null
    fi
    if ((${#faults[@]})); then
        printf 'FAILED  %5d ms  %s\n' "$end" "$name"
        printf '    %s\n' "${faults[@]}"
        sed 's/^/    stdout: /' "$said"
        uniq "$words" | head -4 | sed 's/^/    stderr: /'
    else
        printf 'ok      %5d ms  %s\n' "$end" "$name"
    fi
}

# line NAME OVERRIDE... -- COMMAND...: has a line tried, beside others.
line() {
    local name=$1 number=${#names[@]}
    names+=("$name")
    [[ $name =~ $only ]] || return 0
    while ((running >= 4)); do
        wait -n
        running=$((running - 1))
    done
    try "$name${detail-}" "$number" "${@:2}" >"$work/$number.verdict" 2>/dev/null &
    running=$((running + 1))
}

# cannot NAME REASON: names a line that is not tried.
cannot() {
    local number=${#names[@]}
    names+=("$1")
    [[ $1 =~ $only ]] || return 0
    printf 'CANNOT be tried    %s: %s\n' "$1" "$2" >"$work/$number.verdict"
}

# has TOOL...: whether these tools are here.
has() {
    local tool
    for tool in "$@"; do command -v "$tool" >/dev/null || { lacks="$tool is not installed"; return 1; }; done
}

parts="fork spawn forkserver process"

build || exit 1
program=$target/debug/environment
cc -O1 -Wall -Wextra -Werror -o "$tools/refuse" tests/environments/refuse.c || exit 1
cc -O1 -Wall -Wextra -Werror -shared -fPIC -DPRELOAD -o "$tools/refuse.so" tests/environments/refuse.c || exit 1
cc -O1 -Wall -Wextra -Werror -o "$tools/host" tests/environments/host.c -ldl || exit 1
# Where unprivileged users may execute it.
mkdir -p "$work/bin"
cp "$program" "$tools/refuse" "$work/bin/"
lacks=""
public=$work/bin/environment

# ---------------------------------------------------------------------------------------------------- as it is
everything="$parts shared"
line "plain" "parts=$everything" -- "$program" $everything
line "sockets" "parts=$everything" '*:crash=error: .* was lost .*|SIGABRT' -- env PROCESSION_TRANSPORT=socket "$program" $everything
line "empty environment" -- bash -c 'exec env -i PROBE_TOKEN="$PROBE_TOKEN" "$0"' "$program"
line "no arguments at all" -- bash -c 'exec -a "" "$0"' "$program"
line "RUST_BACKTRACE" -- env RUST_BACKTRACE=full "$program"
line "executable deleted" -- bash -c 'cp "$0" "$OUT.exe"; exec 9<"$OUT.exe"; rm "$OUT.exe"; exec /proc/self/fd/9' "$program"
line "working folder deleted" -- bash -c 'mkdir "$OUT.d"; cd "$OUT.d"; rmdir "$OUT.d"; exec "$0"' "$program"
line "umask 777" -- bash -c 'umask 777; exec "$0"' "$program"
line "terminal is gone" -- setsid --wait "$program"

# ---------------------------------------------------------------------------------------------------- streams and signals
line "standard streams closed" -- bash -c 'PROBE_OUT=$OUT exec "$0" <&- >&- 2>&-' "$program"
line "stdin closed" -- bash -c 'exec "$0" <&-' "$program"
line "stdout closed" -- bash -c 'PROBE_OUT=$OUT exec "$0" >&-' "$program"
line "stderr closed" -- bash -c 'exec "$0" 2>&-' "$program"
line "stdout full" -- bash -c 'PROBE_OUT=$OUT exec "$0" >/dev/full 2>/dev/full' "$program"
line "leaked descriptors" -- bash -c 'for fd in {10..60}; do eval "exec $fd</dev/zero"; done; exec "$0"' "$program"
line "signals blocked" -- env --block-signal "$program"
line "signals ignored" -- env --ignore-signal=HUP,INT,QUIT,TERM,PIPE,USR1,USR2,ALRM "$program"
# The kernel reaps ended processes, so their exit status is lost.
collected='error: .* disappeared.*: other code in this process collected its exit status .*'
line "SIGCHLD ignored" "*:crash=($collected|SIGABRT)" "process:kill=$collected" -- env --ignore-signal=CHLD "$program"

# ---------------------------------------------------------------------------------------------------- users and rights
# As a user without any rights of its own.
nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
if ! has setpriv; then
    :
elif [[ $(id -u) != 0 ]]; then
    lacks="this script does not run as root"
fi
if [[ -z ${lacks-} ]]; then
    line "unprivileged user" "parts=$everything" -- "${nobody[@]}" "$public" $everything
    line "no capabilities, no new privileges" -- "${nobody[@]}" --no-new-privs --bounding-set=-all --inh-caps=-all "$public"
    cp "$public" "$work/bin/setuid" && chmod u+s "$work/bin/setuid"
    more_rights='error: .*more privileges than its user .setuid or file capabilities.*'
    line "setuid" "spawn:pool=$more_rights" "forkserver:pool=$more_rights" "process:square=$more_rights" -- "${nobody[@]}" "$work/bin/setuid"
    if has setcap && cp "$public" "$work/bin/capable" && setcap cap_net_raw+ep "$work/bin/capable" 2>/dev/null; then
        line "file capabilities" "spawn:pool=$more_rights" "forkserver:pool=$more_rights" "process:square=$more_rights" -- "${nobody[@]}" "$work/bin/capable"
    else
        cannot "file capabilities" "${lacks:-setcap is refused here}"
    fi
else
    for name in "unprivileged user" "no capabilities, no new privileges" "setuid" "file capabilities"; do cannot "$name" "$lacks"; done
fi

# ---------------------------------------------------------------------------------------------------- containers
# in_root SETUP [PROGRAM]: a root folder that has the program, its libraries and what SETUP mounts; $R is the folder.
container=$work/root
mkdir -p "$container"/{proc,dev,tmp,bin,sys}
cp "$program" "$container/bin/environment"
for library in $(ldd "$program" | grep -oE '/[^ ]+'); do
    mkdir -p "$container$(dirname "$library")"
    cp "$library" "$container$library"
done
touch "$container/dev/null"
# inside SETUP: the program in that folder, in a mount namespace of its own.
inside() {
    echo "R=$container; mount -t proc proc \$R/proc && mount --bind /dev/null \$R/dev/null && $1 && exec chroot \$R /bin/environment"
}
namespaces=()
lacks=""
if ! has unshare chroot; then
    :
elif ! unshare --mount --pid --fork true 2>/dev/null; then
    lacks="namespaces cannot be made here"
fi
# contained NAME SETUP EXPECTATION...: a line of a program in such a root folder.
contained() {
    local name=$1 setup=$2
    shift 2
    if [[ -n $lacks ]]; then cannot "$name" "$lacks"; return; fi
    line "$name" "$@" -- unshare --mount --pid --fork --kill-child bash -c "$(inside "$setup")"
}
contained "empty root" true
contained "read-only root" 'mount --bind $R $R && mount -o remount,ro,bind $R && mount -t proc proc $R/proc && mount --bind /dev/null $R/dev/null'
contained "no /proc" 'umount $R/proc' 'fork:pool=error: .*/proc/self/task.*' '*:pool=error: /proc is not mounted.*' 'process:square=error: /proc is not mounted.*'
contained "no /dev/null" 'umount $R/dev/null && mount -t tmpfs none $R/dev' '*:squares=error: .*/dev/null.*' 'process:square=error: .*/dev/null.*' 'fork:squares=328350'
contained "/proc of processes only" 'umount $R/proc && mount -t proc -o subset=pid proc $R/proc'
contained "/proc read-only" 'mount -o remount,ro,bind $R/proc'
contained "no /dev/shm, no /tmp" 'rmdir $R/tmp 2>/dev/null; true'
if [[ -n $lacks ]]; then
    for name in "PID 1" "PID 1 with SIGCHLD ignored" "hidepid" "namespaces of users, networks, IPC and time" "read-only everything"; do cannot "$name" "$lacks"; done
else
    line "PID 1" "parts=$everything" -- unshare --pid --fork --kill-child --mount-proc "$program" $everything
    line "hidepid" "parts=$everything" -- unshare --mount --pid --fork --kill-child bash -c 'mount -t proc -o hidepid=2 proc /proc && exec "$@"' - "${nobody[@]}" "$public" $everything
    if unshare --user --map-root-user --net --ipc --time --fork --monotonic 1000000 true 2>/dev/null; then
        line "namespaces of users, networks, IPC and time" -- unshare --user --map-root-user --net --ipc --time --fork --kill-child --monotonic 1000000 "$public"
    else
        cannot "namespaces of users, networks, IPC and time" "they cannot be made here"
    fi
    line "read-only everything" "parts=$everything" -- unshare --mount bash -c 'mount -o remount,ro,bind / / && mount -t tmpfs -o ro none /dev/shm && mount -t tmpfs -o ro none /tmp 2>/dev/null; exec "$0" "$@"' "$program" $everything
fi

# ---------------------------------------------------------------------------------------------------- limits
limited() {
    local name=$1 which=$2
    shift 2
    line "$name" "$@" -- prlimit "$which" "$program"
}
limited "ulimit -c 0" --core=0
limited "ulimit -l 0" --memlock=0
limited "ulimit -i 0" --sigpending=0
line "ulimit -s 128" "parts=$parts stack-1800" -- prlimit --stack=131072 "$program" $parts stack-1800
line "ulimit -s unlimited" "parts=$parts stack-60000" -- prlimit --stack=unlimited "$program" $parts stack-60000
line "ulimit -n 64" "parts=$everything descriptors" -- prlimit --nofile=64 "$program" $everything descriptors
# A pool of workers that are spawned needs 14 before its first worker runs, the others 22, a process 13.
files='error: .*RLIMIT_NOFILE .*is 13( .*|;.*|)'
limited "ulimit -n 13" --nofile=13 "fork:pool=$files" "*:squares=$files" process:square=49
copied='error: .*the template of workers cannot fork one: pipe2: .*RLIMIT_NOFILE .*is 18( .*|;.*)'
limited "ulimit -n 18" --nofile=18 "fork:squares=$copied" "forkserver:squares=$copied"
limited "ulimit -v 300000" --as=307200000
limited "ulimit -d 60000" --data=61440000
limited "ulimit -t 5" --cpu=5
# The output goes through a pipe, because files may not be that large.
line "ulimit -f 1" '*:crash=error: .* was lost .*|SIGABRT' 'notice=logged: workers are connected by sockets instead of shared memory: memory cannot be shared: .*ulimit -f' \
    -- bash -c '(ulimit -f 1; exec "$0") | cat; exit "${PIPESTATUS[0]}"' "$program"
# A backtrace takes more memory than there is. The error is the panic, or that memory ran out.
short='as it was told|error: .* ran out of memory.*'
for memory in "-v 60000" "-v 80000" "-d 15000"; do
    line "ulimit $memory, RUST_BACKTRACE=1" "*:panic=$short" "*:large=3145728|error: .* ran out of memory.*" -- env RUST_BACKTRACE=1 bash -c "ulimit $memory; exec \"\$0\"" "$program"
done
if [[ $(id -u) == 0 ]] && has setpriv; then
    nproc='error: .*RLIMIT_NPROC .* is 1 .*'
    line "ulimit -u 1" "fork:pool=error: this process cannot be copied: .*${nproc#error: }" "*:pool=$nproc" "process:square=$nproc" -- "${nobody[@]}" prlimit --nproc=1 "$public"
else
    cannot "ulimit -u 1" "it takes root and setpriv"
fi

# ---------------------------------------------------------------------------------------------------- CPUs and priorities
line "one CPU" "parts=$parts jobs" -- taskset -c 0 "$program" $parts jobs
line "nice 19" -- nice -n 19 "$program"
line "SCHED_IDLE" -- chrt --idle 0 "$program"
line "no address randomization" -- setarch -R "$program"

# in_group CONTROLLER FILE VALUE COMMAND...: in a control group of its own with this limit (version 1 or 2).
group() {
    local controller=$1 folder
    for folder in "/sys/fs/cgroup/$controller" /sys/fs/cgroup; do
        folder=$folder/procession-$$-$2
        mkdir "$folder" 2>/dev/null || continue
        groups+=("$folder")
        if [[ -e $folder/$3 && -e $folder/cgroup.procs ]] && echo "$4" 2>/dev/null >"$folder/$3"; then
            made=$folder
            return 0
        fi
    done
    lacks="control groups with $controller cannot be made here"
    return 1
}
groups=()
trap 'rmdir ${groups[@]+"${groups[@]}"} 2>/dev/null; rm -rf "$work"' EXIT
in_group='echo $$ >"$0/cgroup.procs" && exec "$@"'
if group cpu cpu cpu.cfs_quota_us 20000 || group cpu cpu2 cpu.max "20000 100000"; then
    line "a fifth of a CPU" "parts=$parts jobs" -- bash -c "$in_group" "$made" "$program" $parts jobs
else
    cannot "a fifth of a CPU" "$lacks"
fi
if group memory memory memory.limit_in_bytes 64M || group memory memory2 memory.max 64M; then
    line "64 MiB" "parts=$parts hog" -- bash -c "$in_group" "$made" "$program" $parts hog
else
    cannot "64 MiB" "$lacks"
fi
if group pids pids pids.max 3 || group pids pids2 pids.max 3; then
    few='error: .*pids.max of .* is 3.*'
    line "3 processes" "*:squares=$few" "process:square=$few" -- bash -c "$in_group" "$made" "$program"
else
    cannot "3 processes" "$lacks"
fi

# ---------------------------------------------------------------------------------------------------- refused system calls
# refused CALL EXPECTATION...: a system call that fails in every process of the program, with each of the errors that filters give.
# An expectation that begins with an error's name is for that error alone.
refused() {
    local call=$1 error mine expectation
    shift
    for error in EPERM ENOSYS; do
        mine=()
        for expectation in "$@"; do
            case $expectation in
                EPERM,* | ENOSYS,*) [[ $expectation != "$error",* ]] || mine+=("${expectation#*,}") ;;
                *) mine+=("$expectation") ;;
            esac
        done
        detail=" ($error)" line "refused: $call" ${mine[@]+"${mine[@]}"} -- "$tools/refuse" "$call=$error" -- "$program"
    done
}
# The promise is kept without them.
for call in access brk epoll_pwait getcwd getdents64 getpgid getpriority getrandom getsockopt ioctl kill lseek madvise munmap \
    prctl prlimit64 process_vm_readv recvfrom rseq rt_sigprocmask sched_getaffinity sendto set_robust_list set_tid_address shutdown \
    sigaltstack statx; do
    refused "$call"
done
# What shared memory takes.
board='\*:crash=error: .* was lost .*it is unknown whether it ran'
for call in memfd_create ftruncate; do
    refusals=()
    refused "$call" "${board#\\}" 'notice=logged: workers are connected by sockets instead of shared memory: memory cannot be shared: '
    # What is read goes by value. What several processes change needs memory, and says so.
    for step in channel file parts lock manager; do refusals+=("shared:$step=error: .*$call: .*"); done
    detail=" (what is shared)" line "refused: $call" parts=shared "${refusals[@]}" -- "$tools/refuse" "$call=EPERM" -- "$program" shared
done
# Without these, `abort` ends a process by an illegal access, so a crash is reported as one.
for call in gettid tgkill; do
    refused "$call" '*:crash=SIGSEGV'
done
# The calls that a pool needs, by name.
names_it() {
    local call
    for call in "$@"; do refused "$call" "*:pool=error: .*$call: .*" "process:square=error: .*$call: .*"; done
}
held='error: no worker can be tracked by a pidfd .*'
refused getpid "*:pool=$held" "process:square=$held"
names_it epoll_create1 epoll_ctl epoll_wait eventfd2 pidfd_open pidfd_send_signal socketpair
for call in sendmsg fcntl; do
    refused "$call" "fork:pool=error: .*$call: .*" "*:squares=error: .*$call: .*" "process:square=error: .*$call: .*"
done
refused pipe2 "*:squares=error: .*pipe2: .*"
for call in timerfd_create timerfd_settime; do
    refused "$call" "fork:pool=error: .*$call: .*" "forkserver:pool=error: .*$call: .*"
done
refused clone 'fork:pool=error: this process cannot be copied: fork .the system call clone.: .*' 'forkserver:squares=error: .*cannot fork one: clone: .*'
refused clone3 "EPERM,*:pool=error: a pool's thread cannot be started: .*" 'EPERM,process:square=error: processes cannot be watched: .*'
group='error: .*process group.*'
refused setpgid "spawn:squares=$group" "forkserver:squares=$group" "process:square=$group"
# The calls that a worker needs. It reports them on its stderr.
refused recvmsg '*:squares=error: .*86.*' 'process:square=error: .*86.*' 'notice=cannot become one: .*recvmsg: '
executed='error: .*/proc/self/exe cannot be executed: .*'
refused dup2 "*:squares=$executed" 'fork:squares=error: .*its output cannot be redirected: dup2: .*' "process:square=$executed"
unknown='error: .* disappeared.*waitid failed.*'
refused waitid "*:crash=$unknown" "process:kill=$unknown"
for error in EPERM ENOSYS; do
    detail=" ($error)" line "refused: execve" 'spawn:squares=error: .*/proc/self/exe cannot be executed.*' \
        'forkserver:squares=error: .*/proc/self/exe cannot be executed.*' 'process:square=error: .*/proc/self/exe cannot be executed.*' \
        -- env LD_PRELOAD="$tools/refuse.so" REFUSE="execve=$error" "$program"
done
# Without these, no program that uses Rust's library or glibc reaches its main.
for call in arch_prctl close mmap mprotect newfstatat openat pread64 read futex poll rt_sigaction write; do
    detail=" (EPERM)" line "refused: $call" 'dies=' -- "$tools/refuse" "$call=EPERM" -- "$program"
done

# ---------------------------------------------------------------------------------------------------- tools
tool() {
    local name=$1 tool=$2
    shift 2
    if has "$tool"; then line "$name" "$@"; else cannot "$name" "$tool is not installed"; fi
}
tool "strace" strace -- bash -c 'PROBE_OUT=$OUT exec strace -f -o /dev/null "$0"' "$program"
tool "gdb" gdb -- bash -c 'PROBE_OUT=$OUT exec gdb -q -batch -ex run --args "$0"' "$program"
valgrind='error: no worker can be tracked by a pidfd .*the valgrind under which this program runs does not know it.*'
tool "valgrind" valgrind "*:pool=$valgrind" "process:square=$valgrind" -- bash -c 'PROBE_OUT=$OUT exec valgrind -q "$0"' "$program"
loader=$(readelf -l "$program" 2>/dev/null | sed -nE 's/.*interpreter: (.*)\]/\1/p')
other='error: .* was started through .*, a loader or an emulator, so /proc/self/exe is that and not this program: .*'
line "another loader" "spawn:pool=$other" "forkserver:pool=$other" "process:square=$other" -- "$loader" "$program"
tool "an emulator" qemu-x86_64 "spawn:pool=$other" "forkserver:pool=$other" "process:square=$other" -- qemu-x86_64 "$program"

# ---------------------------------------------------------------------------------------------------- builds
# built NAME PROGRAM EXPECTATION... -- COMMAND...: a line of a program that a command builds.
built() {
    local name=$1 program=$2 expectations=()
    shift 2
    while [[ $1 != -- ]]; do expectations+=("$1"); shift; done
    shift
    [[ $name =~ $only ]] || { names+=("$name"); return 0; }
    if ! "$@" 2>"$work/build.err"; then
        local number=${#names[@]}
        names+=("$name")
        { printf 'FAILED           -  %s: it cannot be built\n' "$name"; sed 's/^/    /' "$work/build.err"; } >"$work/$number.verdict"
        return
    fi
    cp "$program" "$work/bin/${name// /-}"
    line "$name" ${expectations[@]+"${expectations[@]}"} -- "$work/bin/${name// /-}"
}
host=$(rustc -vV | sed -n 's/^host: //p')
musl=${host%-gnu}-musl
built "static, glibc" "$target/$host/debug/environment" -- env RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet -p procession-environments --bin environment --target "$host"
built "panic = \"abort\"" "$target/$host/debug/environment" -- env CARGO_PROFILE_DEV_PANIC=abort cargo build --quiet -p procession-environments --bin environment --target "$host"
if rustc --print target-libdir --target "$musl" 2>/dev/null | xargs -I{} test -d {}; then
    built "static, musl" "$target/$musl/debug/environment" -- cargo build --quiet -p procession-environments --bin environment --target "$musl"
else
    cannot "static, musl" "the target $musl is not installed (rustup target add $musl)"
fi
# Other allocators, loaded before everything else: some set themselves up in constructors, and have handlers for forks.
for allocator in libjemalloc.so.2 libmimalloc.so.2; do
    name=${allocator#lib} name=${name%.so*}
    library=$(ldconfig -p | sed -nE "s|.*\\b$allocator .*x86-64.* => (.*)|\\1|p" | head -1)
    if [[ -n $library ]]; then
        line "$name" -- env LD_PRELOAD="$library" "$program"
    else
        cannot "$name" "$allocator is not installed"
    fi
done
cdylib() { cargo rustc --quiet -p procession-environments --lib --crate-type cdylib; }
if cdylib; then
    shared='error: procession runs in a shared library that another program has loaded.*use Pool::in_process.*'
    line "a cdylib in a C host" "spawn:pool=$shared" "forkserver:pool=$shared" "process:square=$shared" -- "$tools/host" "$target/debug/libprocession_environments.so"
fi

# ---------------------------------------------------------------------------------------------------- the verdicts
wait
failed=0 untried=0 ok=0
for ((number = 0; number < ${#names[@]}; number++)); do
    [[ -f $work/$number.verdict ]] || continue
    cat "$work/$number.verdict"
    case $(head -c 6 "$work/$number.verdict") in
        ok*) ok=$((ok + 1)) ;;
        CANNOT) untried=$((untried + 1)) ;;
        *) failed=$((failed + 1)) ;;
    esac
done
# The page and this script name the same lines.
all=$(printf '%s\n' "${names[@]}")
if [[ $only == . ]]; then
    for name in "${names[@]}"; do
        grep -qF "| \`$name\` |" docs/environments.md || { echo "FAILED: docs/environments.md has no line for: $name"; failed=$((failed + 1)); }
    done
    while IFS= read -r name; do
        grep -qxF -- "$name" <<<"$all" || { echo "FAILED: docs/environments.md names what is not tried: $name"; failed=$((failed + 1)); }
    done < <(sed -nE 's/^\|.*\| `([^`]+)` \|$/\1/p' docs/environments.md)
fi
printf '%d lines are as docs/environments.md says, %d cannot be tried here, %d FAILED; %d s\n' "$ok" "$untried" "$failed" "$SECONDS"
((failed == 0))
