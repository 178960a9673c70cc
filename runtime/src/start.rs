//! Chooses what starts workers. This is the one module that names both sides, because a copy of the host becomes a template of
//! workers.

use crate::{
    launch::{ForkLauncher, Launcher, LocalLauncher, ResolvedOptions, StartMethod},
    protocol::{Preload, Setup, VERSION},
    registry, worker,
};

/// Returns a launcher that starts workers with these settings.
///
/// A template runs `preload` once before it forks workers. Under [`StartMethod::Fork`] the template is a copy of this process as it
/// is now.
///
/// # Errors
///
/// Returns what this process lacks for their start method.
pub(crate) fn launcher(
    options: &ResolvedOptions,
    preload: Option<Preload>,
) -> Result<Box<dyn Launcher>, String> {
    let setup = Setup { version: VERSION, build_id: registry::build_id(), preload };
    let ResolvedOptions { env, outputs, start_method, start_timeout, .. } = options.clone();
    Ok(match start_method {
        StartMethod::Spawn => Box::new(LocalLauncher::new()?),
        StartMethod::ForkServer => Box::new(ForkLauncher::server(setup, env, outputs, start_timeout)?),
        StartMethod::Fork => {
            Box::new(ForkLauncher::copy(setup, env, outputs, start_timeout, worker::become_template)?)
        }
    })
}
