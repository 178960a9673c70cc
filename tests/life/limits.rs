//! At a limit of processes nothing hangs: a pool continues with the workers that it has, names the limit if it has none, and
//! works again once the limit is lifted.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::program::{PATIENCE, PROBE, Running, unique};

/// A copy of the probe that every user may execute.
struct Copy(PathBuf);

impl Copy {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(unique());
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(PROBE, folder.join("probe")).unwrap();
        fs::set_permissions(folder.join("probe"), fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("probe")
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The scene as a user of its own, to whom the limit applies and who has no other process.
fn as_another_user(program: &Path, scene: &[&str]) -> Option<Command> {
    let is_possible =
        nix::unistd::geteuid().is_root() && Command::new("setpriv").arg("--version").output().is_ok();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let user = 100_000 + std::process::id() * 8 + NEXT.fetch_add(1, Ordering::Relaxed);
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
    command.arg(program).args(scene).env_remove("PROCESSION_START_METHOD").current_dir("/");
    is_possible.then_some(command)
}

fn check_user_limit(method: &str) {
    let copy = Copy::new();
    let Some(mut command) = as_another_user(&copy.path(), &["limited", method]) else {
        return println!(
            "not run: `limits::{method}`: only root can run a program as a user with no other process"
        );
    };
    let ended = Running::start(&mut command).end(PATIENCE);
    assert!(ended.status.success(), "{ended:?}");
    println!("{}", ended.stdout);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let [works, broadcast, pool, first, second, process, again] = lines[..] else { panic!("{ended:?}") };
    assert_eq!(works, "a pool with a live worker works");
    for line in [broadcast, pool, first, second, process] {
        assert!(line.contains("RLIMIT_NPROC (`ulimit -u`) is 1"), "{line}");
    }
    for line in [first, second, process] {
        assert!(line.contains("gave up after "), "{line}");
    }
    assert!(pool.contains("a pool's thread cannot be started"), "{pool}");
    assert_eq!(again, "a pool works again once the limit is lifted");
}

#[test]
fn a_pool_at_the_limit_of_its_user_works_on_or_names_the_limit_and_works_again_once_it_is_lifted() {
    check_user_limit("spawn");
}

#[test]
fn a_pool_whose_template_is_at_the_limit_works_on_or_names_it_and_works_again_once_it_is_lifted() {
    check_user_limit("forkserver");
}

/// A cgroup of the test's own with a limit of processes, which the program is in from its start.
struct Group(PathBuf);

impl Group {
    fn new(most: u32) -> std::io::Result<Self> {
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
        let root = roots.iter().find(|root| Path::new(root).join("cgroup.procs").exists());
        let folder = Path::new(root.unwrap_or(&roots[0])).join(unique());
        fs::create_dir(&folder)?;
        let group = Self(folder);
        fs::write(group.0.join("pids.max"), most.to_string())?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_pool_without_descriptors_names_the_limit_and_works_again_once_it_is_lifted() {
    let mut command = Command::new(PROBE);
    let ended = Running::start(command.arg("files").env_remove("PROCESSION_START_METHOD")).end(PATIENCE);
    assert!(ended.status.success(), "{ended:?}");
    println!("{}", ended.stdout);
    let [task, pool, works] = ended.stdout.lines().collect::<Vec<_>>()[..] else { panic!("{ended:?}") };
    for line in [task, pool] {
        assert!(line.contains("RLIMIT_NOFILE (`ulimit -n`) is 3"), "{line}");
    }
    assert_eq!(works, "it works again");
}

#[test]
fn a_pool_at_the_limit_of_its_cgroup_names_it_and_works_again_once_it_is_lifted() {
    let group = match Group::new(3) {
        Ok(group) => group,
        Err(error) => return println!("not run: `limits::cgroup`: no cgroup can be made here: {error}"),
    };
    let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", group.0.display());
    let mut command = Command::new("sh");
    let limit = group.0.join("pids.max");
    command.args(["-c", &script, PROBE, "group", limit.to_str().unwrap()]);
    command.env_remove("PROCESSION_START_METHOD");
    let ended = Running::start(&mut command).end(PATIENCE);
    assert!(ended.status.success(), "{ended:?}");
    println!("{}", ended.stdout);
    let [process, thread, works] = ended.stdout.lines().collect::<Vec<_>>()[..] else { panic!("{ended:?}") };
    for (line, what, most) in
        [(process, "no process can be started", 2), (thread, "no thread to serve on in a worker", 3)]
    {
        let limit = format!("pids.max of {} is {most}", group.0.display());
        assert!(line.contains(what) && line.contains(&limit), "{line}");
    }
    assert_eq!(works, "it works again");
}
