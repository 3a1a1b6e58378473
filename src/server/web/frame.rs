//! The frame of every page.

use crate::server::auth::Person;
use crate::server::time::Millis;
use crate::server::web::session::{CookieSecret, Visitor};
use crate::server::web::{shown, style};

/// Contents of the frame of a page.
pub(super) struct Head {
    /// Title of the window.
    pub(super) title: String,
    /// Login of the person, and the field of the form that signs them out.
    pub(super) person: Option<(String, String)>,
    /// The way here: names and addresses.
    pub(super) crumbs: Vec<(String, String)>,
    /// Path of the style sheet.
    pub(super) style: &'static str,
    /// Time of the page.
    pub(super) now: String,
}

impl Head {
    /// Makes the frame of a page for anybody, signed in or not.
    pub(super) fn of(title: impl Into<String>, visitor: Option<(&Person, &CookieSecret)>) -> Self {
        Self {
            title: title.into(),
            person: visitor.map(|(person, secret)| (person.login.clone(), secret.field())),
            crumbs: Vec::new(),
            style: style::address(),
            now: shown::moment(Millis::now()),
        }
    }

    /// Makes the frame of a page for someone who is signed in.
    pub(super) fn for_visitor(title: impl Into<String>, visitor: &Visitor) -> Self {
        Self::of(title, Some((&visitor.person, &visitor.secret)))
    }

    /// Adds the way to a project.
    pub(super) fn below_project(mut self, slug: &str) -> Self {
        self.crumbs.push((slug.to_owned(), format!("/{slug}")));
        self
    }

    /// Adds one more link to the way.
    pub(super) fn below(mut self, name: impl Into<String>, address: impl Into<String>) -> Self {
        self.crumbs.push((name.into(), address.into()));
        self
    }
}
