//! What workers find around them: environment, folder, niceness, CPUs, name, and where their output goes. Gathered by the builders, checked once, and given to each
//! worker: the environment when its program is executed, the pipes with the preamble, the rest in the hello, as its [`Station`].

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use super::Outputs;
use crate::{
    error::{Error, Result},
    marker::{DEPTH, MARKER},
    protocol::Station,
    sys::process::{CPUS, cpus, given_cpus, own_cpus},
};

/// A variable and its value; `None`: it is not there.
pub(crate) type Variable = (OsString, Option<OsString>);

/// What libraries read that have threads of their own: rayon, OpenMP, the BLAS libraries, and so on.
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

/// How many workers a pool has that is not told.
const JOBS: &str = "PROCESSION_JOBS";

/// The kernel's limits of niceness.
const NICE: std::ops::RangeInclusive<i32> = -20..=19;
/// The kernel cuts a process's name after so many bytes.
const TITLE_BYTES: usize = 15;

/// What was asked for, before it is checked. The builders set the fields, and call [`settle`](Self::settle).
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// On top of this process's own; the last word about a name counts.
    pub(crate) env: Vec<Variable>,
    pub(crate) current_dir: Option<PathBuf>,
    /// Added to this process's own niceness.
    pub(crate) nice: Option<i32>,
    pub(crate) pin_cpus: bool,
    /// How many threads libraries in a worker start. `None`: each worker's share of the CPUs.
    pub(crate) inner_threads: Option<usize>,
    pub(crate) outputs: Outputs,
    /// How many bytes of memory a worker may have on top of what it begins with.
    pub(crate) memory: Option<u64>,
}

/// What was asked for, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    /// On top of this process's own, each name once.
    pub(crate) env: Vec<Variable>,
    /// Bytes of the folder to work in.
    pub(crate) current_dir: Option<Vec<u8>>,
    pub(crate) outputs: Outputs,
    nice: Option<i32>,
    /// Workers are pinned to these in turn; empty: they are not.
    cpus: Vec<u32>,
    name: Option<String>,
    pub(crate) memory: Option<u64>,
}

impl Surroundings {
    /// Checks it all, for so many workers of a pool or process of this name.
    ///
    /// # Errors
    ///
    /// Something cannot be had.
    pub(crate) fn settle(self, name: Option<&str>, workers: usize) -> Result<Settled> {
        if let Some(name) = name.filter(|name| name.contains('\0')) {
            return Err(Error::config(format!("name({name:?}): a name has no zero byte")));
        }
        if let Some(folder) =
            self.current_dir.as_ref().filter(|folder| folder.as_os_str().as_bytes().contains(&0))
        {
            return Err(Error::config(format!("current_dir({folder:?}): a path has no zero byte")));
        }
        if let Some(nice) = self.nice.filter(|nice| !NICE.contains(nice)) {
            return Err(Error::config(format!(
                "nice({nice}): niceness is from {} to {}",
                NICE.start(),
                NICE.end()
            )));
        }
        if self.memory == Some(0) {
            return Err(Error::config("memory_limit(0): no task could run; give a number from 1"));
        }
        let cpus = if self.pin_cpus {
            own_cpus()
                .map_err(|error| Error::system("the CPUs that this process may use cannot be told", error))?
        } else {
            Vec::new()
        };
        Ok(Settled {
            env: self.environment(workers)?,
            current_dir: self.current_dir.map(|folder| folder.into_os_string().into_vec()),
            outputs: self.outputs,
            nice: self.nice,
            cpus,
            name: name.map(str::to_owned),
            memory: self.memory,
        })
    }

    fn environment(&self, workers: usize) -> Result<Vec<Variable>> {
        let mut env: Vec<Variable> = Vec::new();
        for (name, value) in &self.env {
            check_variable(name, value.as_deref())?;
            env.retain(|(other, _)| other != name);
            env.push((name.clone(), value.clone()));
        }
        if self.inner_threads == Some(0) {
            return Err(Error::config(
                "inner_threads(0): libraries take that for as many threads as there are CPUs; give a number from 1",
            ));
        }
        let share = || cpus() / workers.max(1);
        let threads = OsString::from(self.inner_threads.unwrap_or_else(share).max(1).to_string());
        // In a worker, what says the same as its own share is no word of the user's: its workers' shares are parts of that.
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
        // It says how many workers the outermost process has.
        if !env.iter().any(|(other, _)| other == JOBS) {
            env.push((JOBS.into(), None));
        }
        Ok(env)
    }
}

/// # Errors
///
/// No environment can have it.
fn check_variable(name: &OsStr, value: Option<&OsStr>) -> Result<()> {
    let call = if value.is_some() { "env" } else { "env_remove" };
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.contains(&b'=') || bytes.contains(&0) {
        return Err(Error::config(format!(
            "{call}({name:?}): a variable's name is not empty and has neither `=` nor a zero byte"
        )));
    }
    if value.is_some_and(|value| value.as_bytes().contains(&0)) {
        return Err(Error::config(format!("env({name:?}): a variable's value has no zero byte")));
    }
    if [MARKER, DEPTH, CPUS].iter().any(|own| name == *own) {
        return Err(Error::config(format!("{call}({name:?}): this variable is procession's own")));
    }
    Ok(())
}

impl Settled {
    /// What the worker at this place makes of itself.
    pub(crate) fn station(&self, worker: u32) -> Station {
        self.station_in_turn(worker, &format!("-{worker}"))
    }

    /// What a process for one function makes of itself, when so many were started before.
    pub(crate) fn station_alone(&self, before: u32) -> Station {
        self.station_in_turn(before, "")
    }

    fn station_in_turn(&self, turn: u32, place: &str) -> Station {
        let cpu = self.cpus.get(turn as usize % self.cpus.len().max(1)).copied();
        let title = self.name.as_deref().map(|name| title(name, place));
        Station { current_dir: self.current_dir.clone(), nice: self.nice, cpu, title, memory: self.memory }
    }
}

/// A worker's name among the machine's processes: the pool's, cut so that the worker's place fits behind it.
fn title(name: &str, place: &str) -> Vec<u8> {
    let room = TITLE_BYTES.saturating_sub(place.len()).min(name.len());
    let end = (0..=room).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    let name = &name[..end];
    let mut title = [name, place].concat().into_bytes();
    // Whoever lists processes shows a line for each.
    title.iter_mut().filter(|byte| byte.is_ascii_control()).for_each(|byte| *byte = b'?');
    title
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(settled: &'a Settled, name: &str) -> Option<&'a Variable> {
        settled.env.iter().find(|(other, _)| other == name)
    }

    #[test]
    fn a_title_ends_in_the_workers_place_whatever_the_pools_name() {
        assert_eq!(title("scoring", "-2"), b"scoring-2");
        assert_eq!(title("a name that is too long", "-4095"), b"a name tha-4095");
        assert_eq!(title("żółw żółw żółw", "-12"), "żółw żó-12".as_bytes());
        assert_eq!(title("", "-0"), b"-0");
        assert_eq!(title("two\nlines\0", "-0"), b"two?lines?-0");
        assert_eq!(title("a server of many words", ""), b"a server of man");
    }

    #[test]
    fn the_last_word_about_a_variable_counts() {
        let env = |name: &str, value: Option<&str>| (name.into(), value.map(OsString::from));
        let asked = Surroundings {
            env: vec![env("A", Some("1")), env("B", Some("1")), env("A", None), env("B", Some("2"))],
            ..Surroundings::default()
        };
        let settled = asked.settle(None, 1).unwrap();
        assert_eq!(value(&settled, "A"), Some(&env("A", None)));
        assert_eq!(value(&settled, "B"), Some(&env("B", Some("2"))));
    }

    #[test]
    fn what_the_user_says_of_threads_goes_before_what_is_said_by_default() {
        let env = vec![
            (OsString::from("MKL_NUM_THREADS"), Some(OsString::from("7"))),
            (OsString::from("BLIS_NUM_THREADS"), None),
        ];
        let asked = Surroundings { env, inner_threads: Some(3), ..Surroundings::default() };
        let settled = asked.settle(None, 1).unwrap();
        for (name, expected) in
            [("MKL_NUM_THREADS", Some("7")), ("BLIS_NUM_THREADS", None), ("RAYON_NUM_THREADS", Some("3"))]
        {
            assert_eq!(value(&settled, name), Some(&(name.into(), expected.map(OsString::from))));
        }
        let shares = Surroundings::default().settle(None, 100_000).unwrap();
        if std::env::var_os("OMP_NUM_THREADS").is_none() {
            assert_eq!(
                value(&shares, "OMP_NUM_THREADS"),
                Some(&("OMP_NUM_THREADS".into(), Some("1".into())))
            );
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        let refused = |asked: Surroundings| asked.settle(None, 1).unwrap_err().to_string();
        let nice = |nice| Surroundings { nice: Some(nice), ..Surroundings::default() };
        assert!(refused(nice(20)).contains("nice(20)") && refused(nice(-21)).contains("-20 to 19"));
        let threads = Surroundings { inner_threads: Some(0), ..Surroundings::default() };
        assert!(refused(threads).contains("inner_threads(0)"));
        let folder = Surroundings { current_dir: Some("a\0".into()), ..Surroundings::default() };
        assert!(refused(folder).contains("current_dir(\"a\\0\")"));
        let unnamed = Surroundings::default().settle(Some("a\0"), 1).unwrap_err().to_string();
        assert!(unnamed.contains("name(\"a\\0\")"), "{unnamed}");
        for (name, value, words) in [
            ("", Some("1"), "env(\"\")"),
            ("A=B", None, "env_remove(\"A=B\")"),
            ("A", Some("\0"), "no zero byte"),
            (MARKER, Some("1"), "procession's own"),
            (DEPTH, None, "procession's own"),
        ] {
            let env = vec![(name.into(), value.map(OsString::from))];
            let words_said = refused(Surroundings { env, ..Surroundings::default() });
            assert!(words_said.contains(words), "{words_said}");
        }
    }
}
