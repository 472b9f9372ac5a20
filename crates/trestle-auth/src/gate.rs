//! Token in, identity out.

use std::{path::PathBuf, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use trestle_wire::{Reason, Refusal};

use crate::{Identity, claims::Claims};

/// Shortest HMAC secret, in bytes: that of its hash (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Who may connect.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Whether clients without a token may connect. Convenient on a developer's machine; turn it off elsewhere.
    pub anonymous: bool,
    /// File with the secret of HS256 tokens, at least 32 bytes; white space at its end is ignored. Without it no token
    /// is accepted. `sub` is the user, `scope` the scopes separated by spaces, `groups` an array of the groups that the user's
    /// sessions are in (at most 32), `tags` an object of their tags (at most 32); `sub` and `exp` are required.
    pub hs256_secret_file: Option<PathBuf>,
    /// Value that a token's `iss` must have, if set.
    pub issuer: Option<String>,
    /// Value that a token's `aud` must hold, if set.
    pub audience: Option<String>,
    /// How far the clocks of token maker and gateway may differ, for `exp` and `nbf`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub leeway: Duration,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { anonymous: true, hs256_secret_file: None, issuer: None, audience: None, leeway: Duration::from_secs(30) }
    }
}

/// Why the gate could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The secret cannot be read.
    #[error("auth.hs256_secret_file: cannot read {path}")]
    Secret {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The secret is too short to be one.
    #[error(
        "auth.hs256_secret_file: {path} holds {bytes} bytes, at least {SECRET_BYTES_MIN} are needed (openssl rand -hex 32)"
    )]
    Short {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Nobody could ever connect.
    #[error("auth.anonymous is false and auth.hs256_secret_file is not set: nobody could connect; set one of the two")]
    Closed,
}

/// Lets clients in.
pub struct Gate {
    anonymous: bool,
    key: Option<(DecodingKey, Validation)>,
}

impl Gate {
    /// Reads the keys that `config` names.
    ///
    /// # Errors
    /// [`AuthError`] names the key of the config.
    pub fn open(config: &AuthConfig) -> Result<Self, AuthError> {
        let Some(path) = &config.hs256_secret_file else {
            return if config.anonymous { Ok(Self { anonymous: true, key: None }) } else { Err(AuthError::Closed) };
        };
        let secret = std::fs::read(path).map_err(|source| AuthError::Secret { path: path.clone(), source })?;
        let secret = secret.trim_ascii_end();
        if secret.len() < SECRET_BYTES_MIN {
            return Err(AuthError::Short { path: path.clone(), bytes: secret.len() });
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = config.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "sub"]);
        if let Some(issuer) = &config.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".into());
        }
        match &config.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".into());
            }
            None => validation.validate_aud = false,
        }
        Ok(Self { anonymous: config.anonymous, key: Some((DecodingKey::from_secret(secret), validation)) })
    }

    /// Who comes with `token`.
    ///
    /// # Errors
    /// [`Reason::TokenMissing`], [`Reason::TokenInvalid`], [`Reason::TokenExpired`].
    pub fn admit(&self, token: Option<&str>) -> Result<Identity, Refusal> {
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            return if self.anonymous {
                Ok(Identity::default())
            } else {
                Err(Refusal::new(Reason::TokenMissing, "a token is needed here; send it in connect.token"))
            };
        };
        let invalid = |what: String| Refusal::new(Reason::TokenInvalid, what).field("connect.token");
        let Some((key, validation)) = &self.key else {
            return Err(invalid("this gateway knows no key to check tokens with; connect without one".into()));
        };
        let claims = decode::<Claims>(token, key, validation).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => {
                Refusal::new(Reason::TokenExpired, "the token has expired; get a new one").field("connect.token")
            }
            _ => invalid(format!("the token is not accepted: {error}")),
        })?;
        claims.claims.identity().map_err(invalid)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};
    use trestle_wire::UserId;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const FAR: u64 = 4_000_000_000;

    fn gate(change: impl FnOnce(&mut AuthConfig)) -> Gate {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, format!("{SECRET}\n")).unwrap();
        let mut config = AuthConfig { hs256_secret_file: Some(path), anonymous: false, ..AuthConfig::default() };
        change(&mut config);
        Gate::open(&config).unwrap()
    }

    fn token(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    #[test]
    fn a_good_token_gives_user_and_scopes() {
        let token = token(Algorithm::HS256, SECRET, &json!({"sub": "ann", "scope": "chat orders", "exp": FAR}));
        let ann = gate(|_| ()).admit(Some(&token)).unwrap();
        assert_eq!(ann.user.as_ref().map(UserId::as_str), Some("ann"));
        assert_eq!(ann.expires, Some(std::time::UNIX_EPOCH + Duration::from_secs(FAR)));
        assert!(ann.has_scopes(&["orders".into()]).is_ok());
        let refusal = ann.has_scopes(&["orders".into(), "admin".into()]).unwrap_err();
        assert_eq!((refusal.reason, refusal.message.contains("admin")), (Reason::MissingScope, true));
    }

    #[test]
    fn bad_tokens_are_refused_each_for_its_reason() {
        let good = json!({"sub": "ann", "exp": FAR});
        for (token, reason) in [
            (String::new(), Reason::TokenMissing),
            ("x.y.z".into(), Reason::TokenInvalid),
            (token(Algorithm::HS256, "another secret of enough length!", &good), Reason::TokenInvalid),
            (token(Algorithm::HS512, SECRET, &good), Reason::TokenInvalid),
            (token(Algorithm::HS256, SECRET, &json!({"sub": "ann", "exp": 1000})), Reason::TokenExpired),
            (token(Algorithm::HS256, SECRET, &json!({"sub": "ann"})), Reason::TokenInvalid),
            (token(Algorithm::HS256, SECRET, &json!({"exp": FAR})), Reason::TokenInvalid),
            (token(Algorithm::HS256, SECRET, &json!({"sub": "a\nb", "exp": FAR})), Reason::TokenInvalid),
            (token(Algorithm::HS256, SECRET, &json!({"sub": "ann", "exp": FAR, "nbf": FAR})), Reason::TokenInvalid),
            (
                token(Algorithm::HS256, SECRET, &json!({"sub": "ann", "exp": FAR, "groups": ["*"]})),
                Reason::TokenInvalid,
            ),
            (
                token(Algorithm::HS256, SECRET, &json!({"sub": "ann", "exp": FAR, "tags": {"": 1}})),
                Reason::TokenInvalid,
            ),
        ] {
            assert_eq!(gate(|_| ()).admit(Some(&token)).unwrap_err().reason, reason, "{token}");
        }
    }

    #[test]
    fn issuer_and_audience_are_required_when_configured() {
        let strict = gate(|config| {
            config.issuer = Some("https://id.example".into());
            config.audience = Some("chat".into());
        });
        let admit = |claims: &Value| strict.admit(Some(&token(Algorithm::HS256, SECRET, claims)));
        assert!(admit(&json!({"sub": "ann", "exp": FAR, "iss": "https://id.example", "aud": "chat"})).is_ok());
        assert!(admit(&json!({"sub": "ann", "exp": FAR, "iss": "https://id.example"})).is_err());
        assert!(admit(&json!({"sub": "ann", "exp": FAR, "aud": "chat"})).is_err());
    }

    #[test]
    fn anonymous_clients_come_in_only_where_they_may() {
        assert_eq!(gate(|config| config.anonymous = true).admit(None), Ok(Identity::default()));
        assert_eq!(gate(|_| ()).admit(None).unwrap_err().reason, Reason::TokenMissing);
        let closed = AuthConfig { anonymous: false, ..AuthConfig::default() };
        assert!(matches!(Gate::open(&closed), Err(AuthError::Closed)));
    }
}
