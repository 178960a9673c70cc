//! Chooses what starts workers. This is the one module that names both sides, because a copy of the host becomes a template of
//! workers.

use std::time::Duration;

use crate::{
    launch::{ForkLauncher, Launcher, LocalLauncher, Outputs, StartMethod, Variable},
    protocol::{Preload, Setup, VERSION},
    registry, worker,
};

/// Returns a launcher that starts workers by `method`, with this environment and with their output going there.
///
/// A template runs `preload` once before it forks workers. Under [`StartMethod::Fork`] the template is a copy of this process as it
/// is now.
///
/// # Errors
///
/// Returns what this process lacks for `method`.
pub(crate) fn launcher(
    method: StartMethod,
    preload: Option<Preload>,
    env: Vec<Variable>,
    outputs: Outputs,
    start_timeout: Duration,
) -> Result<Box<dyn Launcher>, String> {
    let setup = Setup { version: VERSION, build_id: registry::build_id(), preload };
    Ok(match method {
        StartMethod::Spawn => Box::new(LocalLauncher::new()?),
        StartMethod::ForkServer => Box::new(ForkLauncher::server(setup, env, outputs, start_timeout)?),
        StartMethod::Fork => {
            Box::new(ForkLauncher::copy(setup, env, outputs, start_timeout, worker::become_template)?)
        }
    })
}
