//! Secrets of projects that are no variables: of hooks, of tokens for forges, of webhooks.

use crate::protocol::Secret;
use crate::server::ids::ProjectId;
use crate::server::secrets::sealer::{SealError, SealedFor, Sealer};
use crate::server::store::tables::forge;
use crate::server::store::{Error, Tx, View};
use crate::server::time::Millis;

/// Reads a secret of a project; `None` when there is none. The inner error says why one that is there cannot be opened.
pub fn open(
    view: &View,
    sealer: &Sealer,
    project: &ProjectId,
    name: &str,
) -> Result<Option<Result<Secret, SealError>>, Error> {
    let sealed = forge::secret(view, project, name)?;
    Ok(sealed.map(|sealed| sealer.open(SealedFor::Forge(project, name), &sealed)))
}

/// Keeps a secret of a project, sealed, in place of one of the same name.
pub fn keep(
    tx: &Tx<'_>,
    sealer: &Sealer,
    project: &ProjectId,
    name: &str,
    value: &Secret,
    now: Millis,
) -> Result<(), Error> {
    let fail = |why: SealError| Error::Corrupt(format!("the secret `{name}` cannot be sealed: {why}"));
    let sealed = sealer.seal(SealedFor::Forge(project, name), value).map_err(fail)?;
    forge::set_secret(tx, project, name, &sealed, now)
}
