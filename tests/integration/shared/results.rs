//! Results that are not copied to the caller.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::Mutex,
};

use procession::{Fd, Pool, Process, RemoteError, Shared, SharedSlice, delayed, parallel, worker};

use super::slices::{lies_in_shared_memory, mapped};
use crate::{
    alone::alone,
    end::End,
    event::{block_on, until},
    scratch::Folder,
};

#[worker]
fn render(len: usize, color: u8) -> Result<SharedSlice<u8>, RemoteError> {
    Ok(SharedSlice::from_iter(len, std::iter::repeat(color))?)
}

#[worker]
fn same(slice: SharedSlice<u8>) -> SharedSlice<u8> {
    slice
}

#[worker]
fn part_of(slice: &SharedSlice<u8>, from: usize, to: usize) -> SharedSlice<u8> {
    slice.slice(from..to)
}

/// A text and its words.
type Words = (Shared<str>, Shared<Vec<Shared<str>>>);

#[worker]
fn words(of: &str) -> Result<Words, RemoteError> {
    let words = of.split(' ').map(Shared::new).collect::<Result<Vec<_>, _>>()?;
    Ok((Shared::new(of)?, Shared::new(&words)?))
}

#[worker]
fn many(count: usize) -> Result<Vec<SharedSlice<u8>>, RemoteError> {
    Ok((0..count).map(|n| SharedSlice::from_slice(&[n as u8])).collect::<Result<_, _>>()?)
}

#[worker]
fn open(path: &Path) -> Result<Fd<File>, RemoteError> {
    Ok(Fd::new(File::open(path)?))
}

#[worker]
fn connect() -> Result<Fd<UnixStream>, RemoteError> {
    let (mut ours, theirs) = UnixStream::pair()?;
    ours.write_all(b"sent")?;
    Ok(Fd::new(theirs))
}

#[worker]
fn render_within(len: usize) -> Result<SharedSlice<u8>, RemoteError> {
    let pool = Pool::new(1)?;
    pool.submit(delayed!(render(len, 7))).join()?
}

#[worker]
fn render_and_die(once: &Path) -> Result<SharedSlice<u8>, RemoteError> {
    if !once.exists() {
        std::fs::write(once, "")?;
        let _lost = render(10, 1)?;
        End::Kill.strike();
    }
    render(10, 2)
}

#[worker]
fn keep(slice: SharedSlice<u8>) -> usize {
    let mut kept = KEPT.lock().expect("no task has panicked");
    *kept = Some(slice);
    kept.iter().len()
}

#[worker]
fn kept() -> Option<SharedSlice<u8>> {
    KEPT.lock().expect("no task has panicked").clone()
}

static KEPT: Mutex<Option<SharedSlice<u8>>> = Mutex::new(None);

#[test]
fn a_result_of_any_size_is_mapped_and_not_copied() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let images = parallel!(pool = &pool; render(64 << 20, color)? for color in 1..4).unwrap();
        for (color, image) in (1..4).zip(&images) {
            assert!(lies_in_shared_memory(image.as_ptr().addr()));
            assert_eq!((image.len(), image[0], image[(64 << 20) - 1]), (64 << 20, color, color));
        }
        assert_eq!(mapped().count(), 3);
        drop(images);
        assert_eq!(mapped().count(), 0, "nothing is left with the last handle");
        let bytes = pool.stats().total().bytes_received();
        assert!(bytes < 1 << 20, "{bytes} bytes were received");
    });
}

#[test]
fn results_arrive_by_every_way_that_results_take() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let is_red = |image: Result<SharedSlice<u8>, RemoteError>| {
            let image = image.unwrap();
            image.len() == 5 && image[4] == 9 && lies_in_shared_memory(image.as_ptr().addr())
        };
        assert!(is_red(pool.submit(delayed!(render(5, 9))).join().unwrap()));
        assert!(is_red(block_on(pool.submit(delayed!(render(5, 9)))).unwrap()));
        assert!(pool.map((0..20).map(|_| delayed!(render(5, 9)))).unwrap().into_iter().all(is_red));
        assert!(pool.imap((0..20).map(|_| delayed!(render(5, 9)))).all(|image| is_red(image.unwrap())));
        assert!(pool.broadcast(delayed!(render(5, 9))).unwrap().into_iter().all(is_red));
        let (first, second) = parallel!(pool = &pool; render(5, 9), render(5, 9)).unwrap();
        assert!(is_red(first) && is_red(second));
        assert!(is_red(delayed!(render(5, 9)).call().unwrap()));
        assert!(is_red(Pool::in_process().submit(delayed!(render(5, 9))).join().unwrap()));
        assert!(is_red(Process::spawn(delayed!(render(5, 9))).unwrap().join().unwrap()));
        assert_eq!(pool.submit(delayed!(render_within(6))).join().unwrap().unwrap()[5], 7);
    });
}

#[test]
fn a_slice_that_comes_back_is_the_callers_own() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let own = SharedSlice::from_slice(&[1_u8, 2, 3, 4]).unwrap();
        for _ in 0..3 {
            let back = pool.submit(delayed!(same(own.clone()))).join().unwrap();
            assert!(std::ptr::eq(&*back, &*own));
            let part = pool.submit(delayed!(part_of(&own, 1, 3))).join().unwrap();
            assert!(std::ptr::eq(&*part, &own[1..3]));
        }
        let made = pool.submit(delayed!(render(3, 5))).join().unwrap().unwrap();
        let back = pool.submit(delayed!(same(made.clone()))).join().unwrap();
        assert!(std::ptr::eq(&*back, &*made));
        assert_eq!(mapped().count(), 2);
    });
}

#[test]
fn a_slice_that_the_caller_has_dropped_comes_back_from_a_worker_that_kept_it() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        for round in 0..20 {
            let own = SharedSlice::from_slice(&[round, 8, 9]).unwrap();
            assert_eq!(pool.submit(delayed!(keep(own))).join().unwrap(), 1);
            let back = pool.submit(delayed!(kept())).join().unwrap().unwrap();
            assert_eq!(*back, [round, 8, 9]);
            let again = pool.submit(delayed!(same(back.clone()))).join().unwrap();
            assert_eq!(*again, *back);
        }
        // Without processes, that worker is this process.
        *KEPT.lock().unwrap() = None;
    });
}

#[test]
fn values_text_and_handles_within_values_are_results() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let (all, words) = pool.submit(delayed!(words("of any language"))).join().unwrap().unwrap();
        assert_eq!(&*all, "of any language");
        let words: Vec<&str> = words.iter().map(|word| &**word).collect();
        assert_eq!(words, ["of", "any", "language"]);
        assert!(lies_in_shared_memory(words[1].as_ptr().addr()));
        for count in [99, 100, 101, 400] {
            let slices = pool.submit(delayed!(many(count))).join().unwrap().unwrap();
            assert!(slices.iter().map(|slice| slice[0]).eq((0..count).map(|n| n as u8)), "{count}");
        }
    });
}

#[test]
fn files_and_connections_are_results() {
    alone(|| {
        let folder = Folder::new();
        std::fs::write(folder.path("file"), "content").unwrap();
        let pool = Pool::new(1).unwrap();
        let file = pool.submit(delayed!(open(&folder.path("file")))).join().unwrap().unwrap();
        let mut content = String::new();
        file.into_inner().read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        let mut words = String::new();
        let stream = pool.submit(delayed!(connect())).join().unwrap().unwrap();
        (&*stream).read_to_string(&mut words).unwrap();
        assert_eq!(words, "sent", "and the worker keeps neither end");
    });
}

#[test]
fn segments_of_results_that_nobody_takes_are_dropped() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::builder().jobs(1).retries(1).build().unwrap();
        drop(pool.submit(delayed!(render(1000, 1))));
        let died = folder.path("died");
        let image = pool.submit(delayed!(render_and_die(&died))).join().unwrap().unwrap();
        assert_eq!(image[0], 2);
        drop(image);
        until("nothing is mapped", || mapped().count() == 0);
    });
}
