//! Chooses what starts workers. This is the one module that names both sides, because a copy of the host becomes a template of
//! workers.

use std::sync::Arc;

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
) -> Result<Arc<dyn Launcher>, String> {
    let setup = Setup { version: VERSION, build_id: registry::build_id(), preload };
    Ok(match options.start_method {
        StartMethod::Spawn => Arc::new(LocalLauncher::new()?),
        StartMethod::ForkServer => Arc::new(ForkLauncher::server(setup, options.clone())?),
        StartMethod::Fork => Arc::new(ForkLauncher::copy(setup, options.clone(), worker::become_template)?),
    })
}
