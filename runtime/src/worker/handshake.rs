//! Shakes hands with the host: reads the hello, applies its settings, and answers that the worker is ready.
//!
//! `serve` calls it once, before the first task. No task may run before it.

use std::time::Duration;

use super::{
    host_link::{HOST_STATE, PREPARED, send},
    log, setup,
};
use crate::{
    context::INDEX,
    protocol::{Hello, Notice, Ready, Refused, ToWorker, VERSION},
    registry,
    setting::waits_for_debugger,
    sys::{env::is_traced, exit::write_stderr},
    transport::{FrameReceiver, Incoming},
};

/// The interval at which a worker that waits for a debugger checks whether one has attached.
const DEBUGGER_LOOK: Duration = Duration::from_millis(100);

const NO_HELLO: &str = "the host's first message was not a hello";

pub(super) fn shake_hands(receiver: &mut dyn FrameReceiver) -> Result<(), Refused> {
    receiver.begin(true);
    let Ok(Incoming::Frames(frames)) = receiver.recv() else {
        return Err("the host ended before its hello".into());
    };
    let Some((frame, rest)) = frames.split_first() else { return Err(NO_HELLO.into()) };
    let Ok(ToWorker::Hello(hello)) = ToWorker::decode(frame, &[]) else { return Err(NO_HELLO.into()) };
    let seen = frames.as_bytes().len() - rest.as_bytes().len();
    receiver.consume(seen);
    let Hello { version, build_id, worker, setup, log_level } = hello;
    if version != VERSION {
        return Err(
            format!("the host speaks version {version} of the protocol, this worker {VERSION}").into()
        );
    }
    let own = registry::build_id();
    if build_id != own {
        return Err(format!(
            "the host is build {build_id:016x}, this worker {own:016x}: was the executable replaced?"
        )
        .into());
    }
    setup::take_up(setup)?;
    log::install(log_level);
    let _ = INDEX.set(worker);
    if waits_for_debugger().unwrap_or(false) {
        wait_for_debugger(worker);
    }
    PREPARED.wait();
    HOST_STATE.become_ready();
    send(&Notice::Ready(Ready { version: VERSION, build_id: own, pid: std::process::id() }));
    Ok(())
}

/// Prints the number and the pid of this worker, and waits until a debugger has attached. The host waits as long.
fn wait_for_debugger(worker: u32) {
    let pid = std::process::id();
    write_stderr(&format!("procession: worker {worker} (pid {pid}) waits for a debugger: gdb -p {pid}\n"));
    // No event reports that a process is being traced, so it has to be polled. If the host ends meanwhile, the watching thread ends
    // this process.
    while !is_traced() {
        std::thread::park_timeout(DEBUGGER_LOOK);
    }
}
