//! What a stream holds, read so that nothing looks gone that is there.
//!
//! A stream with several replicas lets any of them answer a direct get, and one may lag behind. What must be exact is
//! asked of the stream's leader. What is read in batches comes from any replica, side by side with the leader's word on
//! how far the stream goes; what a replica does not have yet is asked of the leader. A replica has a prefix of what the
//! leader has, so nothing is missing in the middle.

use std::time::Duration;

use async_nats::{
    HeaderMap, Message, StatusCode,
    jetstream::{message::StreamMessage, stream::RawMessage},
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout};
use trestle_bus::BusError;

use crate::{
    jetstream::{Fault, code, number},
    link::Link,
};

/// Messages asked for in one request. The server sends them as fast as it can, into a queue of 64 Ki.
const READ_AT_ONCE_MAX: usize = 1_024;

#[derive(Deserialize)]
struct Got {
    message: RawMessage,
}

impl Link {
    /// The last message of one subject, as the leader of the stream has it.
    pub(crate) async fn last_of(&self, stream: &str, subject: &str) -> Result<Option<StreamMessage>, Fault> {
        if self.config.replicas > 1 {
            return self.leaders(stream, &json!({ "last_by_subj": subject })).await;
        }
        // The only replica is the leader, and a direct get spares the API's queue and base64.
        let answer = self.ask(format!("$JS.API.DIRECT.GET.{stream}.{subject}"), HeaderMap::new(), Bytes::new()).await?;
        match answer.status {
            None => stored(answer).map(Some),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(_) => Err(said(answer)),
        }
    }

    /// Up to `most` messages whose subjects `filter` matches, oldest first, from sequence `from` on. Fewer only if there
    /// were no more: what was stored before this call is not left out, whichever replica answers.
    pub(crate) async fn read(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
        most: usize,
    ) -> Result<Vec<StreamMessage>, Fault> {
        let (mut read, mut from) = (Vec::new(), from.max(1));
        while read.len() < most {
            let asked = (most - read.len()).min(READ_AT_ONCE_MAX);
            let batch = self.batch(stream, filter, from, asked);
            let (reaches, (some, more)) = tokio::try_join!(self.reaches(stream, filter), batch)?;
            from = some.last().map_or(from, |last| last.sequence + 1);
            read.extend(some);
            if more || read.len() >= most {
                continue;
            }
            if from > reaches {
                break;
            }
            match self.leaders(stream, &json!({ "seq": from, "next_by_subj": filter })).await? {
                Some(next) => {
                    from = next.sequence + 1;
                    read.push(next);
                }
                None => break, // removed meanwhile
            }
        }
        Ok(read)
    }

    /// Sequence of the last message that `filter` matches, on the leader; 0 where whoever answers is the leader.
    pub(crate) async fn reaches(&self, stream: &str, filter: &str) -> Result<u64, Fault> {
        if self.config.replicas == 1 {
            return Ok(0);
        }
        let last = self.leaders(stream, &json!({ "last_by_subj": filter })).await?;
        Ok(last.map_or(0, |last| last.sequence))
    }

    /// Sequence of the last message that the stream has stored, as its leader has it, also if that is gone.
    pub(crate) async fn reached(&self, stream: &str) -> Result<u64, Fault> {
        let info = self.api(&format!("STREAM.INFO.{stream}"), &json!({})).await?;
        info["state"]["last_seq"].as_u64().ok_or_else(|| unreadable(&"a stream without `state.last_seq`"))
    }

    /// One message from the leader of the stream.
    async fn leaders(&self, stream: &str, which: &serde_json::Value) -> Result<Option<StreamMessage>, Fault> {
        let answer = match self.api(&format!("STREAM.MSG.GET.{stream}"), which).await {
            Err(Fault::Refused { code: code::NO_MESSAGE, .. }) => return Ok(None),
            answer => answer?,
        };
        let got = serde_json::from_value::<Got>(answer).map_err(|error| unreadable(&error))?;
        StreamMessage::try_from(got.message).map(Some).map_err(|error| unreadable(&error))
    }

    /// One batch of direct gets from some replica: the messages, and whether it has more.
    async fn batch(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
        most: usize,
    ) -> Result<(Vec<StreamMessage>, bool), Fault> {
        self.check()?;
        let (began, mut breaks) = (Instant::now(), self.breaks());
        let refused = |error: &dyn std::fmt::Display| Fault::Bus(BusError::Refused(error.to_string()));
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|error| refused(&error))?;
        let request = json!({ "seq": from, "next_by_subj": filter, "batch": most }).to_string();
        let asked = self.client.publish_with_reply(format!("$JS.API.DIRECT.GET.{stream}"), inbox, request.into());
        asked.await.map_err(|error| refused(&error))?;
        let mut read = Vec::new();
        loop {
            let patience: Duration = self.config.request_timeout;
            let message = tokio::select! {
                next = timeout(patience, answers.next()) => next.map_err(|_| BusError::Timeout(began.elapsed()))?,
                _ = breaks.changed() => return Err(BusError::Away.into()),
            };
            let message = message.ok_or(BusError::Away)?;
            match message.status {
                None => read.push(stored(message)?),
                // The end of the batch says how many messages of the subject come after it.
                Some(status) if u16::from(status) == 204 => {
                    let pending = number(message.headers.as_ref(), "Nats-Num-Pending").unwrap_or(0);
                    return Ok((read, pending > 0));
                }
                Some(StatusCode::NOT_FOUND) => return Ok((read, false)),
                Some(StatusCode::NO_RESPONDERS) => return Err(Fault::Nobody),
                Some(_) => return Err(said(message)),
            }
        }
    }
}

/// A message that was got directly, with its place from its headers.
fn stored(answer: Message) -> Result<StreamMessage, Fault> {
    StreamMessage::try_from(answer).map_err(|error| unreadable(&error))
}

fn said(answer: Message) -> Fault {
    let code = answer.status.map_or(0, u16::from);
    Fault::Refused { code, said: answer.description.unwrap_or_default().to_string() }
}

fn unreadable(error: &dyn std::fmt::Display) -> Fault {
    BusError::Refused(format!("a message that JetStream holds cannot be read: {error}")).into()
}
