//! Checks the imports of the runtime: a module imports only lower floors, and host and worker never import each other. Also
//! holds its files to their size.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The part of the program that a module belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Both,
    Host,
    Worker,
}
use Side::{Both, Host, Worker};

/// Each module of the runtime: its floor and its side. It may import modules of lower floors, and of its own.
const FLOORS: &[(&str, u32, Side)] = &[
    // Names, words, system calls: they know nothing of the rest.
    ("id", 0, Both),
    ("panic", 0, Both),
    ("captured", 0, Both),
    ("error", 0, Both),
    ("escape", 0, Both),
    ("sync", 0, Both),
    ("sys", 0, Both),
    ("marker", 0, Both),
    ("caller", 0, Both),
    ("sample", 0, Both),
    ("seed", 0, Both),
    ("setting", 0, Both),
    ("terminal", 0, Both),
    // Values and shared words.
    ("segment", 1, Both),
    ("codec", 1, Both),
    ("frame", 1, Both),
    ("ring", 1, Both),
    ("registry", 1, Both),
    // The messages between host and worker, and tasks.
    ("protocol", 2, Both),
    ("transport", 2, Both),
    ("dispatch", 2, Both),
    ("executor", 2, Both),
    ("task", 2, Both),
    ("shared", 2, Both),
    ("locks", 2, Both),
    ("channel", 2, Both),
    ("handle", 2, Both),
    // The two ends.
    // What running code may ask.
    ("context", 3, Both),
    // What waits and runs, and where results go.
    ("batch", 3, Host),
    ("launch", 3, Host),
    // The one module that names both sides: a copy of the host becomes a template of workers.
    ("start", 4, Both),
    ("observe", 4, Host),
    ("supervisor", 4, Host),
    ("scheduler", 5, Host),
    ("driver", 6, Host),
    ("call", 7, Host),
    ("pool", 8, Host),
    ("process", 9, Host),
    ("parallel", 9, Host),
    // Objects of which hosts and workers have handles.
    ("manager", 9, Both),
    ("worker", 3, Worker),
    // What users and expansions see.
    ("arity", 10, Both),
    ("macros", 10, Both),
    ("__private", 10, Both),
    // What fuzz targets drive.
    ("__fuzzing", 10, Both),
    ("lib", 10, Both),
];

/// Of two modules of one floor these may import each other, in one direction only.
const WITHIN_A_FLOOR: &[(&str, &str)] = &[
    ("task", "dispatch"),
    // An `async` function runs as any other, on a runtime.
    ("executor", "dispatch"),
    ("worker", "context"),
    // The start method of a pool in a worker.
    ("launch", "context"),
    // The first floor above the bytes: a registered function decodes its own arguments.
    ("registry", "codec"),
    // Arguments that lie in shared memory.
    ("codec", "segment"),
    // The process of a manager.
    ("manager", "process"),
];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the runtime's sources are beside the tests") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module at the crate's root that a file belongs to.
fn room(file: &Path) -> String {
    let inside = file.strip_prefix(sources()).expect("a file of the runtime");
    let first = inside.components().next().expect("a file has a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Everything up to the test module of a file, without comments: tests may import what they like.
fn code(text: &str) -> String {
    let lines = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]") && !line.starts_with("#[cfg(all(test"));
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The modules at the crate's root that this code names, be it in a `use`, nested braces included, or in a path.
fn imported(code: &str) -> Vec<String> {
    named_after("crate::", code)
}

/// The first names of the paths that begin with this prefix.
fn named_after(prefix: &str, code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = code[at + prefix.len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(heads(group)),
            None => rooms.extend(name(rest)),
        }
    }
    rooms
}

/// The first name of each path of a group, up to the brace that closes it.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut heads) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.extend(name(group[start..at].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.extend(name(group[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads
}

fn name(path: &str) -> Option<String> {
    let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    // Items of the root itself begin with a capital letter: re-exports, which only the top floor and doc links name.
    name.chars().next().is_some_and(|c| c.is_lowercase() || c == '_').then_some(name)
}

fn floors() -> BTreeMap<&'static str, (u32, Side)> {
    FLOORS.iter().map(|&(room, floor, side)| (room, (floor, side))).collect()
}

/// Returns why this import breaks the rules, if it does.
fn fault(importer: &str, imported: &str) -> Option<String> {
    if importer == imported {
        return None;
    }
    let floors = floors();
    let Some(&(from, from_side)) = floors.get(importer) else {
        return Some(format!("`{importer}` has no floor: give it one in this test"));
    };
    // A macro or a function at the root.
    let &(to, to_side) = floors.get(imported)?;
    if from_side != Both && to_side != Both && from_side != to_side {
        return Some(format!(
            "`{importer}` is of the {from_side:?} and imports `{imported}` of the {to_side:?}"
        ));
    }
    if to > from {
        return Some(format!("`{importer}` on floor {from} imports `{imported}` on floor {to} above it"));
    }
    let allowed = to < from || to == 0 || to == 10 || WITHIN_A_FLOOR.contains(&(importer, imported));
    (!allowed).then(|| {
        format!("`{importer}` imports `{imported}` of its own floor {from}, which the test does not list")
    })
}

#[test]
fn no_import_crosses_a_floor_upwards_or_goes_from_host_to_worker_or_back() {
    let mut all = Vec::new();
    files(&sources(), &mut all);
    assert!(all.len() > 20, "only {} files found", all.len());
    let mut faults = Vec::new();
    for file in all {
        let text = fs::read_to_string(&file).expect("a readable file");
        let importer = room(&file);
        for imported in imported(&code(&text)) {
            let shown = file.strip_prefix(sources()).expect("a file of the runtime").display().to_string();
            faults.extend(fault(&importer, &imported).map(|words| format!("{shown}: {words}")));
        }
    }
    faults.sort();
    faults.dedup();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// For each file of a folder, the files of that folder which it imports. `mod.rs` declares and re-exports the others, and is left out.
fn neighbours(folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = Vec::new();
    files(folder, &mut all);
    all.retain(|path| {
        path.parent() == Some(folder) && !path.ends_with("mod.rs") && !path.ends_with("lib.rs")
    });
    let stem = |path: &Path| path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
    let names: BTreeSet<String> = all.iter().map(|path| stem(path)).collect();
    let inside =
        folder.strip_prefix(sources()).expect("a folder of the runtime").to_string_lossy().replace('/', "::");
    let absolute = if inside.is_empty() { "crate::".to_owned() } else { format!("crate::{inside}::") };
    let imports = |path: &PathBuf| {
        let code = code(&fs::read_to_string(path).expect("a readable file"));
        let mut found: BTreeSet<String> = named_after("super::", &code).into_iter().collect();
        found.extend(named_after(&absolute, &code));
        found.retain(|name| names.contains(name) && *name != stem(path));
        (stem(path), found)
    };
    all.iter().map(imports).collect()
}

/// A way from a file back to itself, if there is one.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk<'a>(
        graph: &'a BTreeMap<String, BTreeSet<String>>,
        at: &'a str,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> bool {
        if way.contains(&at) {
            way.push(at);
            return true;
        }
        way.push(at);
        for next in graph.get(at).into_iter().flatten() {
            if !done.contains(next.as_str()) && walk(graph, next, way, done) {
                return true;
            }
        }
        way.pop();
        done.insert(at);
        false
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| {
        let mut way = Vec::new();
        walk(graph, start, &mut way, &mut done).then(|| way.iter().map(|name| (*name).to_owned()).collect())
    })
}

#[test]
fn the_files_of_a_module_import_each_other_in_one_direction() {
    let mut all = Vec::new();
    files(&sources(), &mut all);
    let folders: BTreeSet<&Path> = all.iter().filter_map(|path| path.parent()).collect();
    assert!(folders.len() > 10, "only {} folders found", folders.len());
    for folder in folders.into_iter().filter(|folder| *folder != sources()) {
        let graph = neighbours(folder);
        assert_eq!(cycle(&graph), None, "in {}", folder.display());
    }
}

#[test]
fn a_cycle_of_imports_is_seen() {
    let graph = |edges: &[(&str, &[&str])]| {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        edges.iter().map(|(from, to)| ((*from).to_owned(), set(to))).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(cycle(&graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])), None);
    let way = cycle(&graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])])).unwrap();
    assert_eq!(way, ["a", "b", "c", "b"]);
}

#[test]
fn every_module_has_a_floor_and_every_floor_has_its_module() {
    let mut all = Vec::new();
    files(&sources(), &mut all);
    let mut rooms: Vec<String> = all.iter().map(|file| room(file)).collect();
    rooms.sort();
    rooms.dedup();
    let mut floors: Vec<String> = FLOORS.iter().map(|(room, ..)| (*room).to_owned()).collect();
    floors.sort();
    assert_eq!(rooms, floors);
}

#[test]
fn imports_are_found_in_all_their_forms() {
    let code = code(
        "use crate::id;\nuse crate::{\n    codec::{Input, Output},\n    error::Fault, // crate::pool\n};\n\
         let x = crate::worker::is_worker();\nuse super::Thing;\nmacro!($crate::pool);\n#[cfg(test)]\nuse crate::pool;",
    );
    assert_eq!(imported(&code), ["id", "codec", "error", "worker"]);
}

#[test]
fn a_fault_is_seen() {
    assert!(fault("codec", "pool").is_some_and(|words| words.contains("above it")));
    assert!(fault("worker", "launch").is_some_and(|words| words.contains("Host")));
    assert!(fault("supervisor", "worker").is_some_and(|words| words.contains("Worker")));
    assert!(fault("protocol", "transport").is_some());
    assert!(fault("new", "id").is_some_and(|words| words.contains("no floor")));
    assert!(fault("pool", "codec").is_none());
}

/// The number of lines that a file may have, unless most of them are documentation.
const MOST_LINES: usize = 500;

/// Returns whether a file of this text is too long. Functions are held to their length by `clippy::too_many_lines`.
fn is_too_long(text: &str) -> bool {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let (comments, code): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("//"));
    text.lines().count() > MOST_LINES && comments.len() <= code.len()
}

#[test]
fn no_file_is_too_long_unless_it_is_mostly_documentation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = Vec::new();
    for folder in ["runtime/src", "macros/src", "tests", "benches"] {
        files(&root.join(folder), &mut all);
    }
    assert!(all.len() > 200, "only {} files found", all.len());
    all.retain(|path| is_too_long(&fs::read_to_string(path).expect("a readable file")));
    assert!(all.is_empty(), "more than {MOST_LINES} lines: {all:?}");
}

#[test]
fn a_file_that_is_too_long_is_seen() {
    assert!(!is_too_long(&"code\n".repeat(500)));
    assert!(is_too_long(&"code\n".repeat(501)));
    assert!(is_too_long(&"code\n/// It says what.\n".repeat(251)));
    assert!(!is_too_long(&"code\n/// It says\n    // what.\n".repeat(200)));
}

/// Returns the texts between backquotes at the start of the rows of a table that has this heading.
fn first_column(document: &str, heading: &str) -> BTreeSet<String> {
    let table = document.split_once(heading).expect("the table is there").1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| Some(row.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect()
}

fn unsafe_page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/unsafe.md"))
        .expect("the page is there")
}

/// Each source file, by its path from the workspace's root, with its text.
fn texts() -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&sources(), &mut found);
    let text = |path: PathBuf| {
        let name = path.strip_prefix(sources()).expect("it lies there").display().to_string();
        (format!("runtime/src/{name}"), fs::read_to_string(&path).expect("a source file"))
    };
    found.into_iter().map(text).collect()
}

#[test]
fn every_unsafe_zone_is_on_the_page_and_every_one_on_the_page_is_there() {
    let zones: BTreeSet<String> = texts()
        .into_iter()
        .filter(|(_, text)| text.contains("expect(unsafe_code"))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(zones, first_column(&unsafe_page(), "| zone | why |"));
}

#[test]
fn every_labelled_pair_is_on_the_page_and_every_one_on_the_page_is_there() {
    let mut labels = BTreeMap::new();
    for (_, text) in texts() {
        for part in text.split("SYNC(").skip(1) {
            let label = part.split(')').next().expect("it is closed");
            *labels.entry(label.to_owned()).or_insert(0) += 1;
        }
    }
    assert!(labels.values().all(|times| *times >= 2), "a pair has two ends: {labels:?}");
    let labels: BTreeSet<String> = labels.into_keys().collect();
    assert_eq!(labels, first_column(&unsafe_page(), "| label | Release | Acquire | what it orders |"));
}
