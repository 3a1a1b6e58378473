//! Senders of deliveries, and whether to believe them: the headers of each forge. No IO; time is an argument.

use crate::protocol::Secret;
use crate::server::store::forge_states::Forge;
use crate::server::time::Millis;
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac::{self, HMAC_SHA256, Key};
use std::time::Duration;

/// The time that a signed delivery may be off.
const CLOCKS_APART: Duration = Duration::from_secs(5 * 60);

/// The forge that headers are of. Some send those of others besides their own: the order decides.
pub fn sender(headers: &HeaderMap) -> Option<Forge> {
    let order = [
        ("x-runlet-event", Forge::Git),
        ("x-forgejo-event", Forge::Forgejo),
        ("x-gitea-event", Forge::Gitea),
        ("x-gitlab-event", Forge::GitLab),
        ("x-event-key", Forge::BitbucketDc),
        ("x-github-event", Forge::GitHub),
    ];
    let (_, forge) = order.into_iter().find(|(name, _)| headers.contains_key(*name))?;
    let is_cloud = forge == Forge::BitbucketDc && headers.contains_key("x-hook-uuid");
    Some(if is_cloud { Forge::BitbucketCloud } else { forge })
}

/// The forge's id of the webhook that it sends by, where it tells one.
pub fn hook(forge: Forge, headers: &HeaderMap) -> Option<String> {
    let name = match forge {
        Forge::GitHub => "x-github-hook-id",
        Forge::GitLab => "x-gitlab-webhook-uuid",
        Forge::BitbucketCloud => "x-hook-uuid",
        Forge::Gitea | Forge::Forgejo | Forge::BitbucketDc | Forge::Git => return None,
    };
    let id = headers.get(name)?.to_str().ok()?.trim();
    (!id.is_empty()).then(|| id.chars().take(200).collect())
}

/// The forge's name of the event, and its id of the delivery where it sends one.
pub fn names(forge: Forge, headers: &HeaderMap) -> (String, Option<String>) {
    let (event, ids): (&str, &[&str]) = match forge {
        Forge::GitHub => ("x-github-event", &["x-github-delivery"]),
        Forge::GitLab => ("x-gitlab-event", &["idempotency-key", "webhook-id"]),
        Forge::Gitea => ("x-gitea-event", &["x-gitea-delivery"]),
        Forge::Forgejo => ("x-forgejo-event", &["x-forgejo-delivery", "x-gitea-delivery"]),
        Forge::BitbucketCloud => ("x-event-key", &["x-request-uuid"]),
        Forge::BitbucketDc => ("x-event-key", &["x-request-id"]),
        Forge::Git => ("x-runlet-event", &["x-runlet-delivery"]),
    };
    let text = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?.trim();
        (!value.is_empty()).then(|| value.chars().take(200).collect::<String>())
    };
    let mut id = ids.iter().find_map(|name| text(name));
    if forge == Forge::GitLab && id.is_none() {
        // The id of the event alone repeats where one hook sets off another.
        id = text("x-gitlab-event-uuid")
            .map(|event| format!("{event} {}", text("x-gitlab-webhook-uuid").unwrap_or_default()));
    }
    (text(event).unwrap_or_default(), id)
}

/// The content of a body: JSON, or a form with JSON in its field `payload`.
#[derive(Debug)]
pub struct BodyContent<'a> {
    /// The body as it came.
    pub body: &'a [u8],
    /// The decoded `payload`, of a form.
    pub payload: Option<Vec<u8>>,
}

impl<'a> BodyContent<'a> {
    /// Reads a body by its content type. `None` when it is another one.
    pub fn of(headers: &HeaderMap, body: &'a [u8]) -> Option<Self> {
        let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/json" => Some(Self { body, payload: None }),
            "application/x-www-form-urlencoded" => {
                Some(Self { body, payload: Some(form_field(body, b"payload").unwrap_or_default()) })
            }
            _ => None,
        }
    }

    /// Returns the JSON, out of the form that some forges wrap it in.
    pub fn json(&self) -> &[u8] {
        self.payload.as_deref().unwrap_or(self.body)
    }
}

/// The decoded value of a field of a form.
fn form_field(body: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let field = body.split(|b| *b == b'&').find_map(|field| field.strip_prefix(name)?.strip_prefix(b"="))?;
    let mut decoded = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let digit = |b: u8| char::from(b).to_digit(16);
        match first {
            b'+' => decoded.push(b' '),
            b'%' => match (after.first().and_then(|b| digit(*b)), after.get(1).and_then(|b| digit(*b))) {
                (Some(high), Some(low)) => {
                    decoded.push((high * 16 + low) as u8);
                    rest = &after[2..];
                }
                _ => decoded.push(b'%'),
            },
            other => decoded.push(other),
        }
    }
    Some(decoded)
}

/// Checks a delivery against the secrets of its project, any of which may be the right one. The error says why it is
/// not believed.
pub fn verify(
    forge: Forge,
    headers: &HeaderMap,
    content: &BodyContent<'_>,
    secrets: &[Secret],
    now: Millis,
) -> Result<(), &'static str> {
    match forge {
        Forge::GitHub | Forge::BitbucketCloud | Forge::BitbucketDc | Forge::Git => {
            let (name, missing) = match forge {
                Forge::GitHub => {
                    ("x-hub-signature-256", "it has no `X-Hub-Signature-256`: set the secret of the webhook")
                }
                Forge::Git => ("x-runlet-signature-256", "it has no `X-Runlet-Signature-256`"),
                _ => ("x-hub-signature", "it has no `X-Hub-Signature`: set the secret of the webhook"),
            };
            let given = single(headers, name)?.ok_or(missing)?;
            signed(
                given.strip_prefix("sha256=").ok_or("its signature is not `sha256=...`")?,
                content.body,
                secrets,
            )
        }
        Forge::Gitea | Forge::Forgejo => {
            let own = if forge == Forge::Forgejo { "x-forgejo-signature" } else { "x-gitea-signature" };
            let given = single(headers, own)?;
            signed(
                given.ok_or("it has no signature: set the secret of the webhook")?,
                content.json(),
                secrets,
            )
        }
        Forge::GitLab => match single(headers, "webhook-signature")? {
            Some(given) => standard(headers, given, content.body, secrets, now),
            None => {
                let missing = "it has no `X-Gitlab-Token`: set the secret token of the webhook";
                let given = headers.get("x-gitlab-token").ok_or(missing)?.as_bytes();
                single(headers, "x-gitlab-token")?;
                let right = secrets.iter().fold(false, |right, secret| right | same(given, secret));
                if right { Ok(()) } else { Err("its token is not the secret of this project") }
            }
        },
    }
}

fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, &'static str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next();
    if all.next().is_some() {
        return Err("it has more than one signature");
    }
    Ok(first.and_then(|value| value.to_str().ok()))
}

/// Compares in a time that depends on neither text: both are hashed first.
fn same(given: &[u8], secret: &Secret) -> bool {
    let key = Key::new(HMAC_SHA256, b"compare");
    hmac::verify(&key, given, hmac::sign(&key, secret.expose().as_bytes()).as_ref()).is_ok()
}

fn signed(hex: &str, bytes: &[u8], secrets: &[Secret]) -> Result<(), &'static str> {
    if hex.is_empty() {
        return Err("its signature is empty: set the secret of the webhook");
    }
    let given = unhex(hex).ok_or("its signature is not hexadecimal")?;
    let right = secrets.iter().fold(false, |right, secret| {
        let key = Key::new(HMAC_SHA256, secret.expose().as_bytes());
        right | hmac::verify(&key, bytes, &given).is_ok()
    });
    if right { Ok(()) } else { Err("its signature is not made with the secret of this project") }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() % 2 != 0 || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// The scheme of Standard Webhooks: id, time and body are signed with a secret of their own form.
fn standard(
    headers: &HeaderMap,
    given: &str,
    body: &[u8],
    secrets: &[Secret],
    now: Millis,
) -> Result<(), &'static str> {
    let id = single(headers, "webhook-id")?.ok_or("it is signed and has no `webhook-id`")?;
    let time = single(headers, "webhook-timestamp")?.ok_or("it is signed and has no `webhook-timestamp`")?;
    let seconds: u64 = time.parse().map_err(|_| "its `webhook-timestamp` is no number of seconds")?;
    let at = Millis(seconds.saturating_mul(1000));
    if now.since(at) > CLOCKS_APART || at.since(now) > CLOCKS_APART {
        return Err("it was signed more than 5 minutes ago or ahead: compare the clocks of both hosts");
    }
    let mut signed = format!("{id}.{time}.").into_bytes();
    signed.extend_from_slice(body);
    let mut right = false;
    for secret in secrets {
        let text = secret.expose().strip_prefix("whsec_").unwrap_or(secret.expose());
        let Ok(key) = STANDARD.decode(text) else { continue };
        let key = Key::new(HMAC_SHA256, &key);
        for signature in given.split(' ').filter_map(|one| one.strip_prefix("v1,")) {
            let Ok(signature) = STANDARD.decode(signature) else { continue };
            right |= hmac::verify(&key, &signed, &signature).is_ok();
        }
    }
    if right { Ok(()) } else { Err("its signature is not made with the secret of this project") }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test without its headers should fail loudly")]
mod tests {
    use super::*;

    const B1: &[u8] = br#"{"ref":"refs/heads/main","after":"1111111111111111111111111111111111111111"}"#;
    const B1_SIGNED: &str = "090de61a596219d0d5e9617804ad3dee0ff0348f4018c1c932e7a22d7475c0f6";
    const FORM: &[u8] = b"payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%2C%22after%22%3A%221111111111111111111111111111111111111111%22%7D";
    const FORM_SIGNED: &str = "563d956b1db4ce1681a63649c23df4f4f0e9dec60045d7cc2eae949c4c11cfff";
    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
    const AS_FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn check(forge: Forge, all: &[(&'static str, &str)], body: &[u8], secret: &str) -> bool {
        let headers = headers(all);
        let content = BodyContent::of(&headers, body).unwrap();
        // The one before it is still valid while the forge is told of the new one.
        let secrets = [Secret::new("another"), Secret::new(secret)];
        verify(forge, &headers, &content, &secrets, Millis(1_700_000_060_000)).is_ok()
    }

    #[test]
    fn the_vectors_of_every_forge_are_accepted_and_a_changed_digit_is_not() {
        const S: &str = "forge-secret-1";
        let with = |hex: &str| format!("sha256={hex}");
        type Case<'c> = (Forge, &'static str, String, (&'static str, &'c str), &'c [u8], &'c str);
        let cases: [Case<'_>; 8] = [
            (Forge::GitHub, "x-hub-signature-256", with(B1_SIGNED), JSON, B1, S),
            (Forge::BitbucketCloud, "x-hub-signature", with(B1_SIGNED), JSON, B1, S),
            (Forge::BitbucketDc, "x-hub-signature", with(B1_SIGNED), JSON, B1, S),
            (Forge::Git, "x-runlet-signature-256", with(B1_SIGNED), JSON, B1, S),
            (Forge::Gitea, "x-gitea-signature", B1_SIGNED.to_owned(), JSON, B1, S),
            (Forge::Forgejo, "x-forgejo-signature", B1_SIGNED.to_owned(), JSON, B1, S),
            // GitHub signs the form, the others what is in it.
            (Forge::GitHub, "x-hub-signature-256", with(FORM_SIGNED), AS_FORM, FORM, S),
            (Forge::Gitea, "x-gitea-signature", B1_SIGNED.to_owned(), AS_FORM, FORM, S),
        ];
        for (forge, name, value, kind, body, secret) in cases {
            let kind = ("content-type", kind.1);
            assert!(check(forge, &[(name, &value), kind], body, secret), "{forge} {value}");
            let mut wrong = value.clone();
            let last = if wrong.pop() == Some('f') { 'e' } else { 'f' };
            wrong.push(last);
            let empty = value[..value.len() - 64].to_owned();
            for bad in [wrong, empty, value[..value.len() - 2].to_owned()] {
                assert!(!check(forge, &[(name, &bad), kind], body, secret), "{forge} {bad}");
            }
            assert!(!check(forge, &[kind], body, secret));
            assert!(!check(forge, &[(name, &value), (name, &value), kind], body, secret), "two signatures");
        }
        let json_signed = format!("sha256={B1_SIGNED}");
        assert!(!check(Forge::GitHub, &[("x-hub-signature-256", &json_signed), AS_FORM], FORM, S));
        assert!(!check(Forge::Gitea, &[("x-gitea-signature", FORM_SIGNED), AS_FORM], FORM, S));
        assert!(!check(Forge::GitHub, &[("x-hub-signature", "sha1=00"), JSON], B1, S));
        // A right one of Gitea does not rescue a wrong one of Forgejo.
        let both = [("x-forgejo-signature", FORM_SIGNED), ("x-gitea-signature", B1_SIGNED), JSON];
        assert!(!check(Forge::Forgejo, &both, B1, S));
        let unicode = "sha256=adb0d8a0a98787252c25640ec0e90a195076642237f8147d7de5b66eca4c425d";
        let body = "{\"m\":\"héllo 日本\"}".as_bytes();
        assert!(check(Forge::GitHub, &[("x-hub-signature-256", unicode), JSON], body, "clé"));
        let published = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let secret = "It's a Secret to Everybody";
        assert!(check(Forge::GitHub, &[("x-hub-signature-256", published), JSON], b"Hello, World!", secret));
    }

    #[test]
    fn a_token_is_compared_whole_and_a_signed_time_holds_for_minutes() {
        let token =
            |given: &'static str| check(Forge::GitLab, &[("x-gitlab-token", given), JSON], B1, "se cret");
        assert!(
            token("se cret") && !token("se cre") && !token("se crett") && !token("se cret ") && !token("")
        );
        const SECRET: &str = "whsec_c2lnbmluZy1rZXktZm9yLXRlc3RzLW9ubHktMDEyMzQ1";
        const SIGNED: &str = "v1,Jz6tj60KQ9PCkAGPJ4TBGXVO/78GmDkzxNt/lfSInLo=";
        let all = |time: &'static str, signed: &'static str| {
            [("webhook-id", "msg_1"), ("webhook-timestamp", time), ("webhook-signature", signed), JSON]
        };
        assert!(check(Forge::GitLab, &all("1700000000", SIGNED), B1, SECRET));
        assert!(check(
            Forge::GitLab,
            &all("1700000000", "v1,AAAA v1,Jz6tj60KQ9PCkAGPJ4TBGXVO/78GmDkzxNt/lfSInLo="),
            B1,
            SECRET
        ));
        assert!(!check(Forge::GitLab, &all("1700000001", SIGNED), B1, SECRET));
        let headers = headers(&all("1700000000", SIGNED));
        let content = BodyContent::of(&headers, B1).unwrap();
        let later = |seconds: u64| {
            let now = Millis((1_700_000_000 + seconds) * 1000);
            verify(Forge::GitLab, &headers, &content, &[Secret::new(SECRET)], now)
        };
        assert!(later(299).is_ok() && later(600).is_err_and(|why| why.contains("5 minutes")));
    }

    #[test]
    fn senders_are_told_apart_though_some_send_headers_of_others() {
        let of = |names: &[&'static str]| {
            let all: Vec<_> = names.iter().map(|name| (*name, "push")).collect();
            sender(&headers(&all))
        };
        assert_eq!(of(&["x-github-event"]), Some(Forge::GitHub));
        assert_eq!(of(&["x-github-event", "x-gitea-event"]), Some(Forge::Gitea));
        assert_eq!(of(&["x-github-event", "x-gitea-event", "x-forgejo-event"]), Some(Forge::Forgejo));
        assert_eq!(of(&["x-event-key", "x-hook-uuid"]), Some(Forge::BitbucketCloud));
        assert_eq!(of(&["x-event-key"]), Some(Forge::BitbucketDc));
        assert_eq!(of(&["x-gitlab-event"]), Some(Forge::GitLab));
        assert_eq!(of(&[]), None);
    }
}
