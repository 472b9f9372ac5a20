//! Claims of a verified token in, identity out.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;
use trestle_wire::{
    GroupName, Tags, UserId,
    selector::{TAGS_MAX, check_tag},
};

use crate::Identity;

/// Most groups that a token puts its sessions in: 32 subscriptions of the bus per session at worst, if nobody shares them.
const GROUPS_MAX: usize = 32;

/// What a token says, of what this gateway reads.
#[derive(Deserialize)]
pub(crate) struct Claims {
    sub: String,
    /// Seconds of Unix time (RFC 7519, 4.1.4); fractions are allowed there.
    exp: f64,
    #[serde(default)]
    scope: String,
    // Any value, so that a wrong one is refused by its name.
    #[serde(default)]
    groups: Value,
    #[serde(default)]
    tags: Value,
}

impl Claims {
    /// Who that is.
    ///
    /// # Errors
    /// A sentence that names the claim, and what in it is wrong.
    pub(crate) fn identity(self) -> Result<Identity, String> {
        Ok(Identity {
            user: Some(UserId::parse(&self.sub).map_err(|fault| format!("claim sub: {fault}"))?),
            scopes: self.scope.split_ascii_whitespace().map(str::to_owned).collect(),
            groups: groups(self.groups).map_err(|fault| format!("claim groups: {fault}"))?,
            tags: tags(self.tags).map_err(|fault| format!("claim tags: {fault}"))?,
            expires: Some(expiry(self.exp)),
        })
    }
}

/// A time that the clock cannot hold is as good as none: the end of the year 9999.
fn expiry(seconds: f64) -> SystemTime {
    const LATEST: u64 = 253_402_300_799;
    let since = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(LATEST));
    SystemTime::UNIX_EPOCH + since.min(Duration::from_secs(LATEST))
}

fn groups(claim: Value) -> Result<Vec<GroupName>, String> {
    let names = match claim {
        Value::Null => return Ok(Vec::new()),
        Value::Array(names) => names,
        _ => return Err("it must be an array of strings".to_owned()),
    };
    let mut groups = Vec::with_capacity(names.len().min(GROUPS_MAX));
    for (index, name) in names.iter().enumerate() {
        let Value::String(name) = name else { return Err(format!("element {index} is not a string")) };
        let group = GroupName::parse(name).map_err(|fault| fault.to_string())?;
        if groups.contains(&group) {
            continue;
        }
        if groups.len() == GROUPS_MAX {
            return Err(format!("there are more than {GROUPS_MAX}"));
        }
        groups.push(group);
    }
    Ok(groups)
}

fn tags(claim: Value) -> Result<Tags, String> {
    let given = match claim {
        Value::Null => return Ok(Tags::new()),
        Value::Object(given) => given,
        _ => return Err("it must be an object of strings".to_owned()),
    };
    if given.len() > TAGS_MAX {
        return Err(format!("there are {}, more than {TAGS_MAX}", given.len()));
    }
    let tag = |(key, value)| {
        let value = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                let key: String = key;
                let shown: String = key.chars().take(64).collect();
                return Err(format!("{shown:?} is not a string, number or boolean"));
            }
        };
        check_tag(&key, &value).map(|()| (key, value))
    };
    given.into_iter().map(tag).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(mut claims: Value) -> Result<Identity, String> {
        claims["sub"] = "ann".into();
        claims["exp"] = 4_000_000_000_u64.into();
        serde_json::from_value::<Claims>(claims).unwrap().identity()
    }

    #[test]
    fn groups_and_tags_come_from_the_token() {
        let ann = identity(json!({
            "groups": ["staff", "eu/berlin", "staff"],
            "tags": {"plan": "pro", "level": 3, "ratio": 0.5, "beta": true, "empty": ""},
        }))
        .unwrap();
        let groups: Vec<&str> = ann.groups.iter().map(GroupName::as_str).collect();
        assert_eq!(groups, ["staff", "eu/berlin"]);
        let tags = [("plan", "pro"), ("level", "3"), ("ratio", "0.5"), ("beta", "true"), ("empty", "")];
        assert_eq!(ann.tags, tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn a_token_without_them_or_with_null_gives_none() {
        let plain = identity(json!({})).unwrap();
        assert_eq!(plain.expires, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000)));
        assert_eq!((plain.groups.len(), plain.tags.len()), (0, 0));
        assert_eq!(identity(json!({"groups": null, "tags": null})), Ok(plain));
    }

    #[test]
    fn a_bad_one_is_refused_by_its_name() {
        let many = |n: usize| (0..n).map(|n| format!("g{n}")).collect::<Vec<_>>();
        let tags = |n: usize| many(n).into_iter().map(|key| (key, Value::from(1))).collect::<serde_json::Map<_, _>>();
        for (claims, said) in [
            (json!({"groups": "staff"}), "claim groups: it must be an array"),
            (json!({"groups": ["staff", 5]}), "claim groups: element 1"),
            (json!({"groups": ["a b"]}), "claim groups: group \"a b\""),
            (json!({"groups": ["staff", "x".repeat(129)]}), "claim groups: group \"xxx"),
            (json!({"groups": many(33)}), "claim groups: there are more than 32"),
            (json!({"tags": ["a"]}), "claim tags: it must be an object"),
            (json!({"tags": {"plan": null}}), "claim tags: \"plan\" is not a string, number or boolean"),
            (json!({"tags": {"plan": ["pro"]}}), "claim tags: \"plan\""),
            (json!({"tags": {"a b": "x"}}), "claim tags: tag key \"a b\""),
            (json!({"tags": {"plan": "x".repeat(257)}}), "claim tags: the value of tag plan"),
            (json!({"tags": tags(33)}), "claim tags: there are 33, more than 32"),
        ] {
            let fault = identity(claims.clone()).expect_err("a bad claim");
            assert!(fault.contains(said), "{claims}: {fault}");
        }
        assert_eq!(identity(json!({"groups": many(32), "tags": tags(32)})).unwrap().groups.len(), 32);
    }
}
