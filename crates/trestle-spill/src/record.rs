//! A frame and its label as bytes on the disk.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use trestle_codec::{Encoded, Encoding};
use trestle_session::{Finished, Label};
use trestle_wire::v1::{Overflow, Priority};

use crate::channels::Channels;

/// Bytes of a record beside its frame: a hash of the rest (4), the frame's length (4), offset, id, publisher and key (8 each), the
/// channel's number (4), policy, priority and encoding (1 each). Little-endian; nobody else ever reads it.
pub(crate) const RECORD_BYTES: usize = 4 + 4 + 4 * 8 + 4 + 3;
/// Bytes of the hash.
const HASH_BYTES: usize = 4;
/// Of the hash: any number will do, but with 0 a row of zeros would hash to something as dull.
const HASH_SEED: u64 = 0x7472_6573_746c_6521;

/// Bytes of the record of `frame`.
pub(crate) fn bytes_of(frame: &Encoded) -> usize {
    RECORD_BYTES + frame.len()
}

/// Puts a record to the end of `into`.
pub(crate) fn write(frame: &Finished, channels: &mut Channels, into: &mut Vec<u8>) {
    let label = frame.label().expect("the outbox spills nothing without a label");
    let length = u32::try_from(frame.len()).expect("a session's limit is far below 4 GiB, and it was kept");
    let start = into.len();
    into.extend_from_slice(&[0; HASH_BYTES]);
    into.extend_from_slice(&length.to_le_bytes());
    for number in [label.offset, label.id, label.publisher, label.key] {
        into.extend_from_slice(&number.to_le_bytes());
    }
    into.extend_from_slice(&channels.enter(label.channel.as_ref()).to_le_bytes());
    into.extend_from_slice(&[label.overflow as u8, label.priority as u8, frame.encoding().index() as u8]);
    into.extend_from_slice(frame.payload());
    let hash = hash(&into[start + HASH_BYTES..]);
    into[start..start + HASH_BYTES].copy_from_slice(&hash);
}

/// Of what a disk gives back, to know whether it is what it was given.
fn hash(record: &[u8]) -> [u8; HASH_BYTES] {
    let mut hasher = FixedState::with_seed(HASH_SEED).build_hasher();
    hasher.write(record);
    (hasher.finish() as u32).to_le_bytes()
}

/// What stands at the beginning of some bytes.
#[derive(Debug)]
pub(crate) enum Found {
    /// A record of so many bytes.
    Record(Finished, usize),
    /// The beginning of one that needs so many bytes.
    Part(usize),
    /// Nothing that was ever written.
    Garbage,
}

/// Reads the record at the beginning of `bytes`. The frame is a copy, so that it does not hold all that was read with it.
pub(crate) fn read(bytes: &[u8], channels: &mut Channels) -> Found {
    let Some(head) = bytes.first_chunk::<RECORD_BYTES>() else { return Found::Part(RECORD_BYTES) };
    let all = RECORD_BYTES + number(&head[4..8]) as usize;
    let Some(record) = bytes.get(..all) else { return Found::Part(all) };
    if head[..HASH_BYTES] != hash(&record[HASH_BYTES..]) {
        return Found::Garbage;
    }
    let (Ok(overflow), Ok(priority), Some(encoding)) = (
        Overflow::try_from(i32::from(head[44])),
        Priority::try_from(i32::from(head[45])),
        Encoding::ALL.get(usize::from(head[46])),
    ) else {
        return Found::Garbage;
    };
    let Some(channel) = u32::try_from(number(&head[40..44])).ok().and_then(|number| channels.leave(number)) else {
        return Found::Garbage;
    };
    let [offset, id, publisher, key] = [8, 16, 24, 32].map(|at| number(&head[at..at + 8]));
    let label = Label { channel, offset, id, publisher, overflow, key, priority };
    let frame = Encoded::from_payload(*encoding, &record[RECORD_BYTES..]);
    Found::Record(Finished::labelled(frame, label), all)
}

/// Up to eight bytes as a number.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use trestle_wire::{ChannelName, UserId};

    use super::*;

    fn inbox() -> ChannelName {
        // Its channel's name is longer than any that a client may name.
        ChannelName::inbox(&UserId::parse(&"ä".repeat(60)).unwrap())
    }

    #[test]
    fn every_field_of_a_label_comes_back() {
        let label = Label {
            channel: Some(inbox()),
            offset: u64::MAX - 1,
            id: 0x0123_4567_89ab_cdef,
            publisher: 0x0fed_cba9_8765_4321,
            overflow: Overflow::Spill,
            key: 1 << 63,
            priority: Priority::High,
        };
        let frame = Encoded::from_payload(Encoding::Json, b"{\"pong\":{}}");
        let (mut channels, mut bytes) = (Channels::default(), Vec::new());
        let frame = Finished::labelled(frame, label);
        write(&frame, &mut channels, &mut bytes);
        assert_eq!(bytes.len(), bytes_of(&frame));
        for cut in [0, RECORD_BYTES - 1, RECORD_BYTES, bytes.len() - 1] {
            let needs = if cut < RECORD_BYTES { RECORD_BYTES } else { bytes.len() };
            assert!(matches!(read(&bytes[..cut], &mut channels), Found::Part(more) if more == needs), "{cut}");
        }
        let Found::Record(back, length) = read(&bytes, &mut channels) else { panic!("it is whole") };
        assert_eq!((back, length), (frame, bytes.len()));
    }

    #[test]
    fn what_was_never_written_is_known() {
        assert!(matches!(read(&[0; 100], &mut Channels::default()), Found::Garbage), "a hole in the file");
        let (mut channels, mut bytes) = (Channels::default(), Vec::new());
        let frame = Encoded::from_payload(Encoding::Json, b"frame");
        let label = Label { channel: Some(inbox()), ..Label::default() };
        write(&Finished::labelled(frame, label), &mut channels, &mut bytes);
        for at in (0..bytes.len()).filter(|at| !(4..8).contains(at)) {
            bytes[at] ^= 1;
            assert!(matches!(read(&bytes, &mut channels), Found::Garbage), "byte {at}");
            bytes[at] ^= 1;
        }
        bytes[4] -= 1;
        assert!(matches!(read(&bytes, &mut channels), Found::Garbage), "its length");
        bytes[4] += 1;
        assert!(matches!(read(&bytes, &mut channels), Found::Record(..)));
        assert!(matches!(read(&bytes, &mut channels), Found::Garbage), "no more records are of its channel");
    }
}
