//! The settings of workers: variables, folder, niceness, CPUs, name, memory, and where their output goes.
//!
//! The builders collect the settings in [`SpawnOptions`], and [`SpawnOptions::resolve`] checks them once. Each worker gets its
//! variables when its program is executed, its pipes with the preamble, and the rest in the hello, as its [`WorkerSetup`].

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{LaunchRequest, Outputs, StartMethod};
use crate::{
    error::{Error, Result},
    escape::is_control,
    marker::{DEPTH, MARKER},
    protocol::{Folder, WorkerSetup},
    setting::{FOREVER, brief, limit, refused, waits_for_debugger},
    sys::{
        cpu::{given_cpus, own_cpus},
        process::{CPUS, folder_id},
    },
    transport::wants_socket,
};

/// A variable and its value. `None` removes the variable.
pub(crate) type Variable = (OsString, Option<OsString>);

/// The variables that are read by libraries with threads of their own: rayon, OpenMP, the BLAS libraries, and so on.
const THREAD_VARIABLES: &[&str] = &[
    "RAYON_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "TOKIO_WORKER_THREADS",
];

/// The number of workers of a pool that does not set it.
const JOBS: &str = "PROCESSION_JOBS";

/// The kernel's limits of niceness.
const NICE: std::ops::RangeInclusive<i32> = -20..=19;
/// The kernel truncates the name of a process to this length.
const TITLE_BYTES: usize = 15;
/// The maximum length of a pool's name.
const MOST_NAME_BYTES: usize = 255;
/// The maximum number of threads of a library.
const MOST_THREADS: usize = 4096;
/// The minimum memory limit. With less, no worker can do its own work.
const LEAST_MEMORY_BYTES: u64 = 1 << 20;
/// The kernel's maximum length of a string when it executes a program (`MAX_ARG_STRLEN`).
const MOST_VARIABLE_BYTES: usize = 128 << 10;

/// The default start timeout. It is long because machines may be under load.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of the processes of a pool, or of a single process. The setters of the builders set the fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpawnOptions {
    pub(crate) name: Option<Arc<str>>,
    /// Added to this process's own variables. The last entry for a name counts.
    pub(crate) env: Vec<Variable>,
    pub(crate) current_dir: Option<PathBuf>,
    pub(crate) outputs: Outputs,
    /// `None` means the method of the environment.
    pub(crate) start_method: Option<StartMethod>,
    pub(crate) start_timeout: Option<Duration>,
    pub(crate) pin_cpus: bool,
    /// The number of threads that libraries in a worker start. `None` means each worker's share of the CPUs.
    pub(crate) inner_threads: Option<usize>,
    /// The settings that each worker applies to itself. Its folder, CPU and name follow from the settings above.
    pub(crate) setup: WorkerSetup,
}

/// The settings after they were checked.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedOptions {
    pub(crate) name: Option<Arc<str>>,
    /// The whole environment, with each name once: this process's own at the time of the check, and what was added.
    pub(crate) env: Vec<Variable>,
    pub(crate) outputs: Outputs,
    pub(crate) start_method: StartMethod,
    pub(crate) start_timeout: Duration,
    /// The CPUs to which workers are pinned in turn. Empty if they are not pinned.
    cpus: Vec<u32>,
    /// The settings that each worker applies to itself, without its CPU and its name. The folder is the one that was set, or that this
    /// process had at the time of the check.
    pub(crate) setup: WorkerSetup,
}

impl SpawnOptions {
    /// Checks all settings, for `workers` workers. `cpus` counts the CPUs that they may use.
    ///
    /// # Errors
    ///
    /// A setting cannot be applied.
    pub(crate) fn resolve(self, workers: usize, cpus: impl FnOnce() -> usize) -> Result<ResolvedOptions> {
        let start_timeout = self.start_timeout.unwrap_or(START_TIMEOUT);
        let setting = format_args!("start_timeout({start_timeout:?})");
        let start_timeout = limit(setting, start_timeout, "every start would time out")?;
        wants_socket()?;
        let start_method = self.start_method.map_or_else(StartMethod::from_env, Ok)?;
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        if let Some(folder) = &self.current_dir {
            check_folder(folder)?;
        }
        check_setup(&self.setup)?;
        let unknown = |error| Error::system("the CPUs that this process may use cannot be determined", error);
        let pinned_to = if self.pin_cpus { own_cpus().map_err(unknown)? } else { Vec::new() };
        Ok(ResolvedOptions {
            env: whole(self.environment(workers, cpus)?),
            outputs: self.outputs,
            start_method,
            // A person who debugs needs any amount of time.
            start_timeout: if waits_for_debugger()? { FOREVER } else { start_timeout },
            cpus: pinned_to,
            name: self.name,
            setup: WorkerSetup { folder: folder(self.current_dir), ..self.setup },
        })
    }

    fn environment(&self, workers: usize, cpus: impl FnOnce() -> usize) -> Result<Vec<Variable>> {
        let mut env: Vec<Variable> = Vec::new();
        for (name, value) in &self.env {
            check_variable(name, value.as_deref())?;
            env.retain(|(other, _)| other != name);
            env.push((name.clone(), value.clone()));
        }
        if let Some(threads) = self.inner_threads.filter(|threads| !(1..=MOST_THREADS).contains(threads)) {
            let why = match threads {
                0 => "libraries read that as one thread for each CPU",
                _ => "that is too many",
            };
            let allowed = format_args!("a number from 1 to {MOST_THREADS}");
            return Err(refused(format_args!("inner_threads({threads})"), why, allowed));
        }
        let share = || cpus() / workers.max(1);
        let threads = OsString::from(self.inner_threads.unwrap_or_else(share).max(1).to_string());
        // In a worker, a value equal to the worker's own share was not set by the user. Its workers' shares are parts of that
        // share.
        let own = given_cpus().map(|given| OsString::from(given.to_string()));
        for name in THREAD_VARIABLES {
            let inherited = std::env::var_os(name).filter(|value| own.as_ref() != Some(value));
            let by_user = env.iter().any(|(other, _)| other == name)
                || (self.inner_threads.is_none() && inherited.is_some());
            if !by_user {
                env.push((name.into(), Some(threads.clone())));
            }
        }
        env.push((CPUS.into(), Some(threads)));
        // It sets the number of workers of the outermost process only.
        if !env.iter().any(|(other, _)| other == JOBS) {
            env.push((JOBS.into(), None));
        }
        Ok(env)
    }
}

/// Returns this process's environment with these variables added and procession's own variables removed.
fn whole(extra: Vec<Variable>) -> Vec<Variable> {
    let is_kept =
        |name: &OsStr| name != MARKER && name != DEPTH && !extra.iter().any(|(other, _)| other == name);
    let own = std::env::vars_os().filter(|(name, _)| is_kept(name)).map(|(name, value)| (name, Some(value)));
    own.collect::<Vec<_>>().into_iter().chain(extra).filter(|(_, value)| value.is_some()).collect()
}

/// Returns the working folder with its absolute path. If this process does not know the path of its folder, the workers inherit the
/// folder.
fn folder(asked: Option<PathBuf>) -> Option<Folder> {
    let own = || Some((std::env::current_dir().ok()?, folder_id()));
    let (path, id) = match asked {
        Some(path) if path.is_absolute() => (path, None),
        Some(path) => (own().map_or_else(|| path.clone(), |(own, _)| own.join(&path)), None),
        None => own()?,
    };
    Some(Folder { path: path.into_os_string().into_vec(), id })
}

/// Checks the name of a pool or process.
///
/// # Errors
///
/// The name is too long, or it cannot be a C string.
fn check_name(name: &str) -> Result<()> {
    let setting = || format!("name({:?})", brief(name));
    if name.len() > MOST_NAME_BYTES {
        let why = format_args!("it has {} bytes", name.len());
        return Err(refused(setting(), why, format_args!("a name of at most {MOST_NAME_BYTES}")));
    }
    if name.contains('\0') {
        return Err(refused(format_args!("name({name:?})"), "it contains a zero byte", "a name without"));
    }
    Ok(())
}

/// Checks what a worker applies to itself.
///
/// # Errors
///
/// A setting cannot be applied.
fn check_setup(setup: &WorkerSetup) -> Result<()> {
    if let Some(nice) = setup.nice.filter(|nice| !NICE.contains(nice)) {
        let allowed = format_args!("a number from {} to {}", NICE.start(), NICE.end());
        return Err(refused(format_args!("nice({nice})"), "there is no such niceness", allowed));
    }
    if let Some(bytes) = setup.memory_limit.filter(|&bytes| bytes < LEAST_MEMORY_BYTES) {
        let allowed = format_args!("a number of bytes from {LEAST_MEMORY_BYTES}");
        return Err(refused(format_args!("memory_limit({bytes})"), "no task could run", allowed));
    }
    Ok(())
}

/// Checks a working folder.
///
/// # Errors
///
/// The folder does not exist or is not a directory.
fn check_folder(folder: &Path) -> Result<()> {
    let refused = |why: &dyn fmt::Display| {
        let setting = format!("current_dir({})", brief(format_args!("{folder:?}")));
        Err(refused(setting, why, "an existing directory"))
    };
    if folder.as_os_str().is_empty() {
        return refused(&"it is empty");
    }
    if folder.as_os_str().as_bytes().contains(&0) {
        return refused(&"it contains a zero byte");
    }
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => refused(&io::Error::from_raw_os_error(nix::libc::ENOTDIR)),
        Err(error) => refused(&error),
    }
}

/// Checks a variable.
///
/// # Errors
///
/// An environment cannot contain it.
fn check_variable(name: &OsStr, value: Option<&OsStr>) -> Result<()> {
    let call = if value.is_some() { "env" } else { "env_remove" };
    let setting = format!("{call}({})", brief(format_args!("{name:?}")));
    let bytes = name.as_bytes();
    if [MARKER, DEPTH, CPUS].iter().any(|own| name == *own) {
        return Err(refused(setting, "this variable is reserved for procession", "another"));
    }
    if bytes.is_empty() || bytes.contains(&b'=') || bytes.contains(&0) {
        let allowed = "a name that is not empty and contains neither `=` nor a zero byte";
        return Err(refused(setting, "no variable has that name", allowed));
    }
    let Some(value) = value else { return Ok(()) };
    if value.as_bytes().contains(&0) {
        return Err(refused(setting, "its value contains a zero byte", "one without"));
    }
    // Including `=` and the zero byte at the end.
    let most = MOST_VARIABLE_BYTES - 2;
    if bytes.len() + value.len() > most {
        let why = format_args!("name and value have {} bytes together", bytes.len() + value.len());
        return Err(refused(setting, why, format_args!("at most {most} bytes")));
    }
    Ok(())
}

impl ResolvedOptions {
    /// Returns what the worker at this place applies to itself.
    pub(crate) fn setup_of(&self, worker: u32) -> WorkerSetup {
        self.setup_in_turn(worker, &format!("-{worker}"))
    }

    /// Returns what a process for one function applies to itself. `before` processes were started before it.
    pub(crate) fn setup_alone(&self, before: u32) -> WorkerSetup {
        self.setup_in_turn(before, "")
    }

    /// Returns the request for a worker with these settings. Its owner adds the key.
    pub(crate) fn request(&self) -> LaunchRequest<'_> {
        LaunchRequest { env: &self.env, outputs: self.outputs, key: 0 }
    }

    fn setup_in_turn(&self, turn: u32, place: &str) -> WorkerSetup {
        let cpu = self.cpus.get(turn as usize % self.cpus.len().max(1)).copied();
        let title = self.name.as_deref().map(|name| title(name, place));
        WorkerSetup { cpu, title, ..self.setup.clone() }
    }
}

/// Returns the name that the worker has in process lists: the pool's name, shortened so that the worker's place fits behind it.
fn title(name: &str, place: &str) -> Vec<u8> {
    let room = TITLE_BYTES.saturating_sub(place.len()).min(name.len());
    let end = (0..=room).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    let name = &name[..end];
    // Programs that list processes show one line for each.
    [name, place].concat().replace(is_control, "?").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cpu::cpus;

    fn value<'a>(resolved: &'a ResolvedOptions, name: &str) -> Option<&'a Variable> {
        resolved.env.iter().find(|(other, _)| other == name)
    }

    #[test]
    fn a_title_ends_in_the_workers_place_for_every_name_of_the_pool() {
        assert_eq!(title("scoring", "-2"), b"scoring-2");
        assert_eq!(title("a name that is too long", "-4095"), b"a name tha-4095");
        assert_eq!(title("żółw żółw żółw", "-12"), "żółw żó-12".as_bytes());
        assert_eq!(title("", "-0"), b"-0");
        assert_eq!(title("two\nlines\0", "-0"), b"two?lines?-0");
        assert_eq!(title("a\u{9b}2J\u{202e}b\x7f", "-0"), b"a?2J?b?-0");
        assert_eq!(title("a server of many words", ""), b"a server of man");
    }

    #[test]
    fn the_last_word_about_a_variable_counts() {
        let env = |name: &str, value: Option<&str>| (name.into(), value.map(OsString::from));
        let asked = SpawnOptions {
            env: vec![env("A", Some("1")), env("B", Some("1")), env("A", None), env("B", Some("2"))],
            ..SpawnOptions::default()
        };
        let resolved = asked.resolve(1, cpus).unwrap();
        assert_eq!(value(&resolved, "A"), None);
        assert_eq!(value(&resolved, "B"), Some(&env("B", Some("2"))));
    }

    #[test]
    fn thread_counts_that_the_user_sets_override_the_default() {
        let env = vec![
            (OsString::from("MKL_NUM_THREADS"), Some(OsString::from("7"))),
            (OsString::from("BLIS_NUM_THREADS"), None),
        ];
        let asked = SpawnOptions { env, inner_threads: Some(3), ..SpawnOptions::default() };
        let resolved = asked.resolve(1, cpus).unwrap();
        for (name, expected) in
            [("MKL_NUM_THREADS", Some("7")), ("BLIS_NUM_THREADS", None), ("RAYON_NUM_THREADS", Some("3"))]
        {
            let expected = expected.map(|value| (name.into(), Some(OsString::from(value))));
            assert_eq!(value(&resolved, name), expected.as_ref());
        }
        let shares = SpawnOptions::default().resolve(100_000, cpus).unwrap();
        if std::env::var_os("OMP_NUM_THREADS").is_none() {
            assert_eq!(
                value(&shares, "OMP_NUM_THREADS"),
                Some(&("OMP_NUM_THREADS".into(), Some("1".into())))
            );
        }
    }

    #[test]
    fn impossible_settings_are_refused_by_name() {
        let refused = |asked: SpawnOptions| asked.resolve(1, cpus).unwrap_err().to_string();
        let setup = |setup| SpawnOptions { setup, ..SpawnOptions::default() };
        let nice = |nice| setup(WorkerSetup { nice: Some(nice), ..WorkerSetup::default() });
        assert!(refused(nice(20)).contains("nice(20)") && refused(nice(-21)).contains("-20 to 19"));
        let threads = SpawnOptions { inner_threads: Some(0), ..SpawnOptions::default() };
        assert!(refused(threads).contains("inner_threads(0)"));
        let folder = SpawnOptions { current_dir: Some("a\0".into()), ..SpawnOptions::default() };
        assert!(refused(folder).contains("current_dir(\"a\\0\")"));
        let memory = setup(WorkerSetup { memory_limit: Some(1), ..WorkerSetup::default() });
        assert!(refused(memory).contains("memory_limit(1)"));
        let unnamed = refused(SpawnOptions { name: Some("a\0".into()), ..SpawnOptions::default() });
        assert!(unnamed.contains("name(\"a\\0\")"), "{unnamed}");
        for (name, value, words) in [
            ("", Some("1"), "env(\"\")"),
            ("A=B", None, "env_remove(\"A=B\")"),
            ("A", Some("\0"), "zero byte"),
            (MARKER, Some("1"), "reserved for procession"),
            (DEPTH, None, "reserved for procession"),
        ] {
            let env = vec![(name.into(), value.map(OsString::from))];
            let words_said = refused(SpawnOptions { env, ..SpawnOptions::default() });
            assert!(words_said.contains(words), "{words_said}");
        }
    }
}
