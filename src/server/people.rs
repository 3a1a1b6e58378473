//! Letting people in and out: their logins, their tokens, and the administrator who always stays.
//!
//! One administrator with a token is always left: without one nobody could let anybody in again.

use crate::protocol::Secret;
use crate::server::auth::{new_token, token_hash};
use crate::server::ids::{PersonalTokenId, UserId};
use crate::server::store::tables::people::{self, PersonalTokenRow, User};
use crate::server::store::{Error, Tx};
use crate::server::time::Millis;

/// Start of every personal token.
const PREFIX: &str = "rlp_";
/// Longest login, in bytes.
const MOST_LOGIN_BYTES: usize = 100;
/// Longest name and label, in characters.
const MOST_TEXT_CHARS: usize = 200;

/// The reason why a person or a token was not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// There is no such person or token.
    Unknown,
    /// No administrator with a token would be left.
    LastAdministrator,
}

/// Checks a login, which becomes a variable of jobs and a part of command lines; the error is a sentence
/// for people.
pub fn check_login(login: &str) -> Result<(), String> {
    let is_good = (1..=MOST_LOGIN_BYTES).contains(&login.len())
        && login.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@+-".contains(&b))
        && !login.starts_with('-')
        && login != "me";
    if is_good {
        return Ok(());
    }
    let shown: String = login.chars().filter(|c| !c.is_control()).take(60).collect();
    Err(format!(
        "`{shown}` cannot be a login: it has 1 to {MOST_LOGIN_BYTES} letters, digits, `.`, `_`, `@`, `+` and `-`, and is not `me`"
    ))
}

/// Checks a name or a label, which is called `what`; the error is a sentence for people.
pub fn check_text(what: &str, text: &str) -> Result<(), String> {
    if text.chars().count() <= MOST_TEXT_CHARS && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!("`{what}` has at most {MOST_TEXT_CHARS} characters, and no control characters"))
}

/// Makes the first administrator and returns their token, where there is nobody yet; changes nothing later.
pub fn create_first(tx: &Tx<'_>, now: Millis) -> Result<Option<Secret>, Error> {
    if people::is_anybody_there(tx)? {
        return Ok(None);
    }
    let admin = create(tx, "admin", "Administrator", true, now)?;
    let Some(admin) = admin else { return Ok(None) };
    create_token(tx, &admin.id, "first start", now).map(|(_, secret)| Some(secret))
}

/// Makes a person; `None` when the login is taken.
pub fn create(
    tx: &Tx<'_>,
    login: &str,
    name: &str,
    is_admin: bool,
    now: Millis,
) -> Result<Option<User>, Error> {
    let (login, name) = (login.to_owned(), name.to_owned());
    let user = User { id: UserId::fresh(), login, name, is_admin, created_at: now };
    Ok(people::add_user(tx, &user)?.then_some(user))
}

/// Deletes a person, named by id or login, and their tokens.
pub fn delete(tx: &Tx<'_>, named: &str) -> Result<Result<(), Kept>, Error> {
    let Some(user) = people::find_user(tx, named)? else { return Ok(Err(Kept::Unknown)) };
    if user.is_admin && !people::is_other_administrator(tx, &user.id)? {
        return Ok(Err(Kept::LastAdministrator));
    }
    people::delete_user(tx, &user.id).map(Ok)
}

/// Makes a token of a person. Its secret is returned here and kept nowhere.
pub fn create_token(
    tx: &Tx<'_>,
    user: &UserId,
    label: &str,
    now: Millis,
) -> Result<(PersonalTokenRow, Secret), Error> {
    let secret = new_token(PREFIX)?;
    let token = PersonalTokenRow { id: PersonalTokenId::fresh(), label: label.to_owned(), created_at: now };
    people::add_token(tx, user, &token, &token_hash(&secret))?;
    Ok((token, Secret::new(secret)))
}

/// Deletes a token; only one of the person `only`, if that is given.
pub fn delete_token(
    tx: &Tx<'_>,
    token: &PersonalTokenId,
    only: Option<&UserId>,
) -> Result<Result<(), Kept>, Error> {
    let owner = people::owner_of_token(tx, token)?;
    let Some(owner) = owner.filter(|owner| only.is_none_or(|only| owner.user == *only)) else {
        return Ok(Err(Kept::Unknown));
    };
    if owner.is_admin && !people::is_other_administrator_token(tx, token)? {
        return Ok(Err(Kept::LastAdministrator));
    }
    people::delete_token(tx, token).map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_words() {
        for login in ["ada", "ada@example.com", "A.b_c-d+e", &"x".repeat(100)] {
            assert_eq!(check_login(login), Ok(()), "{login}");
        }
        for login in ["", "me", "-x", "a b", "a/b", "größe", "a\n", &"x".repeat(101)] {
            assert!(check_login(login).is_err(), "{login}");
        }
        assert!(check_text("name", "Ada Lovelace").is_ok() && check_text("name", "a\u{1b}[2J").is_err());
    }
}
