//! The behaviour of the macros' expansions, checked through the encoding.

#![forbid(unsafe_code)]

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use procession::{RemoteError, Task, delayed, parallel, worker};

#[worker]
fn collatz(n: u64) -> u32 {
    let (mut n, mut steps) = (n, 0);
    while n != 1 {
        n = if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
        steps += 1;
    }
    steps
}

#[worker]
fn pair(a: u32, b: u32) -> (u32, u32) {
    (a, b)
}

#[worker]
fn len(s: &str) -> usize {
    s.len()
}

#[worker]
fn nothing() {}

#[worker]
fn even(n: u32) -> Result<u32, RemoteError> {
    if n.is_multiple_of(2) { Ok(n / 2) } else { Err(RemoteError::msg(format!("{n} is odd"))) }
}

#[test]
fn a_worker_is_a_plain_function_too() {
    assert_eq!(collatz(27), 111);
    assert_eq!([1, 2, 3].map(collatz), [0, 1, 7]);
}

#[test]
fn results_come_in_the_order_of_the_input() {
    let steps: Vec<u32> = parallel!(collatz(n) for n in 1..50).unwrap();
    assert_eq!(steps, (1..50).map(collatz).collect::<Vec<_>>());
}

#[test]
fn loops_nest_and_filters_filter() {
    let (xs, ys) = (vec![1, 2, 3], [10, 20, 30]);
    let pairs = parallel!(pair(*x, *y) for x in &xs if *x != 2 for y in &ys if *y > 10).unwrap();
    assert_eq!(pairs, [(1, 20), (1, 30), (3, 20), (3, 30)]);
    let triangle = parallel!(pair(a, b) for a in 0..3 for b in 0..a).unwrap();
    assert_eq!(triangle, [(1, 0), (2, 0), (2, 1)]);
    let options = [Some(1), None, Some(3)];
    let some = parallel!(pair(*n, 0) for o in &options if let Some(n) = o && *n > 1).unwrap();
    assert_eq!(some, [(3, 0)]);
}

#[test]
fn patterns_take_the_items_apart_and_owned_items_are_lent() {
    let map = BTreeMap::from([(1, 2), (3, 4)]);
    assert_eq!(parallel!(pair(*a, *b) for (a, b) in &map).unwrap(), [(1, 2), (3, 4)]);
    let strings = vec![String::from("a"), String::from("bcd")];
    assert_eq!(parallel!(len(&s) for s in strings).unwrap(), [1, 3]);
}

#[test]
fn a_question_mark_gives_the_first_err_and_reads_no_further() {
    let mut read = 0;
    let input = [2, 4, 5, 7, 8].into_iter().inspect(|_| read += 1);
    // Of two workers, the one with the later number may answer first.
    let result: Result<Vec<u32>, RemoteError> = parallel!(jobs = 1; even(n)? for n in input);
    assert_eq!(result.unwrap_err().to_string(), "5 is odd");
    assert!(read >= 3, "{read}");
    assert_eq!(parallel!(even(n)? for n in [2, 4]).unwrap(), [1, 2]);
    let apart: Vec<Result<u32, RemoteError>> = parallel!(even(n) for n in [1, 2]).unwrap();
    assert!(apart[0].is_err() && apart[1].is_ok());
}

#[test]
fn different_calls_give_a_tuple_and_one_call_its_value() {
    let (a, b, c) = parallel!(collatz(27), len("abc"), nothing()).unwrap();
    assert_eq!((a, b, c), (111, 3, ()));
    let one: u32 = parallel!(collatz(27)).unwrap();
    assert_eq!(one, 111);
    let (a, b) = parallel!(jobs = 2; collatz(1), collatz(2),).unwrap();
    assert_eq!((a, b), (0, 1));
}

#[test]
fn settings_are_evaluated_once_and_first() {
    let order = std::cell::RefCell::new(Vec::new());
    let note = |what: &'static str, n: usize| {
        order.borrow_mut().push(what);
        n
    };
    let results =
        parallel!(jobs = note("jobs", 2), batch = note("batch", 4); collatz(n as u64) for n in 1..note("input", 4)).unwrap();
    assert_eq!(results, [0, 1, 7]);
    assert_eq!(*order.borrow(), ["jobs", "batch", "input"]);
}

#[test]
fn names_of_the_expansion_hide_none_of_the_users() -> procession::Result<()> {
    let (sink, settings, group, args, member0, input) = (1, 2, 3, 4, 5, 6);
    let sums = parallel!(pair(sink + settings, args + group) for _ in 0..1)?;
    assert_eq!(sums, [(3, 7)]);
    assert_eq!(parallel!(pair(member0, input), pair(group, settings))?, ((5, 6), (3, 2)));
    Ok(())
}

#[worker]
fn resize(path: &Path, #[default(0.5)] scale: f64, #[default("png")] format: &str) -> String {
    format!("{} {scale} {format}", path.display())
}

#[worker]
fn middle(a: u8, #[default(2)] b: u8, c: u8) -> (u8, u8, u8) {
    (a, b, c)
}

#[worker]
fn all_defaults(#[default(Vec::new())] v: Vec<u8>, #[default(evaluated())] n: u32) -> (Vec<u8>, u32) {
    (v, n)
}

fn evaluated() -> u32 {
    EVALUATED.with(|count| {
        count.set(count.get() + 1);
        count.get()
    })
}

thread_local! {
    static EVALUATED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

#[test]
fn defaults_are_left_out_or_given_by_place_or_by_name() {
    let path = PathBuf::from("a.jpg");
    let run = |task: Task<String>| task.call().unwrap();
    assert_eq!(run(delayed!(resize(&path))), "a.jpg 0.5 png");
    assert_eq!(run(delayed!(resize(&path, 0.25))), "a.jpg 0.25 png");
    assert_eq!(run(delayed!(resize(&path, 0.25, "gif"))), "a.jpg 0.25 gif");
    assert_eq!(run(delayed!(resize(&path, scale = 0.25))), "a.jpg 0.25 png");
    assert_eq!(run(delayed!(resize(&path, format = &String::from("gif"), scale = 1.0))), "a.jpg 1 gif");
    assert_eq!(run(delayed!(resize(&path, 2.0, format = "gif"))), "a.jpg 2 gif");
    assert_eq!(resize(&path, 3.0, "bmp"), "a.jpg 3 bmp");
    let scales = [0.1, 0.2];
    let resized = parallel!(resize(&path, scale = s) for s in scales).unwrap();
    assert_eq!(resized, ["a.jpg 0.1 png", "a.jpg 0.2 png"]);
}

#[test]
fn a_default_before_a_required_parameter_is_given_by_name_or_with_all_others() {
    assert_eq!(delayed!(middle(1, 3)).call().unwrap(), (1, 2, 3));
    assert_eq!(delayed!(middle(1, 7, 3)).call().unwrap(), (1, 7, 3));
    assert_eq!(delayed!(middle(1, 3, b = 9)).call().unwrap(), (1, 9, 3));
}

#[test]
fn a_default_is_evaluated_only_when_it_is_needed() {
    assert_eq!(delayed!(all_defaults(vec![1], 5)).call().unwrap(), (vec![1], 5));
    assert_eq!(delayed!(all_defaults(n = 6)).call().unwrap(), (vec![], 6));
    assert_eq!(delayed!(all_defaults()).call().unwrap(), (vec![], 1));
    assert_eq!(delayed!(all_defaults(v = vec![3])).call().unwrap(), (vec![3], 2));
}

#[worker(instances(<u32>, <String>))]
fn largest<T: Ord + Clone + serde::Serialize + serde::de::DeserializeOwned + 'static>(
    v: Vec<T>,
) -> Option<T> {
    v.into_iter().max()
}

#[worker(instances(<u8, 2>, <String, 3>))]
#[expect(clippy::multiple_bound_locations, reason = "both places are what is tested")]
fn first_of<T: Clone + serde::Serialize + serde::de::DeserializeOwned + 'static, const N: usize>(
    items: &[T],
    #[default(N)] index: usize,
) -> (T, usize)
where
    T: std::fmt::Debug,
{
    (items[0].clone(), index)
}

#[test]
fn an_instance_is_chosen_by_the_arguments() {
    assert_eq!(delayed!(largest(vec![1u32, 3, 2])).call().unwrap(), Some(3));
    assert_eq!(delayed!(largest(vec![String::from("a")])).call().unwrap(), Some("a".into()));
    assert_eq!(delayed!(largest::<u32>(Vec::new())).call().unwrap(), None);
    assert_eq!(largest(vec![1.0f64.to_bits()]), Some(1.0f64.to_bits()));
    assert_eq!(delayed!(largest(vec![1u32])).function(), "macros::largest::<u32>");
}

#[test]
fn an_instance_is_named_or_found_in_a_comprehension() {
    let lists = [vec![1u32, 3], Vec::new()];
    assert_eq!(parallel!(largest::<u32>(list.clone()) for list in &lists).unwrap(), [Some(3), None]);
    assert_eq!(parallel!(largest(list) for list in lists).unwrap(), [Some(3), None]);
    let (word, number) = parallel!(largest(vec![String::from("a")]), largest::<u32>(Vec::new())).unwrap();
    assert_eq!((word.as_deref(), number), (Some("a"), None));
}

#[worker(instances(<u8>, <String>))]
fn cut<T: Clone>(
    items: &[T],
    #[default(0)] from: usize,
    #[default(3)] to: usize,
) -> Result<Vec<T>, RemoteError> {
    items.get(from..to).map(<[T]>::to_vec).ok_or_else(|| RemoteError::msg(format!("{from} to {to}")))
}

#[test]
fn names_instances_borrowing_and_question_marks_go_together() {
    let (bytes, words) = (vec![1u8, 2, 3], ["a", "b"].map(String::from));
    let tails: Result<Vec<Vec<u8>>, RemoteError> = parallel!(cut(&bytes, from = n)? for n in 1..=3);
    assert_eq!(tails.unwrap(), [vec![2, 3], vec![3], vec![]]);
    let heads: Result<Vec<Vec<String>>, RemoteError> =
        parallel!(cut::<String>(&words, to = *n)? for n in &[1, 2, 3]);
    assert_eq!(heads.unwrap_err().to_string(), "0 to 3");
    let all: Vec<Result<Vec<u8>, RemoteError>> =
        parallel!(on_error = collect; cut(part, to = 1, from = 0)? for part in [&bytes[..2], &[]]).unwrap();
    assert_eq!(all[0].as_ref().unwrap(), &[1]);
    assert!(all[1].is_err());
    assert_eq!(cut(&words, 1, 2).unwrap(), ["b"]);
}

#[test]
fn instances_have_constants_and_defaults() {
    assert_eq!(delayed!(first_of::<u8, 2>(&[7, 8])).call().unwrap(), (7, 2));
    assert_eq!(delayed!(first_of::<u8, 2>(&[7, 8], 5)).call().unwrap(), (7, 5));
    assert_eq!(delayed!(first_of::<String, 3>(&["x".into()], index = 6)).call().unwrap(), ("x".into(), 6));
}

#[worker]
#[expect(clippy::ptr_arg, reason = "it is what is tested")]
fn path_back(p: &Path, q: PathBuf, r: &PathBuf) -> Vec<Vec<u8>> {
    [p, &q, r].map(|p| p.as_os_str().as_bytes().to_vec()).to_vec()
}

#[test]
fn paths_travel_with_any_bytes() {
    let odd = PathBuf::from(OsStr::from_bytes(b"/tmp/\xff\xfe"));
    let back = delayed!(path_back(&odd, odd.clone(), &odd)).call().unwrap();
    assert!(back.iter().all(|p| p == b"/tmp/\xff\xfe"));
}

#[worker]
#[expect(clippy::ptr_arg, reason = "it is what is tested")]
fn bytes_back(a: &[u8], b: Vec<u8>, c: &Vec<u8>) -> Vec<u8> {
    [a, &b, c].concat()
}

#[test]
fn bytes_travel_whichever_way_they_are_taken() {
    let back = delayed!(bytes_back(&[1, 2], vec![3; 300], &vec![4])).call().unwrap();
    assert_eq!(back.len(), 303);
    assert_eq!(delayed!(bytes_back(b"x", Vec::new(), &Vec::new())).call().unwrap(), b"x");
}

#[worker]
#[expect(clippy::too_many_arguments, reason = "one of each kind")]
fn borrowed<'a>(
    s: &'a str,
    maybe: Option<&str>,
    cow: Cow<'a, str>,
    words: &[&str],
    list: &[u64],
    map: &BTreeMap<String, u32>,
    (a, b): (u32, u32),
    mut n: u32,
    _: u8,
) -> String {
    n += 1;
    format!("{s} {maybe:?} {cow} {words:?} {list:?} {map:?} {a} {b} {n}")
}

#[test]
fn borrowed_arguments_and_patterns_travel() {
    let map = BTreeMap::from([(String::from("k"), 1)]);
    let (s, list) = (String::from("s"), vec![1, 2]);
    let task = delayed!(borrowed(&s, Some("m"), Cow::Borrowed("c"), &["w", "v"], &list, &map, (1, 2), 3, 0));
    drop((s, list));
    assert_eq!(task.call().unwrap(), r#"s Some("m") c ["w", "v"] [1, 2] {"k": 1} 1 2 4"#);
}

mod jobs {
    use procession::worker;

    #[worker]
    pub(crate) fn r#type(n: u8) -> u8 {
        n
    }

    pub(crate) fn inner_one() -> procession::Task<u8> {
        #[worker]
        fn inner(n: u8) -> u8 {
            n + 1
        }
        procession::delayed!(inner(1))
    }

    pub(crate) fn inner_two() -> procession::Task<u8> {
        #[worker]
        fn inner(n: u8) -> u8 {
            n + 2
        }
        procession::delayed!(inner(1))
    }
}

#[test]
fn functions_are_found_in_modules_and_in_functions() {
    use jobs::r#type;
    assert_eq!(delayed!(jobs::r#type(1)).call().unwrap(), 1);
    assert_eq!(delayed!(r#type(2)).call().unwrap(), 2);
    assert_eq!(delayed!(r#type(2)).function(), "macros::jobs::type");
    assert_eq!(jobs::inner_one().call().unwrap(), 2);
    assert_eq!(jobs::inner_two().call().unwrap(), 3);
}

macro_rules! twice {
    ($f:path, $e:expr) => {
        (delayed!($f($e)), delayed!($f($e + 1)))
    };
}

macro_rules! declare {
    ($name:ident, $ty:ty, |$arg:ident| $body:expr) => {
        #[worker]
        fn $name($arg: $ty) -> $ty {
            $body
        }
    };
}

declare!(negate, i64, |n| -n);

#[test]
fn macros_of_the_users_own_may_declare_and_call() {
    let (a, b) = twice!(negate, 2);
    assert_eq!((a.call().unwrap(), b.call().unwrap()), (-2, -3));
    macro_rules! all {
        ($f:ident, $input:expr) => {
            parallel!($f(n) for n in $input)
        };
    }
    assert_eq!(all!(negate, [1, 2]).unwrap(), [-1, -2]);
}

#[worker]
fn n(n: u32) -> u32 {
    n
}

#[worker]
fn output(input: u32, output: u32, args: u32, #[default(4)] slot: u32, #[default(5)] slots: u32) -> [u32; 5] {
    [input, output, args, slot, slots]
}

#[test]
fn names_of_the_expansion_hide_none_of_the_functions() {
    assert_eq!(delayed!(n(7)).call().unwrap(), 7);
    assert_eq!(delayed!(output(1, 2, 3)).call().unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(delayed!(output(1, 2, 3, slots = 6)).call().unwrap(), [1, 2, 3, 4, 6]);
}

mod shapes {
    /// A type of the same name as the function's parameter, which stands for other types.
    pub(crate) struct T;

    #[procession::worker(instances(<u8>, <String>))]
    #[expect(clippy::multiple_bound_locations, reason = "both places are what is tested")]
    pub(crate) fn named<'a, T: PartialEq + 'a>(
        all: &'a [(T, &'a str)],
        one: &T,
        rest: Option<&str>,
        #[default(0)] from: usize,
    ) -> String
    where
        T: Clone,
    {
        let _ = super::shapes::T;
        let found = all[from..].iter().filter(|(t, _)| t == one).map(|(_, name)| *name);
        found.chain(rest).collect()
    }
}

#[test]
fn instances_may_lend_what_their_parameters_stand_for() {
    let words = ["a", "b", "a"].map(String::from);
    let all: Vec<(String, &str)> = words.iter().cloned().zip(["x", "y", "z"]).collect();
    let found = parallel!(shapes::named(&all, word, Some("!")) for word in &words).unwrap();
    assert_eq!(found, ["xz!", "y!", "xz!"]);
    assert_eq!(delayed!(shapes::named(&all, &words[0], None, from = 1)).call().unwrap(), "z");
}

#[test]
fn a_task_knows_its_function_by_its_path() {
    assert_eq!(delayed!(collatz(1)).function(), "macros::collatz");
    assert!(format!("{:?}", delayed!(pair(1, 2))).contains("args_len_bytes: 2"));
}

#[test]
fn an_outer_return_and_an_outer_question_mark_leave_the_loops() {
    fn outer(input: Result<Vec<u32>, std::num::ParseIntError>) -> Result<usize, procession::RemoteError> {
        let pairs = parallel!(pair(n, n) for n in input?).map_err(procession::RemoteError::from)?;
        Ok(pairs.len())
    }
    assert_eq!(outer(Ok(vec![1, 2])).unwrap(), 2);
    assert_eq!(outer("x".parse().map(|n| vec![n])).unwrap_err().to_string(), "invalid digit found in string");
}
