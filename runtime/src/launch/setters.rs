//! Declares the setters of the [`SpawnOptions`](super::SpawnOptions) of a builder.
//!
//! The builders of pools and of processes have the same setters, which are declared and documented here once.

/// Returns the lines of an example that run a task with these settings, in a pool or in a process, and name its `result`.
macro_rules! run {
    (Pool, $settings:literal, $task:literal) => {
        concat!(
            "let pool = Pool::builder().jobs(1).",
            $settings,
            ".build()?;\n",
            "let result = pool.submit(delayed!(",
            $task,
            ")).join();"
        )
    };
    (Process, $settings:literal, $task:literal) => {
        concat!(
            "let mut process = Process::builder().",
            $settings,
            ".spawn(delayed!(",
            $task,
            "))?;\n",
            "let result = process.join();"
        )
    };
}

/// Declares the setters of a builder whose field `spawn` is its [`SpawnOptions`](super::SpawnOptions). Its docs call what it builds
/// `$the`, or `$each`. Its examples build a `$type`.
macro_rules! spawn_setters {
    ($builder:ident, $type:ident, $the:literal, $each:literal) => {
        /// The settings of the processes.
        impl $builder {
            /// Sets the name, which appears in errors and logs, and in the lists of `ps`.
            ///
            /// `ps` lists each worker of a pool by the pool's name and the worker's index, as in `scoring-2`, and a
            /// [`Process`](crate::Process) by its name. The kernel cuts that to 15 bytes. Without a name, `ps` lists the program's,
            /// and errors call a `Process` by its function and a number. A name has at most 255 bytes. Control characters in it are
            /// escaped where it is shown.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use procession::{", stringify!($type), ", delayed, worker};")]
            ///
            /// #[worker]
            /// fn title() -> Option<String> {
            ///     std::fs::read_to_string("/proc/self/comm").ok()
            /// }
            ///
            #[doc = $crate::launch::run!($type, "name(\"scoring\")", "title()")]
            /// assert!(result?.is_some_and(|title| title.starts_with("scoring")));
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn name(mut self, name: impl Into<String>) -> Self {
                self.spawn.name = Some(name.into().into());
                self
            }

            #[doc = concat!("Sets an environment variable for ", $the, ", in addition to this process's own variables.")]
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use procession::{", stringify!($type), ", delayed, worker};")]
            ///
            /// #[worker]
            /// fn variable(name: &str) -> Option<String> {
            ///     std::env::var(name).ok()
            /// }
            ///
            #[doc = $crate::launch::run!($type, "env(\"MODEL\", \"small\")", "variable(\"MODEL\")")]
            /// assert_eq!(result?.as_deref(), Some("small"));
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn env(
                mut self,
                name: impl Into<std::ffi::OsString>,
                value: impl Into<std::ffi::OsString>,
            ) -> Self {
                self.spawn.env.push((name.into(), Some(value.into())));
                self
            }

            #[doc = concat!("Removes an environment variable for ", $the, ".")]
            ///
            /// For each name, the last call of [`env`](Self::env) or `env_remove` counts.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use procession::{", stringify!($type), ", delayed, worker};")]
            ///
            /// #[worker]
            /// fn variable(name: &str) -> Option<String> {
            ///     std::env::var(name).ok()
            /// }
            ///
            #[doc = $crate::launch::run!($type, "env_remove(\"HOME\")", "variable(\"HOME\")")]
            /// assert_eq!(result?, None);
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn env_remove(mut self, name: impl Into<std::ffi::OsString>) -> Self {
                self.spawn.env.push((name.into(), None));
                self
            }

            #[doc = concat!("Sets the working directory of ", $the, ". Default: the working directory of this process.")]
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use procession::{", stringify!($type), ", delayed, worker};")]
            ///
            /// #[worker]
            /// fn folder() -> Option<std::path::PathBuf> {
            ///     std::env::current_dir().ok()
            /// }
            ///
            #[doc = $crate::launch::run!($type, "current_dir(\"/\")", "folder()")]
            /// assert_eq!(result?, Some("/".into()));
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn current_dir(mut self, folder: impl Into<std::path::PathBuf>) -> Self {
                self.spawn.current_dir = Some(folder.into());
                self
            }

            #[doc = concat!("Sets how much is added to the niceness of ", $the, ", as with the command `nice -n`. Default: 0.")]
            ///
            /// A higher number gives way to other processes. The range is -20 to 19. A negative number requires privileges. Without
            /// them, no process starts.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use procession::{", stringify!($type), ", delayed, worker};")]
            ///
            /// #[worker]
            /// fn square(n: u64) -> u64 {
            ///     n * n
            /// }
            ///
            #[doc = $crate::launch::run!($type, "nice(10)", "square(7)")]
            /// assert_eq!(result?, 49);
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn nice(mut self, nice: i32) -> Self {
                self.spawn.setup.nice = Some(nice);
                self
            }

            #[doc = concat!("Sets whether ", $each, " is pinned to one CPU. Default: `false`.")]
            ///
            /// Worker *i* of a pool is pinned to the *i*-th CPU that the thread that builds the pool may use, and each
            /// [`Process`](crate::Process) that is spawned to the next of the CPUs that the spawning thread may use. After the last
            /// CPU, the first follows. Processes and threads that a worker starts are pinned to the same CPU.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use procession::{", stringify!($type), ", delayed, worker};")]
            ///
            /// #[worker]
            /// fn cpus() -> usize {
            ///     std::thread::available_parallelism().map_or(0, |cpus| cpus.get())
            /// }
            ///
            #[doc = $crate::launch::run!($type, "pin_cpus(true)", "cpus()")]
            /// assert_eq!(result?, 1);
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn pin_cpus(mut self, pin: bool) -> Self {
                self.spawn.pin_cpus = pin;
                self
            }

            #[doc = concat!("Sets whether panics in ", $the, " capture a backtrace, regardless of the environment.")]
            ///
            /// By default `RUST_BACKTRACE` decides, as in any Rust program. The first backtrace of a process takes time and memory,
            /// because the program's debug information is read. This method sets `RUST_BACKTRACE` to `1` or `0`. The last call of
            /// this method or of [`env`](Self::env) with that name counts. See
            /// [`RemotePanic::backtrace`](crate::RemotePanic::backtrace).
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use procession::{", stringify!($type), ", delayed, worker};")]
            ///
            /// #[worker]
            /// fn third(numbers: Vec<u32>) -> u32 {
            ///     numbers[2]
            /// }
            ///
            #[doc = $crate::launch::run!($type, "backtrace(true)", "third(vec![1])")]
            /// let error = result.unwrap_err();
            /// assert!(error.panic().is_some_and(|panic| panic.backtrace().contains("third")));
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn backtrace(self, captures: bool) -> Self {
                self.env("RUST_BACKTRACE", if captures { "1" } else { "0" })
            }

            #[doc = concat!("Sets how many threads each library in ", $each, " may start.")]
            ///
            /// By default this is the number of CPUs divided by the number of workers, at least 1, so that the workers together do
            /// not start more threads than there are CPUs. The number is passed in the variables that such libraries read:
            /// `RAYON_NUM_THREADS`, `OMP_NUM_THREADS`, `OPENBLAS_NUM_THREADS`, `MKL_NUM_THREADS`, `BLIS_NUM_THREADS`,
            /// `VECLIB_MAXIMUM_THREADS`, `NUMBA_NUM_THREADS`, `NUMEXPR_NUM_THREADS`, `POLARS_MAX_THREADS` and
            /// `TOKIO_WORKER_THREADS`.
            ///
            /// A call of [`env`](Self::env) or [`env_remove`](Self::env_remove) for one of these variables takes precedence. A
            /// variable that is already set in this process's environment takes precedence over the default, but not over a number
            /// given here.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use procession::{", stringify!($type), ", delayed, worker};")]
            ///
            /// #[worker]
            /// fn threads() -> Option<String> {
            ///     std::env::var("RAYON_NUM_THREADS").ok()
            /// }
            ///
            #[doc = $crate::launch::run!($type, "inner_threads(3)", "threads()")]
            /// assert_eq!(result?.as_deref(), Some("3"));
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn inner_threads(mut self, threads: usize) -> Self {
                self.spawn.inner_threads = Some(threads);
                self
            }

            #[doc = concat!("Sets where the stdout of ", $the, " goes. Default: [`Output::Inherit`](crate::Output::Inherit).")]
            ///
            /// With [`Output::Capture`](crate::Output::Capture), the output is kept until the result is requested, and is then
            /// printed by the thread that requested it.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use procession::{Output, ", stringify!($type), ", delayed, worker};")]
            ///
            /// #[worker]
            /// fn greet() {
            ///     println!("hello");
            /// }
            ///
            #[doc = $crate::launch::run!($type, "stdout(Output::Null)", "greet()")]
            /// assert_eq!(result?, ());
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn stdout(mut self, output: $crate::launch::Output) -> Self {
                self.spawn.outputs.stdout = output;
                self
            }

            #[doc = concat!("Sets where the stderr of ", $the, " goes, as for [`stdout`](Self::stdout).")]
            ///
            /// With [`Output::Capture`](crate::Output::Capture) and [`Output::Log`](crate::Output::Log), an error has [the last
            /// lines](crate::TaskError::stderr_tail) of it.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use procession::{Output, ", stringify!($type), ", delayed, worker};")]
            ///
            /// #[worker]
            /// fn complain() {
            ///     eprintln!("the disk is full");
            ///     std::process::abort();
            /// }
            ///
            #[doc = $crate::launch::run!($type, "stderr(Output::Capture)", "complain()")]
            /// let error = result.unwrap_err();
            /// assert!(error.stderr_tail().is_some_and(|words| words.contains("the disk is full")));
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn stderr(mut self, output: $crate::launch::Output) -> Self {
                self.spawn.outputs.stderr = output;
                self
            }

            #[doc = concat!("Sets how many bytes of memory ", $each, " may allocate in addition to what it starts with. Default: no limit.")]
            ///
            /// The minimum is 1 MiB. A task that tries to allocate more fails as out of memory
            /// ([`is_out_of_memory`](crate::TaskError::is_out_of_memory)), and its process ends. Other tasks are not affected.
            ///
            /// The limit applies to private writable memory (`RLIMIT_DATA`): the heap, anonymous mappings and thread stacks, whether
            /// used or not. Mapped files, shared memory and address space that an allocator only reserves do not count. A task can
            /// check whether memory is available, for example with `Vec::try_reserve`, and continue without it.
            ///
            /// If no limit is set, or the machine has less memory than the limit allows, the kernel may kill a process that needs
            /// too much. Such a task fails as out of memory, too. It is distinguished from other uses of SIGKILL by the kernel's
            /// count of out-of-memory kills.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use procession::{", stringify!($type), ", delayed, worker};")]
            ///
            /// #[worker]
            /// fn zeros(bytes: usize) -> usize {
            ///     vec![0u8; bytes].len()
            /// }
            ///
            #[doc = $crate::launch::run!($type, "memory_limit(256 << 20)", "zeros(4 << 30)")]
            /// let error = result.unwrap_err();
            /// assert!(error.is_out_of_memory() && !error.is_crash(), "{error}");
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn memory_limit(mut self, bytes: u64) -> Self {
                self.spawn.setup.memory_limit = Some(bytes);
                self
            }

            #[doc = concat!("Sets how ", $each, " is started. Default: `PROCESSION_START_METHOD`, or else ",
                "[`StartMethod::Spawn`](crate::StartMethod::Spawn).")]
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use procession::{", stringify!($type), ", StartMethod, delayed, worker};")]
            ///
            /// #[worker]
            /// fn square(n: u64) -> u64 {
            ///     n * n
            /// }
            ///
            #[doc = $crate::launch::run!($type, "start_method(StartMethod::ForkServer)", "square(7)")]
            /// assert_eq!(result?, 49);
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn start_method(mut self, method: $crate::launch::StartMethod) -> Self {
                self.spawn.start_method = Some(method);
                self
            }

            #[doc = concat!("Sets how long ", $each, " may take to start before it is killed. Default: 30 s.")]
            ///
            /// A pool then starts another worker. A template has the same time for its start, including a pool's
            /// [`preload`](crate::Builder::preload). A pool's [`initializer`](crate::Builder::initializer) is a task and has no
            /// time limit. The timeout must be above zero. A year or more means no limit.
            ///
            /// # Examples
            ///
            /// ```
            #[doc = concat!("use procession::{", stringify!($type), ", delayed, worker};")]
            ///
            /// #[worker]
            /// fn square(n: u64) -> u64 {
            ///     n * n
            /// }
            ///
            #[doc = $crate::launch::run!($type, "start_timeout(std::time::Duration::from_secs(60))", "square(7)")]
            /// assert_eq!(result?, 49);
            /// # Ok::<(), procession::Error>(())
            /// ```
            pub fn start_timeout(mut self, timeout: std::time::Duration) -> Self {
                self.spawn.start_timeout = Some(timeout);
                self
            }
        }
    };
}

pub(crate) use {run, spawn_setters};
