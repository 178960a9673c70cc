//! Objects that a manager owns, and that several processes change.

use std::{collections::HashMap, path::Path, thread, time::Duration};

use procession::{
    Counter, Dict, List, Manager, Namespace, Pool, Process, Queue, Receiver, RemoteError, Sender, Shared,
    channel, delayed,
    manager::{Barrier, Condvar, Event, Mutex, Semaphore},
    parallel, worker,
};
use serde::{Deserialize, Serialize};

use crate::{
    alone::alone,
    end::End,
    event::{until, until_exists},
    scratch::Folder,
};

#[worker]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[worker]
fn append(text: &str, more: &str) -> String {
    format!("{text}{more}")
}

#[worker]
fn end_by(value: u64, end: Option<u8>) -> u64 {
    match end {
        None => value,
        Some(0) => End::Panic.strike(),
        Some(_) => End::Kill.strike(),
    }
}

#[worker]
fn count_words(text: &str, words: &Dict<String, u64>) -> Result<(), RemoteError> {
    for word in text.split(' ') {
        words.entry(word.to_owned()).and_modify(delayed!(add(_, 1))).or_insert(1)?;
    }
    Ok(())
}

#[worker]
fn add_up(times: u32, words: Dict<String, u64>, counter: Counter) -> Result<(), RemoteError> {
    for _ in 0..times {
        words.update("sum", delayed!(add(_, 1)))?;
        counter.add(1)?;
    }
    Ok(())
}

#[test]
fn no_update_of_several_processes_is_lost() {
    alone(|| {
        let (manager, pool) = (Manager::start().unwrap(), Pool::new(2).unwrap());
        let words = manager.dict::<String, u64>().unwrap();
        let texts = ["the cat and the dog", "the end", "a cat"];
        let counted: Result<Vec<()>, RemoteError> =
            parallel!(pool = &pool; count_words(text, &words)? for text in texts);
        counted.unwrap();
        let wanted = [("the", 3), ("cat", 2), ("and", 1), ("dog", 1), ("end", 1), ("a", 1)];
        let wanted: HashMap<_, _> = wanted.into_iter().map(|(word, n)| (word.to_owned(), n)).collect();
        assert_eq!(words.snapshot().unwrap(), wanted);

        let counter = manager.counter(0).unwrap();
        words.insert("sum".to_owned(), 0).unwrap();
        let tasks = (0..4).map(|_| delayed!(add_up(250, words.clone(), counter.clone())));
        pool.map(tasks).unwrap().into_iter().for_each(|sum| sum.unwrap());
        assert_eq!((words.get("sum").unwrap(), counter.get().unwrap()), (Some(1000), 1000));
    });
}

#[derive(Serialize, Deserialize)]
struct Objects {
    dict: Dict<(u8, String), Vec<u8>>,
    list: List<String>,
    namespace: Namespace,
    queue: Queue<Option<u32>>,
    mutex: Mutex<Vec<u32>>,
    semaphore: Semaphore,
    event: Event,
    barrier: Barrier,
    condvar: Condvar,
}

/// Uses every object in a process of its own, together with the test.
#[worker]
fn use_all(objects: Objects) -> Result<u32, RemoteError> {
    let Objects { dict, list, namespace, queue, mutex, semaphore, event, barrier, condvar } = objects;
    event.wait()?;
    let key = (1, "one".to_owned());
    assert_eq!(dict.get(&key)?, Some(vec![1, 2, 3]));
    assert_eq!(dict.compare_exchange(&key, Some(&vec![1, 2, 3]), Some(vec![4; 100_000]))?, Ok(()));
    list.update(0, delayed!(append(_, ", world")))?;
    list.push("from a worker".to_owned())?;
    namespace.set("answer", 42_u32)?;
    assert_eq!(semaphore.available()?, 1);
    let permit = semaphore.acquire()?;
    barrier.wait()?;
    let mut sum = 0;
    while let Some(n) = queue.get()? {
        sum += n;
    }
    drop(permit);
    let mut guard = condvar.wait_while(mutex.lock()?, |numbers| numbers.len() < 2)?;
    guard.push(3);
    guard.unlock()?;
    condvar.notify_all()?;
    Ok(sum)
}

#[test]
fn every_object_is_used_by_two_processes_at_once() {
    alone(|| {
        let manager = Manager::start().unwrap();
        let objects = Objects { barrier: manager.barrier(2).unwrap(), ..objects_of(&manager) };
        let copy = Shared::new(&objects).unwrap();
        let Objects { dict, list, namespace, queue, mutex, semaphore, event, barrier, condvar } = &*copy;
        let mut process = Process::spawn(delayed!(use_all(objects))).unwrap();
        dict.insert((1, "one".to_owned()), vec![1, 2, 3]).unwrap();
        list.push("hello".to_owned()).unwrap();
        let permit = semaphore.acquire().unwrap();
        event.set().unwrap();
        barrier.wait().unwrap();
        assert_eq!(dict.get(&(1, "one".to_owned())).unwrap().unwrap(), [4; 100_000]);
        assert_eq!(list.snapshot().unwrap(), ["hello, world", "from a worker"]);
        assert_eq!(namespace.get::<u32>("answer").unwrap(), Some(42));
        for _ in 0..2 {
            assert!(semaphore.try_acquire().unwrap().is_none(), "a refusal gives nothing back");
        }
        // There is room for two, so most of these wait for the other process.
        for n in 0..100 {
            queue.put(Some(n)).unwrap();
        }
        queue.put(None).unwrap();
        mutex.lock().unwrap().push(2);
        condvar.notify_all().unwrap();
        let guard = condvar.wait_while(mutex.lock().unwrap(), |numbers| numbers.len() < 3).unwrap();
        assert_eq!(*guard, [1, 2, 3]);
        drop((guard, permit));
        assert_eq!(process.join().unwrap().unwrap(), 4950);
        assert_eq!(semaphore.available().unwrap(), 2);
    });
}

#[test]
fn handles_are_values_of_other_objects() {
    alone(|| {
        let manager = Manager::start().unwrap();
        let groups = manager.dict::<String, List<u32>>().unwrap();
        groups.entry("even".to_owned()).or_insert(manager.list().unwrap()).unwrap();
        groups.get("even").unwrap().unwrap().extend([2, 4]).unwrap();
        let all = groups.snapshot().unwrap();
        assert_eq!(all["even"].snapshot().unwrap(), [2, 4]);
        // A lock that is taken by one handle is known by another.
        let locks = manager.list::<Mutex<u8>>().unwrap();
        locks.push(manager.mutex(0).unwrap()).unwrap();
        let condvars = manager.namespace().unwrap();
        condvars.set("changed", manager.condvar().unwrap()).unwrap();
        let mutex = locks.get(0).unwrap().unwrap();
        let condvar = condvars.get::<Condvar>("changed").unwrap().unwrap();
        let (guard, timed_out) =
            condvar.wait_timeout(mutex.lock().unwrap(), Duration::from_millis(1)).unwrap();
        assert!(timed_out && *guard == 0);
    });
}

/// Returns the handles that it is given, once they have been used here.
#[worker]
fn pass_back(objects: Objects) -> Result<(Objects, Vec<Counter>), RemoteError> {
    objects.list.push("passed".to_owned())?;
    let counters = objects.namespace.get::<List<Counter>>("counters")?;
    let counters = counters.map(|counters| counters.snapshot()).transpose()?.unwrap_or_default();
    Ok((objects, counters))
}

/// Sends on what it receives.
#[worker]
fn forward(from: Receiver<Objects>, to: Sender<Objects>) -> Result<(), RemoteError> {
    for objects in from {
        objects.list.push("forwarded".to_owned())?;
        to.send(objects)?;
    }
    Ok(())
}

fn objects_of(manager: &Manager) -> Objects {
    Objects {
        dict: manager.dict().unwrap(),
        list: manager.list().unwrap(),
        namespace: manager.namespace().unwrap(),
        queue: manager.queue(2).unwrap(),
        mutex: manager.mutex(vec![1]).unwrap(),
        semaphore: manager.semaphore(2).unwrap(),
        event: manager.event().unwrap(),
        barrier: manager.barrier(1).unwrap(),
        condvar: manager.condvar().unwrap(),
    }
}

/// Uses each of these handles.
fn check_all(objects: &Objects, words: &[&str]) {
    let Objects { dict, list, namespace, queue, mutex, semaphore, event, barrier, condvar } = objects;
    dict.insert((1, "one".to_owned()), vec![1]).unwrap();
    assert_eq!(list.snapshot().unwrap(), words);
    assert!(namespace.get::<u8>("nothing").unwrap().is_none());
    queue.put(Some(1)).unwrap();
    assert_eq!(queue.get().unwrap(), Some(1));
    drop(semaphore.acquire().unwrap());
    event.set().unwrap();
    barrier.wait().unwrap();
    let guard = mutex.lock().unwrap();
    let (guard, timed_out) = condvar.wait_timeout(guard, Duration::from_millis(1)).unwrap();
    assert!(timed_out && *guard == [1]);
}

#[test]
fn a_task_returns_handles_of_every_kind() {
    alone(|| {
        let (manager, pool) = (Manager::start().unwrap(), Pool::new(1).unwrap());
        let objects = objects_of(&manager);
        let counters = manager.list().unwrap();
        (0..3).for_each(|n| counters.push(manager.counter(n).unwrap()).unwrap());
        objects.namespace.set("counters", counters).unwrap();
        let (objects, counters) = pool.submit(delayed!(pass_back(objects))).join().unwrap().unwrap();
        let counts: Vec<_> = counters.iter().map(|counter| counter.get().unwrap()).collect();
        assert_eq!(counts, [0, 1, 2]);
        check_all(&objects, &["passed"]);
        let (objects, _) = Process::spawn(delayed!(pass_back(objects))).unwrap().join().unwrap().unwrap();
        check_all(&objects, &["passed", "passed"]);
        // The handles do not keep the manager, which is dropped here.
        drop((pool, manager));
        assert!(objects.event.is_set().is_err());
    });
}

#[test]
fn handles_of_every_kind_are_messages_of_a_channel() {
    alone(|| {
        let manager = Manager::start().unwrap();
        let ((to_worker, from_here), (to_here, from_worker)) = (channel(4).unwrap(), channel(4).unwrap());
        let mut process = Process::spawn(delayed!(forward(from_here, to_here))).unwrap();
        to_worker.send(objects_of(&manager)).unwrap();
        let objects: Objects = from_worker.recv().unwrap();
        check_all(&objects, &["forwarded"]);
        to_worker.send(objects).unwrap();
        check_all(&from_worker.recv().unwrap(), &["forwarded", "forwarded"]);
        // A message that nobody receives.
        to_worker.send(objects_of(&manager)).unwrap();
        drop(to_worker);
        process.join().unwrap().unwrap();
        drop(from_worker);
    });
}

#[test]
fn values_of_any_size_and_shared_ones_are_kept_as_they_are() {
    alone(|| {
        let manager = Manager::start().unwrap();
        let values = manager.dict::<u32, Vec<u8>>().unwrap();
        for len in [0, 1, 300, 70_000, 300_000, 5 << 20] {
            let value: Vec<u8> = (0..len).map(|n| n as u8).collect();
            values.insert(len, value.clone()).unwrap();
            assert!(values.get(&len).unwrap().unwrap() == value);
        }
        let shared = manager.list::<Shared<Vec<u32>>>().unwrap();
        shared.push(Shared::new(&vec![7; 1000]).unwrap()).unwrap();
        assert_eq!(**shared.get(0).unwrap().unwrap(), [7; 1000]);
        assert_eq!(shared.pop().unwrap().unwrap().len(), 1000);
    });
}

#[worker]
fn extended(values: Shared<Vec<u32>>, more: u32) -> Shared<Vec<u32>> {
    let values: Vec<_> = values.iter().copied().chain([more]).collect();
    Shared::new(&values).expect("there is memory")
}

#[worker]
fn replaced(_old: Counter, new: Counter) -> Counter {
    new
}

#[test]
fn shared_values_and_handles_that_an_update_returns_are_kept() {
    alone(|| {
        for manager in [Manager::start().unwrap(), Manager::in_process()] {
            let shared = manager.dict::<u8, Shared<Vec<u32>>>().unwrap();
            shared.insert(1, Shared::new(&vec![7; 1000]).unwrap()).unwrap();
            shared.update(&1, delayed!(extended(_, 8))).unwrap();
            assert_eq!(shared.get(&1).unwrap().unwrap()[999..], [7, 8]);
            let counters = manager.list::<Counter>().unwrap();
            counters.push(manager.counter(1).unwrap()).unwrap();
            let new = manager.counter(2).unwrap();
            counters.update(0, delayed!(replaced(_, new.clone()))).unwrap();
            assert_eq!(counters.get(0).unwrap().unwrap().get().unwrap(), 2);
        }
    });
}

#[test]
fn a_panic_in_an_update_is_the_error_of_the_one_who_made_it() {
    alone(|| {
        let manager = Manager::start().unwrap();
        let dict = manager.dict::<String, u64>().unwrap();
        dict.insert("a".to_owned(), 7).unwrap();
        let error = dict.update("a", delayed!(end_by(_, Some(0)))).unwrap_err();
        let error = error.into_task_error().unwrap();
        assert!(error.function().ends_with("end_by"));
        assert!(error.panic().unwrap().message().contains(End::Panic.words()), "{error}");
        assert_eq!(dict.get("a").unwrap(), Some(7));
        let error = dict.update("b", delayed!(add(_, 1))).unwrap_err();
        assert!(error.to_string().contains("no such key"), "{error}");
        let list = manager.list::<u64>().unwrap();
        let error = list.set(3, 1).unwrap_err();
        assert!(error.to_string().contains("no value at index 3"), "{error}");
    });
}

#[test]
fn operations_of_a_manager_that_has_died_say_why() {
    alone(|| {
        let manager = Manager::start().unwrap();
        let (dict, queue) = (manager.dict::<u8, u64>().unwrap(), manager.queue::<u8>(1).unwrap());
        dict.insert(1, 1).unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| queue.get());
            let error = dict.update(&1, delayed!(end_by(_, Some(1)))).unwrap_err().to_string();
            assert!(error.contains("the manager has ended") && error.contains("SIGKILL"), "{error}");
            let error = waits.join().unwrap().unwrap_err().to_string();
            assert!(error.contains("the manager has ended"), "{error}");
        });
        let error = dict.get(&1).unwrap_err().to_string();
        assert!(error.contains("the manager has ended"), "{error}");
        assert!(manager.list::<u8>().is_err());
    });
}

#[test]
fn those_who_wait_for_a_manager_that_is_dropped_go_on_with_an_error() {
    alone(|| {
        let manager = Manager::start().unwrap();
        let (queue, event) = (manager.queue::<u8>(1).unwrap(), manager.event().unwrap());
        thread::scope(|scope| {
            let waits = scope.spawn(|| (event.set(), queue.get()));
            event.wait().unwrap();
            drop(manager);
            let (set, got) = waits.join().unwrap();
            set.unwrap();
            let error = got.unwrap_err().to_string();
            assert!(error.contains("the manager has ended"), "{error}");
        });
        assert!(event.is_set().is_err());
    });
}

#[worker]
fn hold(
    mutex: &Mutex<u32>,
    semaphore: &Semaphore,
    barrier: &Barrier,
    ready: &Path,
) -> Result<(), RemoteError> {
    let mut guard = mutex.lock()?;
    *guard += 1;
    let _permit = semaphore.acquire()?;
    std::fs::write(ready, "")?;
    barrier.wait()?;
    Ok(())
}

/// Returns whether all threads of a process sleep.
fn is_asleep(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(Result::ok);
    let mut stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    stats.all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S")))
}

#[test]
fn what_a_process_held_is_free_when_it_was_killed() {
    alone(|| {
        let (manager, folder) = (Manager::start().unwrap(), Folder::new());
        let mutex = manager.mutex(0).unwrap();
        let (semaphore, barrier) = (manager.semaphore(1).unwrap(), manager.barrier(3).unwrap());
        let ready = folder.path("ready");
        let process = Process::spawn(delayed!(hold(&mutex, &semaphore, &barrier, &ready))).unwrap();
        until_exists(&ready);
        // It has asked to wait at the barrier when it sleeps. The manager reads that before a second request of this process.
        until("it waits at the barrier", || is_asleep(process.id()));
        (0..2).for_each(|_| assert!(mutex.try_lock().unwrap().is_none()));
        thread::scope(|scope| {
            let waits = scope.spawn(|| barrier.wait());
            until("the lock cannot be had", || {
                mutex.lock_timeout(Duration::from_millis(5)).unwrap().is_none()
            });
            process.kill().unwrap();
            let error = waits.join().unwrap();
            // The barrier is broken if this process came before the other one was killed.
            assert!(error.is_err_and(|error| error.to_string().contains("the barrier is broken")));
            assert_eq!(*mutex.lock().unwrap(), 0, "its change is not kept");
            drop(semaphore.acquire().unwrap());
        });
    });
}

#[test]
fn threads_of_a_process_do_not_wait_for_each_other() {
    alone(|| {
        let manager = Manager::start().unwrap();
        let (first, second) = (manager.queue::<u32>(1).unwrap(), manager.queue::<u32>(1).unwrap());
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..8)
                .map(|n| {
                    let (first, second) = (&first, &second);
                    scope.spawn(move || {
                        let got = first.get().unwrap();
                        second.put(got * n).unwrap();
                    })
                })
                .collect();
            for n in 0..8 {
                first.put(n).unwrap();
                second.get().unwrap();
            }
            waiting.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert_eq!((first.len().unwrap(), second.len().unwrap()), (0, 0));
    });
}

#[worker]
fn use_in_update(value: u64, counter: &Counter) -> u64 {
    value + counter.add(1).map_or(100, |_| 0)
}

#[test]
fn an_update_that_uses_a_manager_gets_an_error_and_does_not_wait_for_itself() {
    alone(|| {
        let manager = Manager::start().unwrap();
        let (dict, counter) = (manager.dict::<u8, u64>().unwrap(), manager.counter(0).unwrap());
        dict.insert(0, 1).unwrap();
        assert_eq!(dict.update(&0, delayed!(use_in_update(_, &counter))).unwrap(), 101);
        assert_eq!(counter.get().unwrap(), 0);
    });
}

#[test]
fn a_manager_within_a_process_serves_its_threads_and_no_other_process() {
    alone(|| {
        let manager = Manager::in_process();
        let counter = manager.counter(0).unwrap();
        let dict = manager.dict::<String, u64>().unwrap();
        dict.insert("sum".to_owned(), 0).unwrap();
        let here = Pool::in_process();
        here.map((0..3).map(|_| delayed!(add_up(10, dict.clone(), counter.clone())))).unwrap();
        assert_eq!(counter.get().unwrap(), 30);
        let pool = Pool::new(1).unwrap();
        let error = pool.submit(delayed!(add_up(1, dict, counter))).join().unwrap_err().to_string();
        assert!(error.contains("its manager has ended, or is within another process"), "{error}");
    });
}

/// Makes an object where it runs.
#[worker]
fn count_from(manager: &Manager, start: i64) -> Result<Counter, RemoteError> {
    Ok(manager.counter(start)?)
}

#[test]
fn a_manager_is_an_argument_and_ends_with_the_original() {
    alone(|| {
        let (manager, pool) = (Manager::start().unwrap(), Pool::new(1).unwrap());
        for start in [5, 7] {
            let counter = pool.submit(delayed!(count_from(&manager, start))).join().unwrap().unwrap();
            assert_eq!(counter.add(1).unwrap(), start + 1);
        }
    });
}
