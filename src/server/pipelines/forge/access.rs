//! Access of the control plane's own git to the repositories of projects.

use crate::logging::record;
use crate::server::ids::ProjectId;
use crate::server::secrets::access;
use crate::server::state::Shared;

/// Lets the mirrors into the repositories of projects by what is set for them.
pub fn open_mirrors(state: &Shared) {
    let (store, sealer) = (state.store.clone(), state.settings.sealer.clone());
    state.settings.mirrors.open_by(move |project: String, url: String| {
        let (store, sealer, project) = (store.clone(), sealer.clone(), ProjectId::from(project));
        async move {
            let of = project.clone();
            match store.read(move |view| access::open(view, &sealer, &of)).await {
                Ok(Ok(access)) => return access.files(&url),
                Ok(Err(why)) => {
                    record!(Warn, project = project.as_str(); "git gets no keys for a repository: {why}");
                }
                Err(error) => {
                    log::error!("failed to read the keys of the repository of `{project}`: {error}")
                }
            }
            Vec::new()
        }
    });
}
