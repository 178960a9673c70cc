//! Random signals to random workers and templates, while a host makes every kind of call: each outcome comes once, is right, and in its
//! place; no task runs more often than it may; and nothing is left.
//!
//! `chaos --seed 7 --seconds 60 --method forkserver --transport socket` runs for a minute and prints what it has seen. The seed
//! determines what is called, not when: signals are as random as the machine's load.
//!
//! `--work state` has processes that share a channel, locks and memory instead of calls: `state.rs`.
//!
//! This program sends the signals. It starts itself once more as the host, watches that the host gets on, and looks at the end whether
//! something of it is left.
#![expect(
    clippy::exit,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that tests: what cannot be done has failed"
)]

mod held;
mod host;
mod random;
mod shared;
mod state;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, ExitCode},
    sync::atomic::Ordering,
    thread::park_timeout,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};

use crate::{held::Held, random::Random, shared::Shared};

/// A host that has not completed a call for this time hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time in which the processes that a host leaves behind must end.
const FOLLOW: Duration = Duration::from_secs(10);
/// A stopped process is continued after this time at the latest.
const MOST_STOP_MILLIS: u64 = 60;
/// Once in this many times a template that is a copy of the host is not spared.
const TEMPLATES: u64 = 5;
/// The variable that every process of this run has in its environment.
const TOKEN: &str = "CHAOS_TOKEN";

const SIGNALS: [Signal; 15] = [
    Signal::SIGKILL,
    Signal::SIGKILL,
    Signal::SIGTERM,
    Signal::SIGSTOP,
    Signal::SIGSTOP,
    Signal::SIGSEGV,
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGPIPE,
    Signal::SIGALRM,
];

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) method: String,
    transport: String,
    work: String,
    /// The longest pause between two signals.
    pause_micros: u64,
    is_host: bool,
}

impl Options {
    fn from_args() -> Self {
        let mut options = Self {
            seed: std::process::id().into(),
            seconds: 10,
            method: "spawn".to_owned(),
            transport: "rings".to_owned(),
            work: "calls".to_owned(),
            pause_micros: 50_000,
            is_host: false,
        };
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| panic!("{name} wants a value"));
            match name.as_str() {
                "--seed" => options.seed = value().parse().unwrap(),
                "--seconds" => options.seconds = value().parse().unwrap(),
                "--method" => options.method = value(),
                "--transport" => options.transport = value(),
                "--work" => options.work = value(),
                "--pause-micros" => options.pause_micros = value().parse().unwrap(),
                "--host" => options.is_host = true,
                _ => panic!(
                    "{name} is no option: --seed N, --seconds N, --method spawn|forkserver|fork, --transport rings|socket, --work calls|state, --pause-micros N"
                ),
            }
        }
        options
    }

    fn args(&self) -> Vec<String> {
        let Self { seed, seconds, method, transport, work, pause_micros, .. } = self;
        let pairs = [
            ("--seed", seed.to_string()),
            ("--seconds", seconds.to_string()),
            ("--method", method.clone()),
            ("--transport", transport.clone()),
            ("--work", work.clone()),
            ("--pause-micros", pause_micros.to_string()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

fn main() -> ExitCode {
    let options = Options::from_args();
    if options.is_host {
        match &*options.work {
            "calls" => host::run(&options),
            "state" => state::run(&options),
            other => panic!("--work {other}: there are calls and state"),
        }
        return ExitCode::SUCCESS;
    }
    println!("chaos {}", options.args().join(" "));
    let (shared, memory) = shared::create();
    let token = format!("chaos-{}", std::process::id());
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(options.args())
        .arg("--host")
        .env(memory.0, memory.1)
        .env(TOKEN, &token)
        .envs((options.transport == "socket").then_some(("PROCESSION_TRANSPORT", "socket")))
        .env("PROCESSION_START_METHOD", &options.method)
        .env_remove("PROCESSION_IN_PROCESS")
        .spawn()
        .unwrap();
    let verdict = attend(&options, shared, &mut host).and_then(|signals| {
        nothing_is_left(&token)?;
        Ok(signals)
    });
    match verdict {
        Ok(signals) => {
            println!("signals: {signals:?}");
            ExitCode::SUCCESS
        }
        Err(words) => {
            for pid in processes(&token) {
                if let Some(held) = Held::new(pid, || processes(&token).contains(&pid)) {
                    held.signal(Signal::SIGKILL);
                }
            }
            let _ = host.wait();
            eprintln!("FAILED: {words}\nto try again: chaos {}", options.args().join(" "));
            ExitCode::FAILURE
        }
    }
}

/// Sends signals to the processes of the host until it has ended. Returns how many of each.
fn attend(options: &Options, shared: &Shared, host: &mut Child) -> Result<BTreeMap<String, u64>, String> {
    let mut random = Random::new(options.seed, u64::MAX);
    let mut sent = BTreeMap::new();
    let mut stopped: Vec<(Instant, Held)> = Vec::new();
    let (mut beats, mut beaten) = (0, Instant::now());
    loop {
        if let Some(status) = host.try_wait().unwrap() {
            return if status.success() { Ok(sent) } else { Err(format!("the host ended so: {status}")) };
        }
        let now = Instant::now();
        let seen = shared.beats.load(Ordering::Relaxed);
        if seen != beats {
            (beats, beaten) = (seen, now);
        } else if now - beaten > PATIENCE {
            return Err(report(shared, host.id()));
        }
        stopped.retain(|(at, held)| {
            let is_over = *at <= now;
            if is_over {
                held.signal(Signal::SIGCONT);
            }
            !is_over
        });
        let pause = Duration::from_micros(random.below(options.pause_micros.max(1)));
        let next = stopped.iter().map(|(at, _)| at.saturating_duration_since(now)).min();
        park_timeout(pause.min(next.unwrap_or(pause)));
        if shared.is_open.load(Ordering::Relaxed) == 0 {
            continue;
        }
        let victims = descendants(host.id());
        if victims.is_empty() {
            continue;
        }
        // A template that is a copy of the host cannot be replaced, and its pool soon has no workers: often it is spared, and always if processes
        // that share state are started until the end.
        let is_spared = options.work == "state" || !random.once_in(TEMPLATES);
        let (victim, signal) = (*random.pick(&victims), *random.pick(&SIGNALS));
        if options.method == "fork" && is_spared && children(host.id()).contains(&victim) {
            continue;
        }
        let held = Held::new(victim, || descendants(host.id()).contains(&victim));
        if let Some(held) = held.filter(|held| held.signal(signal)) {
            *sent.entry(signal.to_string()).or_default() += 1;
            if signal == Signal::SIGSTOP {
                let millis = random.below(MOST_STOP_MILLIS);
                stopped.push((Instant::now() + Duration::from_millis(millis), held));
            }
        }
    }
}

/// The children of a process.
fn children(pid: u32) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    let children =
        threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let children: String = children.collect();
    children.split_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)).collect()
}

/// The children of a process, and theirs.
fn descendants(pid: u32) -> Vec<Pid> {
    let mut found = children(pid);
    let mut seen = 0;
    while let Some(child) = found.get(seen) {
        let more = children(child.as_raw().cast_unsigned());
        found.extend(more);
        seen += 1;
    }
    found
}

/// The processes of this run that live.
fn processes(token: &str) -> Vec<Pid> {
    let wanted = format!("{TOKEN}={token}");
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| entry == wanted.as_bytes())
    })
    .map(Pid::from_raw)
    .collect()
}

fn nothing_is_left(token: &str) -> Result<(), String> {
    let deadline = Instant::now() + FOLLOW;
    loop {
        let left = processes(token);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("processes are left: {left:?}"));
        }
        park_timeout(Duration::from_millis(5));
    }
}

/// Reports what a host that hangs is doing.
fn report(shared: &Shared, host: u32) -> String {
    let mut words = format!("the host hangs; its clients are at {:#?}", shared.said());
    for pid in [host].into_iter().chain(descendants(host).into_iter().map(|pid| pid.as_raw().cast_unsigned()))
    {
        let read = |name: &str| fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(name));
        let state =
            read("stat").ok().and_then(|stat| Some(stat.rsplit_once(") ")?.1.chars().take(1).collect()));
        words += &format!("\npid {pid}: state {}", state.unwrap_or_else(|| "gone".to_owned()));
    }
    let stacks = Command::new("gdb")
        .args(["-batch", "-ex", "thread apply all bt 24", "-p", &host.to_string()])
        .output();
    match stacks {
        Ok(stacks) => words += &format!("\n{}", String::from_utf8_lossy(&stacks.stdout)),
        Err(_) => words += "\n(gdb, which would show its stacks, is not here)",
    }
    words
}
