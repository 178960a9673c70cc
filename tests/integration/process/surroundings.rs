//! The environment of a process, as set by its builder and its start method.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use procession::{Process, StartMethod, delayed, worker};

use super::{begin_and_wait, code, echo};
use crate::{
    alone::{alone, alone_in_one_thread},
    event::is_there,
    leak::templates,
    scratch::Folder,
};

#[worker]
fn look_around() -> (Option<String>, PathBuf) {
    (std::env::var("OF_THIS_TEST").ok(), std::env::current_dir().expect("a folder"))
}

/// Name among processes, niceness, how many CPUs, and a variable that a library reads.
#[worker]
fn look_at_oneself() -> (String, i64, usize, Option<String>) {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc is there");
    let nice = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16)?.parse().ok());
    let name = std::fs::read_to_string("/proc/self/comm").expect("/proc is there");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    (name.trim().to_owned(), nice.expect("a number"), cpus, std::env::var("RAYON_NUM_THREADS").ok())
}

#[test]
fn each_process_has_the_surroundings_that_its_builder_sets() {
    alone(|| {
        let folder = Folder::new();
        let own = std::env::current_dir().unwrap();
        let here = folder.root().canonicalize().unwrap();
        for method in [StartMethod::Spawn, StartMethod::ForkServer] {
            let builder = || Process::builder().start_method(method);
            let mut processes = [
                builder().env("OF_THIS_TEST", "1").spawn(delayed!(look_around())).unwrap(),
                builder().current_dir(&here).spawn(delayed!(look_around())).unwrap(),
                builder().env("OF_THIS_TEST", "2").current_dir("/").spawn(delayed!(look_around())).unwrap(),
                builder().spawn(delayed!(look_around())).unwrap(),
            ];
            let value = |n: &str| Some(n.to_owned());
            let expected = [
                (value("1"), own.clone()),
                (None, here.clone()),
                (value("2"), "/".into()),
                (None, own.clone()),
            ];
            for (process, expected) in processes.iter_mut().zip(expected) {
                assert_eq!(process.join().unwrap(), expected, "{method}");
            }
        }
        let builder = Process::builder().name("server").nice(3).pin_cpus(true).inner_threads(7);
        let seen = builder.spawn(delayed!(look_at_oneself())).unwrap().join().unwrap();
        assert_eq!(seen, ("server".to_owned(), look_at_oneself().1 + 3, 1, Some("7".to_owned())));
        let builder = Process::builder().env("OF_THIS_TEST", "1").env_remove("OF_THIS_TEST");
        assert_eq!(builder.spawn(delayed!(look_around())).unwrap().join().unwrap(), (None, own));
        assert!(
            Process::builder()
                .nice(100)
                .spawn(delayed!(echo(1)))
                .unwrap_err()
                .to_string()
                .contains("nice(100)")
        );
        for (name, words) in [("", "env(\"\")"), ("A=B", "env(\"A=B\")")] {
            let error = Process::builder().env(name, "1").spawn(delayed!(echo(1))).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let nowhere = folder.path("nowhere");
        let error =
            Process::builder().current_dir(&nowhere).spawn(delayed!(echo(1))).unwrap_err().to_string();
        assert!(error.contains("current_dir(") && error.contains("nowhere\"): No such file"), "{error}");
    });
}

static FOUND_HERE: AtomicU32 = AtomicU32::new(0);

#[worker]
fn what_is_here() -> u32 {
    FOUND_HERE.load(Ordering::Relaxed)
}

#[test]
fn by_fork_a_process_has_what_its_parent_had_at_its_spawn() {
    alone_in_one_thread(|| {
        let spawn =
            || Process::builder().start_method(StartMethod::Fork).spawn(delayed!(what_is_here())).unwrap();
        FOUND_HERE.store(5, Ordering::Relaxed);
        let mut five = spawn();
        FOUND_HERE.store(6, Ordering::Relaxed);
        let mut six = spawn();
        let mut none =
            Process::builder().start_method(StartMethod::Spawn).spawn(delayed!(what_is_here())).unwrap();
        assert_eq!((five.join().unwrap(), six.join().unwrap(), none.join().unwrap()), (5, 6, 0));
        assert_eq!((code(&five), code(&six)), (Some(0), Some(0)));
    });
}

#[test]
fn by_fork_server_processes_come_from_one_template() {
    alone(|| {
        let folder = Folder::new();
        let go = folder.path("go");
        let processes: Vec<_> = (0..5)
            .map(|n| {
                let begun = folder.path(&format!("begun {n}"));
                Process::builder()
                    .start_method(StartMethod::ForkServer)
                    .spawn(delayed!(begin_and_wait(&begun, &go)))
                    .unwrap()
            })
            .collect();
        assert_eq!(templates().len(), 1);
        std::fs::write(&go, "").unwrap();
        for mut process in processes {
            assert_eq!(process.join().unwrap(), process.id());
            assert!(!is_there(process.id()));
        }
        // Killed, it is made again.
        let keep = Process::spawn(delayed!(echo(1))).unwrap();
        for template in templates() {
            // A template that was made for a single copy may have exited by itself.
            let killed = kill(Pid::from_raw(template.cast_signed()), Signal::SIGKILL);
            assert!(killed.is_ok() || killed == Err(nix::errno::Errno::ESRCH));
        }
        let again = Process::builder().start_method(StartMethod::ForkServer).spawn(delayed!(echo(2)));
        assert_eq!(again.unwrap().join().unwrap(), 2);
        drop(keep);
    });
}
