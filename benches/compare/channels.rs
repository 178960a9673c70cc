//! The peer that only carries messages: ipc-channel, between this process and others of the same executable.

use std::{
    process::{Child, Command, ExitCode},
    time::Instant,
};

use ipc_channel::ipc::{
    self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender, IpcSharedMemory,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::timing::{LARGE_BYTES, Outcome, Size, add_one, hot, rate, rested, throughput};

/// The ends that a process sends back once it has started.
type Numbers = (IpcSender<u64>, IpcReceiver<u64>);
type Bytes = (IpcBytesSender, IpcBytesReceiver);
type Memory = (IpcSender<IpcSharedMemory>, IpcReceiver<u64>);

/// A process that answers until its channel closes.
struct Peer<Ends> {
    child: Child,
    ends: Option<Ends>,
}

impl<Ends: Serialize + DeserializeOwned> Peer<Ends> {
    fn start(kind: &str) -> Self {
        let (server, name) = IpcOneShotServer::<Ends>::new().expect("a server");
        let child = Command::new("/proc/self/exe").args(["channel", kind, &name]).spawn();
        let child = child.expect("this executable starts again");
        let (_, ends) = server.accept().expect("the process connects");
        Self { child, ends: Some(ends) }
    }

    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("they are taken by drop alone")
    }
}

impl<Ends> Drop for Peer<Ends> {
    fn drop(&mut self) {
        self.ends = None;
        let _ = self.child.wait();
    }
}

/// The answering process.
pub(crate) fn answer(kind: &str, server: &str) -> ExitCode {
    match kind {
        "numbers" => {
            let (tasks, theirs) = ipc::channel().expect("a channel");
            let (results, ours) = ipc::channel().expect("a channel");
            connect::<Numbers>(server, (tasks, ours));
            while let Ok(n) = theirs.recv() {
                let _ = results.send(add_one(n));
            }
        }
        "memory" => {
            let (tasks, theirs) = ipc::channel::<IpcSharedMemory>().expect("a channel");
            let (results, ours) = ipc::channel().expect("a channel");
            connect::<Memory>(server, (tasks, ours));
            while let Ok(memory) = theirs.recv() {
                let _ = results.send(memory.len() as u64);
            }
        }
        _ => {
            let (tasks, theirs) = ipc::bytes_channel().expect("a channel");
            let (results, ours) = ipc::bytes_channel().expect("a channel");
            connect::<Bytes>(server, (tasks, ours));
            while let Ok(bytes) = theirs.recv() {
                let _ = results.send(&bytes);
            }
        }
    }
    ExitCode::SUCCESS
}

fn connect<Ends: Serialize + DeserializeOwned>(server: &str, ends: Ends) {
    let server = IpcSender::<Ends>::connect(server.to_owned()).expect("the server waits");
    server.send(ends).expect("the ends travel");
}

/// Every task a message, in turn to two processes, and every result a message back; and one at a time.
pub(crate) fn numbers(size: &Size) -> Outcome {
    let peers: [Peer<Numbers>; 2] = [Peer::start("numbers"), Peer::start("numbers")];
    let rate = rate(size, size.tasks(100_000), |tasks| {
        let start = Instant::now();
        let senders = [peers[0].ends().0.clone(), peers[1].ends().0.clone()];
        // A thread of its own, so that a full channel does not keep this thread from taking results.
        let sending = std::thread::spawn(move || {
            (0..tasks).try_for_each(|n| senders[n as usize % 2].send(n)).expect("the processes live");
        });
        for n in 0..tasks {
            assert_eq!(peers[n as usize % 2].ends().1.recv().ok(), Some(n + 1));
        }
        sending.join().expect("all was sent");
        start.elapsed()
    });
    let peer: Peer<Numbers> = Peer::start("numbers");
    let (tasks, results) = peer.ends();
    let call = || {
        tasks.send(1).expect("the process lives");
        assert_eq!(results.recv().ok(), Some(2));
    };
    Ok(vec![("rate", rate), ("hot", hot(size, 20_000, call)), ("rested", rested(size, call))])
}

/// A large slice there, as shared memory; and there and back, as bytes.
pub(crate) fn large(size: &Size) -> Outcome {
    let bytes = vec![7u8; size.bytes(LARGE_BYTES)];
    let peer: Peer<Memory> = Peer::start("memory");
    let (tasks, results) = peer.ends();
    let there = throughput(size, bytes.len(), || {
        tasks.send(IpcSharedMemory::from_bytes(&bytes)).expect("the process lives");
        assert_eq!(results.recv().ok(), Some(bytes.len() as u64));
    });
    let peer: Peer<Bytes> = Peer::start("bytes");
    let (tasks, results) = peer.ends();
    let echoed = throughput(size, bytes.len(), || {
        tasks.send(&bytes).expect("the process lives");
        assert_eq!(results.recv().map(|back| back.len()).ok(), Some(bytes.len()));
    });
    Ok(vec![("there", there), ("echoed", echoed)])
}
