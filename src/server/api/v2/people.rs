//! People and personal tokens: our own, made by administrators. A person lists and deletes their own tokens.

use crate::server::api::shared::failure::{Answer, ApiError, bad, conflict};
use crate::server::api::shared::input::{JsonBody, Path, QueryWords, message};
use crate::server::api::shared::paging::page;
use crate::server::auth::{Administrator, Person};
use crate::server::ids::PersonalTokenId;
use crate::server::people::{self, Kept};
use crate::server::state::Shared;
use crate::server::store::tables::people::{self as table, PersonalTokenRow, User};
use crate::server::time::Millis;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde_json::{Value, json};

/// Serves the paths of this file. `GET /api/v2/user/{id}` is CircleCI's, and in `v2`.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v2/user", get(list).post(create))
        .route("/api/v2/user/{id}", delete(remove))
        .route("/api/v2/personal-token", get(tokens).post(create_token))
        .route("/api/v2/personal-token/{id}", delete(remove_token))
}

fn shown(user: &User) -> Value {
    json!({
        "id": user.id, "login": user.login, "name": user.name, "is_admin": user.is_admin,
        "created_at": user.created_at.to_string(),
    })
}

fn shown_token(user: &User, token: &PersonalTokenRow) -> Value {
    json!({
        "id": token.id, "user": user.login, "label": token.label, "created_at": token.created_at.to_string(),
    })
}

fn missing(named: &str) -> ApiError {
    ApiError::not_found(format!("there is no user `{named}`"))
}

fn kept(kept: Kept, unknown: ApiError) -> ApiError {
    match kept {
        Kept::Unknown => unknown,
        Kept::LastAdministrator => conflict(
            "no administrator with a token would be left, and nobody could make another: make one first (`runlet admin user create LOGIN --admin`, `runlet admin personal-token create LOGIN`)",
        ),
    }
}

async fn list(State(state): State<Shared>, _admin: Administrator, words: QueryWords) -> Answer<Json<Value>> {
    let users = state.store.read(table::list_users).await?;
    page(users.into_iter().map(|user| (user.login.clone(), shown(&user))).collect(), &words)
}

async fn create(State(state): State<Shared>, _admin: Administrator, body: JsonBody) -> Answer<Response> {
    body.check_names("a person", &["login", "name", "is_admin"])?;
    let login = body.text("login")?.to_owned();
    let name = body.optional_text("name")?.filter(|name| !name.is_empty()).unwrap_or(&login).to_owned();
    let is_admin = body.is_set("is_admin")?;
    people::check_login(&login).and_then(|()| people::check_text("name", &name)).map_err(bad)?;
    let taken = conflict(format!("there is a user `{login}` already"));
    let made =
        state.store.write(move |tx| people::create(tx, &login, &name, is_admin, Millis::now())).await?;
    Ok((StatusCode::CREATED, Json(shown(&made.ok_or(taken)?))).into_response())
}

async fn remove(
    State(state): State<Shared>,
    _admin: Administrator,
    Path(named): Path<String>,
) -> Answer<Json<Value>> {
    let unknown = missing(&named);
    let removed = state.store.write(move |tx| people::delete(tx, &named)).await?;
    removed.map(|()| message("User deleted.")).map_err(|why| kept(why, unknown))
}

async fn user(state: &Shared, named: &str) -> Answer<User> {
    let key = named.to_owned();
    state.store.read(move |c| table::find_user(c, &key)).await?.ok_or_else(|| missing(named))
}

async fn tokens(State(state): State<Shared>, person: Person, words: QueryWords) -> Answer<Json<Value>> {
    let named = words.get("user").map(String::as_str).filter(|named| !named.is_empty());
    let named = named.filter(|named| *named != "me").unwrap_or(person.id.as_str());
    if !person.is_admin && named != person.id.as_str() && named != person.login {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            format!(
                "`{}` is no administrator and sees no tokens but their own: leave `user` out",
                person.login
            ),
        ));
    }
    let user = user(&state, named).await?;
    let id = user.id.clone();
    let tokens = state.store.read(move |c| table::list_tokens(c, &id)).await?;
    let key = |token: &PersonalTokenRow| format!("{:020} {}", token.created_at.0, token.id);
    page(tokens.iter().map(|token| (key(token), shown_token(&user, token))).collect(), &words)
}

async fn create_token(
    State(state): State<Shared>,
    _admin: Administrator,
    body: JsonBody,
) -> Answer<Response> {
    body.check_names("a token", &["user", "label"])?;
    let named = body.text("user")?.to_owned();
    let label = body.optional_text("label")?.unwrap_or_default().to_owned();
    people::check_text("label", &label).map_err(bad)?;
    let unknown = missing(&named);
    let made = state.store.write(move |tx| {
        let Some(user) = table::find_user(tx, &named)? else { return Ok(None) };
        let (token, secret) = people::create_token(tx, &user.id, &label, Millis::now())?;
        Ok(Some((user, token, secret)))
    });
    let (user, token, secret) = made.await?.ok_or(unknown)?;
    let mut answer = shown_token(&user, &token);
    answer["token"] = json!(secret.expose());
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Deletes a token; to a person who is no administrator the tokens of others do not exist.
async fn remove_token(
    State(state): State<Shared>,
    person: Person,
    Path(id): Path<String>,
) -> Answer<Json<Value>> {
    let unknown = ApiError::not_found(format!("there is no personal token with the id `{id}`"));
    let only = (!person.is_admin).then_some(person.id);
    let id = PersonalTokenId::from(id);
    let removed = state.store.write(move |tx| people::delete_token(tx, &id, only.as_ref())).await?;
    removed.map(|()| message("Deleted.")).map_err(|why| kept(why, unknown))
}
