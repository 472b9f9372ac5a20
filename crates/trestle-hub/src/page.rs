//! A page of a channel's history, as a client asks for it.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use trestle_bus::{BusError, Stored};
use trestle_codec::Page;
use trestle_wire::{ChannelName, Reason, Refusal, v1};

use crate::{Hub, listen::Core, room::Past};

/// How long a client waits for a page: twice the store's time limit of 3 s, and a log that is behind.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages as they are stored, the offset before the first of them, and whether there are more.
struct Cut {
    stored: Vec<Stored>,
    previous: u64,
    more: bool,
}

impl Hub {
    /// At most `limit` messages of the history of `channel`, and at most half an outbox of bytes. After an offset that the
    /// channel does not have there are none, and the page's own `offset` is smaller: that log was lost.
    ///
    /// # Errors
    /// `unknown_namespace`, `no_history`; `bus_away` or `timeout` if the log cannot be read.
    pub async fn page(
        self: &Arc<Self>,
        channel: &ChannelName,
        page: Page,
        limit: u32,
    ) -> Result<v1::HistoryPage, Refusal> {
        let namespace = self.core.channels.of(channel)?;
        let past = self.core.past(channel, namespace).ok_or_else(|| {
            let message = format!("the namespace {} keeps no history", channel.namespace());
            Refusal::new(Reason::NoHistory, message).field("channel")
        })?;
        let read = timeout(PAGE_TIMEOUT, self.core.page(&past, page, limit.max(1) as usize));
        Ok(read.await.unwrap_or(Err(BusError::Timeout(PAGE_TIMEOUT)))?)
    }
}

impl Core {
    async fn page(&self, past: &Past, page: Page, limit: usize) -> Result<v1::HistoryPage, BusError> {
        let last = self.last(past).await?;
        let Cut { stored, previous, more } = match page {
            Page::After(after) => self.page_after(past, after, last, limit).await?,
            Page::Before(0) => self.page_before(past, last.saturating_add(1), limit).await?,
            Page::Before(before) => self.page_before(past, before, limit).await?,
        };
        let messages = self.envelopes(stored, previous).collect();
        Ok(v1::HistoryPage { channel: past.channel.to_string(), messages, more, offset: last })
    }

    async fn page_after(&self, past: &Past, after: u64, last: u64, limit: usize) -> Result<Cut, BusError> {
        // One more than the page at each end: what comes before says the first message's previous one.
        let most = (limit + 2, self.page_bytes_max.saturating_mul(2));
        let mut read = self.read(past, after, last, most).await?;
        if read.stored.is_empty() && !read.complete {
            return Err(BusError::Away); // it is there, but is not shown
        }
        let known = usize::from(read.stored.first().is_some_and(|first| first.offset == after));
        read.stored.drain(..known);
        let fits = self.fitting(&read.stored, limit);
        let more = fits < read.stored.len() || !read.complete;
        read.stored.truncate(fits);
        Ok(Cut { stored: read.stored, previous: if known > 0 { after } else { 0 }, more })
    }

    async fn page_before(&self, past: &Past, end: u64, limit: usize) -> Result<Cut, BusError> {
        let mut found = self.read_back(past, end, limit + 1).await?;
        found.make_contiguous().reverse();
        let mut stored = Vec::from(found);
        let fits = self.fitting(&stored, limit);
        let previous = stored.get(fits).map(|before| before.offset);
        stored.truncate(fits);
        stored.reverse();
        Ok(Cut { stored, previous: previous.unwrap_or(0), more: previous.is_some() })
    }

    /// How many of `stored` fit into a page: one at least.
    fn fitting(&self, stored: &[Stored], limit: usize) -> usize {
        let mut bytes = 0;
        let fits = stored.iter().take(limit).take_while(|one| {
            bytes += one.payload.len();
            bytes <= self.page_bytes_max
        });
        fits.count().max(1).min(stored.len())
    }
}
