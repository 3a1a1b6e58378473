//! The files that a step stores, as far as the job may.

use super::files::Listing;
use crate::executor::beside::beside;
use crate::executor::control::Control;
use crate::executor::end::StepEnd;
use crate::executor::output::log::StepLog;
use crate::executor::places::Places;
use std::io;
use std::path::Path;

/// The listing, with its notes in the log; `None` when there is nothing to store.
pub(super) fn of(
    places: &Places,
    control: &mut Control,
    target: &Path,
    log: &StepLog,
    list: impl FnOnce(&Path) -> io::Result<Listing> + Send + 'static,
) -> Result<Option<Listing>, StepEnd> {
    let (places, path) = (places.clone(), target.to_owned());
    let listing = beside(control, move |_| match places.led_out(&path) {
        Some(place) => Err(io::Error::other(format!(
            "a link leads from there to `{}`, out of the job's folders (if that is meant, name it in the config)",
            place.display()
        ))),
        None => list(&path),
    })?;
    Ok(match listing {
        Ok(listing) => {
            listing.notes.iter().for_each(|note| log.note(note));
            Some(listing)
        }
        Err(error) => {
            log.note(&format!("nothing to store: cannot read `{}`: {error}", target.display()));
            None
        }
    })
}
