//! Tokens of the clients, signed once for all seeds.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
};

use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use serde_json::json;

use crate::cluster::SECRET;

static TOKENS: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

/// The token of a user in `groups`; empty for nobody.
pub(crate) fn of(user: Option<&str>, groups: &[&str]) -> String {
    let Some(user) = user else { return String::new() };
    let mut tokens = TOKENS.lock().expect("no seed fails here");
    let token = tokens.entry(format!("{user} {groups:?}")).or_insert_with(|| {
        let claims = json!({ "sub": user, "exp": get_current_timestamp() + 24 * 60 * 60, "groups": groups });
        encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)).expect("claims are JSON")
    });
    token.clone()
}
