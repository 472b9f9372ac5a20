//! Numbers for the channels that a session's records are of.

use std::collections::HashMap;

use trestle_wire::ChannelName;

/// The channels of what is on the disk for one session, each with a number. A name stays in memory, once, while a record of it
/// is on the disk: at most as many as there are records.
#[derive(Default)]
pub(crate) struct Channels {
    numbers: HashMap<ChannelName, u32>,
    /// By number less one: the name, and how many records are of it.
    names: Vec<Option<(ChannelName, usize)>>,
    free: Vec<u32>,
}

impl Channels {
    /// The number of `channel` for one more record; 0 for none.
    pub(crate) fn enter(&mut self, channel: Option<&ChannelName>) -> u32 {
        let Some(channel) = channel else { return 0 };
        if let Some(&number) = self.numbers.get(channel) {
            if let Some((_, records)) = &mut self.names[number as usize - 1] {
                *records += 1;
            }
            return number;
        }
        let named = Some((channel.clone(), 1));
        let number = match self.free.pop() {
            Some(number) => {
                self.names[number as usize - 1] = named;
                number
            }
            None => {
                self.names.push(named);
                // 38 bytes a record x 2^32 are 152 GiB of one session.
                u32::try_from(self.names.len()).expect("a session has fewer records than that")
            }
        };
        self.numbers.insert(channel.clone(), number);
        number
    }

    /// What `number` stands for, for the last time of one record. `None` if nothing was entered as that.
    #[expect(clippy::option_option, reason = "a record of no channel is not a record that is unknown")]
    pub(crate) fn leave(&mut self, number: u32) -> Option<Option<ChannelName>> {
        let Some(index) = number.checked_sub(1) else { return Some(None) };
        let slot = self.names.get_mut(index as usize)?;
        let (channel, records) = slot.as_mut()?;
        *records -= 1;
        if *records > 0 {
            return Some(Some(channel.clone()));
        }
        let (channel, _) = slot.take()?;
        self.numbers.remove(&channel);
        self.free.push(number);
        Some(Some(channel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_for_a_channel_until_its_last_record_is_read() {
        let [a, b] = ["room:a", "room:b"].map(|name| ChannelName::parse(name).unwrap());
        let mut channels = Channels::default();
        let numbers = [Some(&a), Some(&b), Some(&a), None].map(|channel| channels.enter(channel));
        assert_eq!(numbers, [1, 2, 1, 0]);
        assert_eq!(channels.leave(1), Some(Some(a.clone())));
        assert_eq!(channels.leave(1), Some(Some(a.clone())));
        assert_eq!(channels.leave(1), None, "no record is of it any more");
        assert_eq!((channels.leave(0), channels.leave(9)), (Some(None), None));
        let c = ChannelName::parse("room:c").unwrap();
        assert_eq!(channels.enter(Some(&c)), 1, "a free number serves again");
        assert_eq!(channels.leave(2), Some(Some(b)));
        assert_eq!(channels.leave(1), Some(Some(c)));
    }
}
