//! Files and connections that tasks are given.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
};

use procession::{Fd, Pool, Process, RemoteError, Shared, delayed, parallel, worker};
use serde::{Deserialize, Serialize};

use crate::{alone::alone, end::End, scratch::Folder};

#[worker]
fn say(to: &Fd<UnixStream>, words: &str) -> Result<(), RemoteError> {
    Ok((&**to).write_all(words.as_bytes())?)
}

#[worker]
fn echo(stream: Fd<TcpStream>) -> Result<String, RemoteError> {
    let mut stream = stream.into_inner();
    let mut words = String::new();
    stream.read_to_string(&mut words)?;
    stream.write_all(words.to_uppercase().as_bytes())?;
    Ok(words)
}

#[worker]
fn read_on(file: &Fd<File>, len: usize) -> Result<String, RemoteError> {
    let mut bytes = vec![0; len];
    (&**file).read_exact(&mut bytes)?;
    Ok(String::from_utf8(bytes)?)
}

#[worker]
fn write_to(fd: Fd<OwnedFd>, words: &str) -> Result<(), RemoteError> {
    Ok(File::from(fd.into_inner()).write_all(words.as_bytes())?)
}

#[derive(Serialize, Deserialize)]
struct Job {
    name: String,
    reports: Vec<Fd<UnixStream>>,
}

#[worker]
fn run(job: &Job) -> Result<(), RemoteError> {
    for to in &job.reports {
        say(to, &job.name)?;
    }
    Ok(())
}

#[worker]
fn have_said(to: Fd<UnixStream>, words: &str) -> Result<(), RemoteError> {
    let pool = Pool::new(1)?;
    pool.submit(delayed!(say(&to, words))).join()?
}

#[worker]
fn say_after_death(to: Fd<UnixStream>, died: &Path) -> Result<(), RemoteError> {
    if !died.exists() {
        std::fs::write(died, "")?;
        End::Kill.strike();
    }
    say(&to, "alive")
}

/// Returns everything that arrives until the connection ends.
fn all_of(mut from: UnixStream) -> String {
    let mut words = String::new();
    from.read_to_string(&mut words).unwrap();
    words
}

#[test]
fn tasks_are_given_connections_and_files_of_each_kind() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::new(1).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        pool.submit(delayed!(say(&Fd::new(theirs), "hello"))).join().unwrap().unwrap();
        assert_eq!(all_of(ours), "hello", "and nobody keeps it open");

        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"echo").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let accepted = Fd::new(listener.accept().unwrap().0);
        assert_eq!(pool.submit(delayed!(echo(accepted))).join().unwrap().unwrap(), "echo");
        let mut echoed = String::new();
        client.read_to_string(&mut echoed).unwrap();
        assert_eq!(echoed, "ECHO");

        let path = folder.path("file");
        let file = File::create(&path).unwrap();
        pool.submit(delayed!(write_to(Fd::new(file.into()), "content"))).join().unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "content");
    });
}

#[test]
fn tasks_that_are_given_the_same_file_share_its_position() {
    alone(|| {
        let folder = Folder::new();
        std::fs::write(folder.path("file"), "0123456789").unwrap();
        let file = Fd::new(File::open(folder.path("file")).unwrap());
        let pool = Pool::new(2).unwrap();
        let mut parts = parallel!(pool = &pool; read_on(&file, 2)? for _ in 0..3).unwrap();
        parts.sort();
        assert_eq!(parts, ["01", "23", "45"]);
        assert_eq!((&*file).stream_position().unwrap(), 6);
        assert_eq!(delayed!(read_on(&file, 2)).call().unwrap().unwrap(), "67");
        assert_eq!(Process::spawn(delayed!(read_on(&file, 2))).unwrap().join().unwrap().unwrap(), "89");
        assert!(file.into_inner().metadata().unwrap().is_file(), "the caller keeps its own");
    });
}

#[test]
fn descriptors_within_values_travel_and_so_do_many() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..150).map(|_| UnixStream::pair().unwrap()).unzip();
        let job = Job { name: "job".to_owned(), reports: theirs.into_iter().map(Fd::new).collect() };
        pool.submit(delayed!(run(&job))).join().unwrap().unwrap();
        let shared = Shared::new(&job).unwrap();
        drop(job);
        pool.submit(delayed!(run(&shared))).join().unwrap().unwrap();
        drop(shared);
        for from in ours {
            assert_eq!(all_of(from), "jobjob");
        }
    });
}

#[test]
fn a_descriptor_is_given_to_a_worker_that_takes_the_place_of_another() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::builder().jobs(1).retries(1).build().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let task = delayed!(say_after_death(Fd::new(theirs), &folder.path("died")));
        pool.submit(task).join().unwrap().unwrap();
        assert_eq!(all_of(ours), "alive");
    });
}

#[test]
fn a_worker_gives_descriptors_to_its_own_workers() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        pool.submit(delayed!(have_said(Fd::new(theirs), "from within"))).join().unwrap().unwrap();
        assert_eq!(all_of(ours), "from within");
    });
}
