//! Wrong use of the in-job commands.

use crate::outcome::{Failure, exit};

/// Wrong use of an in-job command: exit code 1, as scripts expect.
pub(super) fn usage(message: String) -> Failure {
    Failure { code: exit::FAILED, message }
}
