//! A client's JSON, the frames without a message of the company's: which fields each has.

use serde::de::{Error as _, MapAccess};
use trestle_schema::parse_timestamp;
use trestle_wire::v1::{self, read_history::Page, subscribe::From};

use super::object::{Fields, Value};

/// Takes one case of a oneof, which may be there once. `null` is no case.
fn one_of<T, E: serde::de::Error>(oneof: &mut Option<T>, case: Option<T>, others: &str) -> Result<(), E> {
    match case {
        Some(_) if oneof.is_some() => Err(E::custom(format_args!("only one of {others} may be there"))),
        None => Ok(()),
        case => {
            *oneof = case;
            Ok(())
        }
    }
}

impl<'de> Fields<'de> for v1::Connect {
    const WHAT: &'static str = "a connect";
    const FIELDS: &'static [(&'static str, &'static str)] = &[("token", "token"), ("resume", "resume")];

    fn take<A: MapAccess<'de>>(&mut self, name: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        match name {
            "token" => self.token = value.text()?.unwrap_or_default(),
            _ => self.resume = value.object()?,
        }
        Ok(())
    }
}

impl<'de> Fields<'de> for v1::Resume {
    const WHAT: &'static str = "a resume";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("sessionId", "session_id"),
        ("token", "token"),
        ("received", "received"),
        ("channels", "channels"),
        ("outstanding", "outstanding"),
    ];

    fn take<A: MapAccess<'de>>(&mut self, name: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        match name {
            "sessionId" => self.session_id = value.text()?.unwrap_or_default(),
            "token" => self.token = value.text()?.unwrap_or_default(),
            "received" => self.received = value.unsigned_64()?,
            "channels" => self.channels = value.objects()?,
            _ => self.outstanding = value.numbers()?,
        }
        Ok(())
    }
}

impl<'de> Fields<'de> for v1::Position {
    const WHAT: &'static str = "a position";
    const FIELDS: &'static [(&'static str, &'static str)] = &[("channel", "channel"), ("offset", "offset")];

    fn take<A: MapAccess<'de>>(&mut self, name: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        match name {
            "channel" => self.channel = value.text()?.unwrap_or_default(),
            _ => self.offset = value.unsigned_64()?.unwrap_or_default(),
        }
        Ok(())
    }
}

impl<'de> Fields<'de> for v1::Subscribe {
    const WHAT: &'static str = "a subscribe";
    const FIELDS: &'static [(&'static str, &'static str)] =
        &[("channel", "channel"), ("offset", "offset"), ("last", "last"), ("since", "since"), ("presence", "presence")];

    fn take<A: MapAccess<'de>>(&mut self, name: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        let from = match name {
            "channel" => {
                self.channel = value.text()?.unwrap_or_default();
                return Ok(());
            }
            "presence" => {
                self.presence = value.boolean()?;
                return Ok(());
            }
            "offset" => value.unsigned_64()?.map(From::Offset),
            "last" => value.unsigned_32()?.map(From::Last),
            _ => {
                let time = value.text()?.map(|text| parse_timestamp(&text));
                time.transpose().map_err(A::Error::custom)?.map(From::Since)
            }
        };
        one_of(&mut self.from, from, "`offset`, `last` and `since`")
    }
}

impl<'de> Fields<'de> for v1::Unsubscribe {
    const WHAT: &'static str = "an unsubscribe";
    const FIELDS: &'static [(&'static str, &'static str)] = &[("channel", "channel")];

    fn take<A: MapAccess<'de>>(&mut self, _: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        self.channel = value.text()?.unwrap_or_default();
        Ok(())
    }
}

impl<'de> Fields<'de> for v1::ClientAck {
    const WHAT: &'static str = "an ack";
    const FIELDS: &'static [(&'static str, &'static str)] =
        &[("received", "received"), ("inboxOffset", "inbox_offset")];

    fn take<A: MapAccess<'de>>(&mut self, name: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        let number = value.unsigned_64()?.unwrap_or_default();
        match name {
            "received" => self.received = number,
            _ => self.inbox_offset = number,
        }
        Ok(())
    }
}

impl<'de> Fields<'de> for v1::ReadHistory {
    const WHAT: &'static str = "a history";
    const FIELDS: &'static [(&'static str, &'static str)] =
        &[("channel", "channel"), ("after", "after"), ("before", "before"), ("limit", "limit")];

    fn take<A: MapAccess<'de>>(&mut self, name: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        let page = match name {
            "channel" => {
                self.channel = value.text()?.unwrap_or_default();
                return Ok(());
            }
            "limit" => {
                self.limit = value.unsigned_32()?.unwrap_or_default();
                return Ok(());
            }
            "after" => value.unsigned_64()?.map(Page::After),
            _ => value.unsigned_64()?.map(Page::Before),
        };
        one_of(&mut self.page, page, "`after` and `before`")
    }
}

impl<'de> Fields<'de> for v1::ReadPresence {
    const WHAT: &'static str = "a presence";
    const FIELDS: &'static [(&'static str, &'static str)] = &[("channel", "channel")];

    fn take<A: MapAccess<'de>>(&mut self, _: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        self.channel = value.text()?.unwrap_or_default();
        Ok(())
    }
}

impl<'de> Fields<'de> for v1::Ping {
    const WHAT: &'static str = "a ping";
    const FIELDS: &'static [(&'static str, &'static str)] = &[];

    fn take<A: MapAccess<'de>>(&mut self, _: &'static str, _: Value<'_, A>) -> Result<(), A::Error> {
        Ok(()) // no field leads here
    }
}
