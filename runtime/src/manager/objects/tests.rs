use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;

/// A manager's objects with a clock that stands still until it is moved.
struct Table {
    objects: Objects,
    now: Instant,
    replies: BTreeMap<Ticket, Reply>,
}

/// Makes a request of a connection of a client.
fn ticket(client: u64, connection: u64) -> Ticket {
    Ticket { client, connection }
}

/// Appends the arguments to the value. A call without arguments fails.
fn append(call: &Call<'_>, _: &Attachments, value: &Value) -> Result<Value, Fault> {
    if call.args.0.is_empty() {
        return Err(Fault::codec("nothing to append".to_owned()));
    }
    Ok(Value::new(&[&*value.bytes, call.args.0].concat(), &Attachments::default()))
}

impl Table {
    fn new() -> Self {
        Self { objects: Objects::default(), now: Instant::now(), replies: BTreeMap::new() }
    }

    fn create(&mut self, create: Create<'_>) -> u64 {
        let from = ticket(u64::MAX, 0);
        self.request(from, &Request::Create(create));
        match self.replies.remove(&from) {
            Some(Reply::Number(number)) => number as u64,
            other => panic!("{other:?}"),
        }
    }

    fn request(&mut self, from: Ticket, request: &Request<'_>) {
        self.objects.handle(from, request, &Attachments::default(), self.now, &append);
        self.collect();
    }

    fn collect(&mut self) {
        for (to, reply) in self.objects.take_replies() {
            assert!(self.replies.insert(to, reply).is_none(), "{to:?} has two replies");
        }
    }

    /// Performs an action. Returns the reply as text, or an empty text if the request waits.
    fn act(&mut self, from: Ticket, object: u64, action: Action<'_>) -> String {
        self.request(from, &Request::Use { object, action });
        self.reply(from)
    }

    fn reply(&mut self, to: Ticket) -> String {
        self.replies.remove(&to).map(shown).unwrap_or_default()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.objects.expire(self.now);
        self.collect();
    }

    fn client_gone(&mut self, client: u64) {
        self.objects.client_gone(client);
        self.collect();
    }
}

fn shown(reply: Reply) -> String {
    let text = |value: Value| String::from_utf8_lossy(&value.bytes).into_owned();
    match reply {
        Reply::Done => "done".to_owned(),
        Reply::Flag(flag) => flag.to_string(),
        Reply::Number(number) => number.to_string(),
        Reply::Value(None) => "none".to_owned(),
        Reply::Value(Some(value)) => text(value),
        Reply::Exchanged(Ok(())) => "exchanged".to_owned(),
        Reply::Exchanged(Err(value)) => format!("is {}", value.map_or("none".to_owned(), text)),
        Reply::Values(values) => values.into_iter().map(text).collect::<Vec<_>>().join(" "),
        Reply::Pairs(pairs) => {
            let pairs: BTreeMap<_, _> =
                pairs.into_iter().map(|(key, value)| (text(key), text(value))).collect();
            format!("{pairs:?}")
        }
        Reply::Locked { value, timed_out } => format!("locked {} {timed_out}", text(value)),
        Reply::TimedOut => "timed out".to_owned(),
        Reply::Refused(words) => format!("refused: {words}"),
        Reply::Failed { function, .. } => format!("failed: {function}"),
    }
}

const A: Ticket = Ticket { client: 1, connection: 1 };
const A2: Ticket = Ticket { client: 1, connection: 2 };
const B: Ticket = Ticket { client: 2, connection: 1 };
const C: Ticket = Ticket { client: 3, connection: 1 };
const SECOND: Duration = Duration::from_secs(1);
const NOW: Option<Duration> = Some(Duration::ZERO);

const fn call(args: &[u8]) -> Call<'_> {
    Call { function: 7, args: Bytes(args), lent: 0 }
}

#[test]
fn a_dict_does_what_a_dict_does() {
    let mut t = Table::new();
    let dict = t.create(Create::Dict);
    let [k, v, w] = [Bytes(b"k"), Bytes(b"v"), Bytes(b"w")];
    assert_eq!(t.act(A, dict, Action::Get(k)), "none");
    assert_eq!(t.act(A, dict, Action::Insert(k, v)), "none");
    assert_eq!(t.act(B, dict, Action::Insert(k, w)), "v");
    assert_eq!(t.act(A, dict, Action::Get(k)), "w");
    assert_eq!(t.act(A, dict, Action::Contains(v)), "false");
    let exchange = |current, new| Action::CompareExchange { key: k, current, new };
    assert_eq!(t.act(A, dict, exchange(Some(v), None)), "is w");
    assert_eq!(t.act(A, dict, exchange(Some(w), None)), "exchanged");
    assert_eq!(t.act(A, dict, exchange(Some(w), Some(v))), "is none");
    assert_eq!(t.act(A, dict, exchange(None, Some(v))), "exchanged");
    let enter = |update| Action::Enter { key: k, update, or: w };
    assert_eq!(t.act(A, dict, enter(None)), "v");
    assert_eq!(t.act(A, dict, enter(Some(call(b"!")))), "v!");
    assert_eq!(t.act(A, dict, enter(Some(call(b"")))), "failed: 7");
    assert_eq!(t.act(A, dict, Action::Update(k, call(b"?"))), "v!?");
    assert_eq!(t.act(A, dict, Action::Update(w, call(b"?"))), "none");
    assert_eq!(t.act(A, dict, Action::Len), "1");
    assert_eq!(t.act(A, dict, Action::Snapshot), r#"{"k": "v!?"}"#);
    assert_eq!(t.act(A, dict, Action::Remove(k)), "v!?");
    assert_eq!(t.act(A, dict, enter(Some(call(b"!")))), "w");
    assert_eq!(t.act(A, dict, Action::Clear), "done");
    assert_eq!(t.act(A, dict, Action::Len), "0");
    assert!(t.act(A, dict, Action::Pop).starts_with("refused: a dict has no"));
    assert!(t.act(A, dict + 1, Action::Len).starts_with("refused: the manager has no object"));
}

#[test]
fn a_list_and_a_counter_do_what_they_are_for() {
    let mut t = Table::new();
    let list = t.create(Create::List);
    assert_eq!(t.act(A, list, Action::Extend(vec![Bytes(b"a"), Bytes(b"b")])), "done");
    assert_eq!(t.act(A, list, Action::SetAt(0, Bytes(b"c"))), "a");
    assert_eq!(t.act(A, list, Action::SetAt(2, Bytes(b"c"))), "none");
    assert_eq!(t.act(A, list, Action::UpdateAt(1, call(b"!"))), "b!");
    assert_eq!(t.act(A, list, Action::Snapshot), "c b!");
    assert_eq!(t.act(A, list, Action::Pop), "b!");
    assert_eq!(t.act(A, list, Action::At(0)), "c");
    assert_eq!(t.act(A, list, Action::At(u64::MAX)), "none");
    let counter = t.create(Create::Counter(5));
    assert_eq!(t.act(A, counter, Action::Add(-2)), "3");
    assert_eq!(t.act(A, counter, Action::Store(i64::MAX)), "3");
    assert!(t.act(A, counter, Action::Add(1)).starts_with("refused: the counter would overflow"));
    assert_eq!(t.act(A, counter, Action::Add(0)), i64::MAX.to_string());
}

#[test]
fn a_queue_makes_wait_those_who_are_too_early() {
    let mut t = Table::new();
    let queue = t.create(Create::Queue { capacity: 1 });
    assert_eq!(t.act(A, queue, Action::Take(NOW)), "timed out");
    assert_eq!(t.act(A, queue, Action::Take(None)), "");
    assert_eq!(t.act(B, queue, Action::Put(Bytes(b"1"), None)), "done");
    assert_eq!(t.reply(A), "1");
    assert_eq!(t.act(B, queue, Action::Put(Bytes(b"2"), None)), "done");
    assert_eq!(t.act(B, queue, Action::Put(Bytes(b"3"), NOW)), "timed out");
    assert_eq!(t.act(B, queue, Action::Put(Bytes(b"4"), Some(SECOND))), "");
    assert_eq!(t.act(C, queue, Action::Put(Bytes(b"5"), None)), "");
    t.pass(SECOND / 2);
    assert_eq!(t.reply(B), "");
    t.pass(SECOND);
    assert_eq!(t.reply(B), "timed out");
    assert_eq!(t.act(A, queue, Action::Take(None)), "2");
    assert_eq!(t.reply(C), "done");
    assert_eq!(t.act(A, queue, Action::Take(None)), "5");
}

#[test]
fn a_mutex_passes_from_one_to_the_next_and_from_the_dead() {
    let mut t = Table::new();
    let mutex = t.create(Create::Mutex(Bytes(b"0")));
    assert_eq!(t.act(A, mutex, Action::Acquire(None)), "locked 0 false");
    assert_eq!(t.act(A2, mutex, Action::Acquire(NOW)), "timed out");
    assert_eq!(t.act(A2, mutex, Action::Acquire(None)), "");
    assert_eq!(t.act(B, mutex, Action::Acquire(None)), "");
    assert_eq!(t.act(C, mutex, Action::Acquire(Some(SECOND))), "");
    assert!(t.act(ticket(3, 2), mutex, Action::Release(None)).starts_with("refused"));
    // The whole process has ended, so the one that waits is passed over.
    t.client_gone(1);
    assert_eq!(t.reply(A2), "");
    assert_eq!(t.reply(B), "locked 0 false");
    t.pass(SECOND);
    assert_eq!(t.reply(C), "timed out");
    assert_eq!(t.act(B, mutex, Action::Release(Some(Bytes(b"1")))), "done");
    assert_eq!(t.act(C, mutex, Action::Acquire(NOW)), "locked 1 false");
}

#[test]
fn permits_come_back_from_the_dead() {
    let mut t = Table::new();
    let semaphore = t.create(Create::Semaphore { permits: 2 });
    assert_eq!(t.act(A, semaphore, Action::Acquire(None)), "done");
    assert_eq!(t.act(A2, semaphore, Action::Acquire(None)), "done");
    assert!(t.act(B, semaphore, Action::Release(None)).starts_with("refused"));
    assert_eq!(t.act(B, semaphore, Action::Acquire(None)), "");
    assert_eq!(t.act(A2, semaphore, Action::Release(None)), "done");
    assert_eq!(t.reply(B), "done");
    assert_eq!(t.act(C, semaphore, Action::Acquire(NOW)), "timed out");
    t.client_gone(1);
    assert_eq!(t.act(C, semaphore, Action::Len), "1");
}

#[test]
fn an_event_lets_all_go_on() {
    let mut t = Table::new();
    let event = t.create(Create::Event);
    assert_eq!(t.act(A, event, Action::Wait(None)), "");
    assert_eq!(t.act(B, event, Action::Wait(Some(SECOND))), "");
    assert_eq!(t.act(C, event, Action::Set), "done");
    assert_eq!((t.reply(A), t.reply(B)), ("done".to_owned(), "done".to_owned()));
    t.pass(SECOND * 2);
    assert_eq!(t.act(B, event, Action::Wait(NOW)), "done");
    assert_eq!(t.act(B, event, Action::Clear), "done");
    assert_eq!(t.act(B, event, Action::Len), "false");
    assert_eq!(t.act(B, event, Action::Wait(NOW)), "timed out");
}

#[test]
fn a_barrier_is_broken_by_a_death_and_left_by_a_timeout() {
    let mut t = Table::new();
    let barrier = t.create(Create::Barrier { parties: 3 });
    assert_eq!(t.act(A, barrier, Action::Wait(None)), "");
    assert_eq!(t.act(B, barrier, Action::Wait(Some(SECOND))), "");
    t.pass(SECOND);
    assert_eq!(t.reply(B), "timed out");
    assert_eq!(t.act(B, barrier, Action::Wait(None)), "");
    assert_eq!(t.act(C, barrier, Action::Wait(None)), "true");
    assert_eq!((t.reply(A), t.reply(B)), ("false".to_owned(), "false".to_owned()));
    assert_eq!(t.act(A, barrier, Action::Wait(None)), "");
    assert_eq!(t.act(B, barrier, Action::Wait(None)), "");
    t.client_gone(1);
    assert!(t.reply(B).starts_with("refused: the barrier is broken"));
    assert_eq!(t.act(B, barrier, Action::Wait(None)), "");
}

#[test]
fn a_condition_variable_gives_the_mutex_back_and_takes_it_again() {
    let mut t = Table::new();
    let (mutex, condvar) = (t.create(Create::Mutex(Bytes(b"0"))), t.create(Create::Condvar));
    let wait = |changed, wait| Action::WaitWith { mutex, changed, wait };
    assert!(t.act(A, condvar, wait(None, None)).starts_with("refused: the mutex is not locked"));
    assert_eq!(t.act(A, mutex, Action::Acquire(None)), "locked 0 false");
    assert_eq!(t.act(A, condvar, wait(Some(Bytes(b"1")), None)), "");
    assert_eq!(t.act(B, mutex, Action::Acquire(None)), "locked 1 false");
    assert_eq!(t.act(B, condvar, wait(None, Some(SECOND))), "");
    assert_eq!(t.act(C, mutex, Action::Acquire(None)), "locked 1 false");
    assert_eq!(t.act(C, condvar, Action::Notify { all: false }), "done");
    // Both want the mutex, which is locked.
    t.pass(SECOND);
    assert_eq!((t.reply(A), t.reply(B)), (String::new(), String::new()));
    assert_eq!(t.act(C, mutex, Action::Release(Some(Bytes(b"2")))), "done");
    assert_eq!((t.reply(A), t.reply(B)), ("locked 2 false".to_owned(), String::new()));
    t.client_gone(1);
    assert_eq!(t.reply(B), "locked 2 true");
}

#[test]
fn objects_that_could_never_be_used_are_refused() {
    let mut t = Table::new();
    for create in [Create::Queue { capacity: 0 }, Create::Barrier { parties: 0 }] {
        t.request(A, &Request::Create(create));
        assert!(t.reply(A).starts_with("refused"));
    }
}

/// A step of a random run, with numbers that choose client, connection and object.
#[derive(Clone, Debug)]
enum Step {
    Act(u64, u64, u8),
    Pass,
    Gone(u64),
    Cut(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (1..4_u64, 1..4_u64, 0..20_u8).prop_map(|(client, connection, n)| Step::Act(client, connection, n)),
        1 => Just(Step::Pass),
        1 => (1..4_u64).prop_map(Step::Gone),
        1 => (1..4_u64, 1..4_u64).prop_map(|(client, connection)| Step::Cut(client, connection)),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Whatever clients ask, every request has one reply at most, and when all clients have ended nothing is waited for and
    /// everything is free.
    #[test]
    fn nothing_is_left_of_clients_that_have_ended(steps in steps()) {
        let mut t = Table::new();
        let mutex = t.create(Create::Mutex(Bytes(b"0")));
        let condvar = t.create(Create::Condvar);
        let semaphore = t.create(Create::Semaphore { permits: 2 });
        let queue = t.create(Create::Queue { capacity: 2 });
        let barrier = t.create(Create::Barrier { parties: 3 });
        let event = t.create(Create::Event);
        let mut waiting = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Act(client, connection, n) => {
                    let from = ticket(client, connection);
                    if waiting.contains(&from) {
                        continue;
                    }
                    let wait = (n % 2 == 0).then_some(SECOND);
                    let (object, action) = match n / 2 {
                        0 => (mutex, Action::Acquire(wait)),
                        1 => (mutex, Action::Release(wait.map(|_| Bytes(b"1")))),
                        2 => (condvar, Action::WaitWith { mutex, changed: None, wait }),
                        3 => (condvar, Action::Notify { all: wait.is_some() }),
                        4 => (semaphore, Action::Acquire(wait)),
                        5 => (semaphore, Action::Release(None)),
                        6 => (queue, Action::Put(Bytes(b"v"), wait)),
                        7 => (queue, Action::Take(wait)),
                        8 => (barrier, Action::Wait(wait)),
                        _ => (event, if n == 18 { Action::Wait(wait) } else { Action::Set }),
                    };
                    waiting.insert(from);
                    t.request(from, &Request::Use { object, action });
                }
                Step::Pass => t.pass(SECOND),
                Step::Gone(client) => {
                    t.client_gone(client);
                    waiting.retain(|ticket| ticket.client != client);
                }
                Step::Cut(client, connection) => {
                    t.objects.connection_gone(ticket(client, connection));
                    t.collect();
                    waiting.remove(&ticket(client, connection));
                }
            }
            for (to, _) in std::mem::take(&mut t.replies) {
                prop_assert!(waiting.remove(&to), "{to:?} has asked nothing");
            }
        }
        for client in 1..4 {
            t.client_gone(client);
            t.replies.clear();
        }
        prop_assert_eq!(t.objects.next_deadline(), None);
        let new = ticket(4, 1);
        prop_assert_eq!(t.act(new, semaphore, Action::Len), "2");
        prop_assert!(t.act(new, mutex, Action::Acquire(NOW)).starts_with("locked"));
        prop_assert_eq!(t.act(new, barrier, Action::Wait(NOW)), "timed out");
    }
}
