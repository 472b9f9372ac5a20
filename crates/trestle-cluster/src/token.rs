//! Resume tokens: what a client shows to come back to its session.
//!
//! A token is the base64url of a [`v1::ResumeClaims`], a dot, and the base64url of its HMAC-SHA256 (RFC 2104). It holds all
//! that a node must know to take the client in; that it serves once is the [`Registry`](crate::Registry)'s work.

use std::{sync::Arc, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use prost::Message as _;
use ring::hmac;
use trestle_wire::{GroupName, SessionId, Tags, UserId, selector, v1};

/// Longest token that is looked at: 64 groups of 128 B, 32 tags of 320 B and scopes fit thrice over.
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// Bytes of a key, and at least of a secret: those of the hash (RFC 2104, 3).
pub(crate) const KEY_BYTES: usize = 32;

/// Stands before what is signed, so that a signature made with the same secret for another purpose is worth nothing.
const PURPOSE: &[u8] = b"trestle.v1.resume\0";

/// What a resume token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The session it resumes.
    pub session: SessionId,
    /// How often the session was resumed before, counted from [`FIRST_EPOCH`](crate::FIRST_EPOCH).
    pub epoch: u64,
    /// The epoch in which the stream began whose frames the client counts.
    pub begun: u64,
    /// When it was given out.
    pub issued: SystemTime,
    /// When it is worth nothing any more.
    pub expires: SystemTime,
    /// When the client's own token expires, so that what it allowed ends however often the session is resumed; `None` for
    /// an anonymous client.
    pub identity_expires: Option<SystemTime>,
    /// Who the session belongs to; `None` for an anonymous client.
    pub user: Option<UserId>,
    /// What the client's own token allowed.
    pub scopes: Vec<String>,
    /// Groups that the client's own token named.
    pub groups: Vec<GroupName>,
    /// Tags that the client's own token gave.
    pub tags: Tags,
}

/// Why a resume token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// It is not of the form of a token.
    #[error("the resume token is not one of this gateway's")]
    Malformed,
    /// Its signature does not fit: it was changed, or signed with another secret.
    #[error("the resume token is not signed with this gateway's secret")]
    Forged,
    /// Its time is over.
    #[error("the resume token has expired")]
    Expired,
}

/// Signs and checks tokens.
#[derive(Clone)]
pub(crate) struct Signer {
    key: Arc<hmac::Key>,
}

impl Signer {
    /// With a secret of at least [`KEY_BYTES`].
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self { key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret)) }
    }

    /// The token that says `ticket`.
    pub(crate) fn issue(&self, ticket: &Ticket) -> String {
        let claims = v1::ResumeClaims {
            session_id: ticket.session.as_str().into(),
            epoch: ticket.epoch,
            begun: ticket.begun,
            issued: Some(ticket.issued.into()),
            expires: Some(ticket.expires.into()),
            identity_expires: ticket.identity_expires.map(Into::into),
            user: ticket.user.as_ref().map(|user| user.as_str().into()).unwrap_or_default(),
            scopes: ticket.scopes.clone(),
            groups: ticket.groups.iter().map(|group| group.as_str().into()).collect(),
            tags: ticket.tags.clone(),
        };
        let claims = claims.encode_to_vec();
        let signature = hmac::sign(&self.key, &signed(&claims));
        format!("{}.{}", BASE64.encode(claims), BASE64.encode(signature))
    }

    /// What `token` says, if it is signed with this key and its time is not over at `now`.
    pub(crate) fn read(&self, token: &str, now: SystemTime) -> Result<Ticket, TokenRefused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefused::Malformed);
        }
        let (claims, signature) = token.split_once('.').ok_or(TokenRefused::Malformed)?;
        let decode = |text| BASE64.decode(text).map_err(|_| TokenRefused::Malformed);
        let (claims, signature) = (decode(claims)?, decode(signature)?);
        // In constant time, and before anything in it is looked at.
        hmac::verify(&self.key, &signed(&claims), &signature).map_err(|_| TokenRefused::Forged)?;
        let ticket = parse(&claims).ok_or(TokenRefused::Malformed)?;
        if ticket.expires <= now { Err(TokenRefused::Expired) } else { Ok(ticket) }
    }
}

fn signed(claims: &[u8]) -> Vec<u8> {
    [PURPOSE, claims].concat()
}

/// A node of another version may have signed what this one does not take.
fn parse(claims: &[u8]) -> Option<Ticket> {
    let claims = v1::ResumeClaims::decode(claims).ok()?;
    let user = if claims.user.is_empty() { None } else { Some(UserId::parse(&claims.user).ok()?) };
    if claims.tags.iter().any(|(key, value)| selector::check_tag(key, value).is_err()) {
        return None;
    }
    Some(Ticket {
        session: SessionId::parse(&claims.session_id).ok()?,
        epoch: claims.epoch,
        begun: claims.begun,
        issued: claims.issued?.try_into().ok()?,
        expires: claims.expires?.try_into().ok()?,
        identity_expires: claims.identity_expires.map(TryInto::try_into).transpose().ok()?,
        user,
        scopes: claims.scopes,
        groups: claims.groups.iter().map(|group| GroupName::parse(group)).collect::<Result<_, _>>().ok()?,
        tags: claims.tags,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use trestle_wire::NodeId;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + NOW
    }

    fn ticket() -> Ticket {
        Ticket {
            session: SessionId::new(&NodeId::parse("edge-1").unwrap(), 7),
            epoch: 3,
            begun: 2,
            issued: now(),
            expires: now() + Duration::from_secs(60),
            identity_expires: None,
            user: Some(UserId::parse("anna").unwrap()),
            scopes: vec!["chat".into()],
            groups: vec![GroupName::parse("staff").unwrap()],
            tags: Tags::from([("plan".into(), "pro".into())]),
        }
    }

    fn signer() -> Signer {
        Signer::new(b"a secret of thirty-two bytes ok!")
    }

    prop_compose! {
        fn tickets()(
            random: u128, epoch: u64, begun: u64, life in 1_u64..1_000_000, nanos in 0_u32..1_000_000_000,
            user in proptest::option::of("[a-z]{1,20}"), scopes in proptest::collection::vec(".{0,8}", 0..4),
            groups in proptest::collection::vec("[a-z]{1,8}", 0..4),
            tags in proptest::collection::btree_map("[a-z]{1,3}x", "[ -~]{0,8}", 0..4),
        ) -> Ticket {
            Ticket {
                session: SessionId::new(&NodeId::parse("n").unwrap(), random),
                epoch,
                begun,
                issued: now() + Duration::from_nanos(nanos.into()),
                expires: now() + Duration::new(life, nanos),
                identity_expires: None,
                user: user.map(|user| UserId::parse(&user).unwrap()),
                scopes,
                groups: groups.iter().map(|group| GroupName::parse(group).unwrap()).collect(),
                tags,
            }
        }
    }

    proptest! {
        #[test]
        fn a_token_says_what_was_put_in(ticket in tickets()) {
            prop_assert_eq!(signer().read(&signer().issue(&ticket), now()), Ok(ticket));
        }

        #[test]
        fn no_changed_byte_is_accepted(ticket in tickets(), at: prop::sample::Index, byte: u8) {
            let token = signer().issue(&ticket);
            let mut changed = token.clone().into_bytes();
            let at = at.index(changed.len());
            prop_assume!(changed[at] != byte);
            changed[at] = byte;
            // What is no text cannot come from a client at all.
            if let Ok(changed) = String::from_utf8(changed) {
                prop_assert!(signer().read(&changed, now()).is_err());
            }
        }

        #[test]
        fn no_cut_and_no_addition_is_accepted(ticket in tickets(), at: prop::sample::Index, more in "[A-Za-z0-9_.-]{1,8}") {
            let token = signer().issue(&ticket);
            prop_assert!(signer().read(&token[..at.index(token.len())], now()).is_err());
            for longer in [format!("{token}{more}"), format!("{more}{token}")] {
                prop_assert!(signer().read(&longer, now()).is_err());
            }
        }

        #[test]
        fn garbage_is_refused(token in ".{0,200}") {
            prop_assert!(signer().read(&token, now()).is_err());
        }
    }

    #[test]
    fn every_single_byte_counts() {
        let token = signer().issue(&ticket());
        for at in 0..token.len() {
            for other in b"ABCz09-_.=" {
                let mut changed = token.clone().into_bytes();
                if changed[at] != *other {
                    changed[at] = *other;
                    let changed = String::from_utf8(changed).unwrap();
                    assert!(signer().read(&changed, now()).is_err(), "byte {at}");
                }
            }
        }
    }

    #[test]
    fn another_secret_signs_for_nobody_here() {
        let token = Signer::new(b"another secret of 32 bytes, so it").issue(&ticket());
        assert_eq!(signer().read(&token, now()), Err(TokenRefused::Forged));
    }

    #[test]
    fn a_token_ends_at_its_moment() {
        let token = signer().issue(&ticket());
        let expires = ticket().expires;
        assert!(signer().read(&token, expires - Duration::from_nanos(1)).is_ok());
        assert_eq!(signer().read(&token, expires), Err(TokenRefused::Expired));
    }

    #[test]
    fn a_megabyte_is_not_even_looked_at() {
        assert_eq!(signer().read(&"A".repeat(1 << 20), now()), Err(TokenRefused::Malformed));
    }
}
