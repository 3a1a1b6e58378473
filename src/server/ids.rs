//! Identifiers as types, so that the id of one thing cannot stand in for another's.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Defines identifiers: texts that the control plane makes (lower-case random UUIDs) and looks up. Any text can be
/// looked up; one that was never made finds nothing.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
            #[serde(transparent)]
            pub struct $name(String);

            impl $name {
                /// Makes a fresh one.
                pub fn fresh() -> Self {
                    Self(fresh_uuid())
                }

                /// The text, as it stands in URLs and in the database.
                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl From<String> for $name {
                fn from(text: String) -> Self {
                    Self(text)
                }
            }

            impl From<&str> for $name {
                fn from(text: &str) -> Self {
                    Self(text.to_owned())
                }
            }

            impl From<$name> for String {
                fn from(id: $name) -> Self {
                    id.0
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }
        )+

        /// Calls the macro `$with` with every identifier: rooms that teach a library about them do so for all.
        macro_rules! for_every_id {
            ($with:ident) => { $($with!($name);)+ };
        }
        pub(crate) use for_every_id;
    };
}

ids! {
    /// Identifies an organisation.
    OrganisationId,
    /// Identifies a person.
    UserId,
    /// Identifies a personal token, which is not its text.
    PersonalTokenId,
    /// Identifies a project.
    ProjectId,
    /// Identifies a context.
    ContextId,
    /// Identifies a restriction of a context.
    RestrictionId,
    /// Identifies a resource class; its name is `protocol::ResourceClass`.
    ResourceClassId,
    /// Identifies a token of a resource class, which is not its text.
    ClassTokenId,
    /// Identifies a pipeline.
    PipelineId,
    /// Identifies a workflow.
    WorkflowId,
    /// Identifies a job of a workflow.
    JobId,
    /// Identifies the workspace that the jobs of a workflow and of its reruns share.
    WorkspaceId,
    /// Identifies an artifact.
    ArtifactId,
    /// Identifies a cache.
    CacheId,
    /// Identifies a layer of a workspace.
    LayerId,
    /// Identifies a webhook that tells others.
    WebhookId,
    /// Identifies a call of such a webhook.
    WebhookCallId,
    /// Identifies a schedule of the API.
    ScheduleId,
}

/// Makes a lower-case random UUID.
pub fn fresh_uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}
