//! How much may wait on the disk, and where.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{blocks::BLOCK_BYTES, record::RECORD_BYTES};

/// Least of `memory_bytes_max`: a block for each of the few clients of a small node, and one on its way.
const MEMORY_BYTES_MIN: usize = 1 << 20;

/// What may wait on disk for clients whose outbox is full, where the policy is `spill`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SpillConfig {
    /// Folder of the file in which it waits. The file has no name and is gone with the process, so several nodes may share
    /// a folder. Not set: the system's folder for temporary files. Where that is held in memory, as `/tmp` often is, set a
    /// folder on a disk: a spill into memory saves none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Bytes that may wait for one session, 38 of them beside each frame; beyond them the client is parted from. 16 MiB are
    /// 64 outboxes of 256 KiB: a client that is sent 100 messages of 500 bytes a second may stand still for 5 minutes.
    pub bytes_per_session_max: u64,
    /// Bytes of disk, in blocks of 16 KiB of which each session has at least one. 1 GiB is enough for 64 sessions with all
    /// they may have, or 65,536 with a little.
    pub bytes_max: u64,
    /// Bytes that may be in memory on their way to the disk. 64 MiB are what a disk of 200 MB/s takes in a third of a second.
    /// On their way back it is at most 32 KiB, or one frame, for each session that is being written to.
    pub memory_bytes_max: usize,
}

impl Default for SpillConfig {
    fn default() -> Self {
        Self { dir: None, bytes_per_session_max: 16 << 20, bytes_max: 1 << 30, memory_bytes_max: 64 << 20 }
    }
}

impl SpillConfig {
    /// Everything that is wrong with it, a sentence per key. `outbox_bytes_max` is the session's.
    #[must_use]
    pub fn faults(&self, outbox_bytes_max: usize) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(dir) = self.dir.as_ref().filter(|dir| !dir.is_dir()) {
            faults.push(format!("spill.dir ({}) is not a folder; make it, or name another", dir.display()));
        }
        if self.bytes_per_session_max < outbox_bytes_max as u64 {
            faults.push(format!(
                "spill.bytes_per_session_max ({}) must not be less than session.outbox_bytes_max ({outbox_bytes_max}): a \
                 message that fits into memory would not fit onto the disk",
                self.bytes_per_session_max
            ));
        }
        if self.bytes_max < self.bytes_per_session_max {
            faults.push(format!(
                "spill.bytes_max ({}) must not be less than spill.bytes_per_session_max ({})",
                self.bytes_max, self.bytes_per_session_max
            ));
        }
        let most = u64::from(u32::MAX) * BLOCK_BYTES as u64;
        if self.bytes_max > most {
            faults.push(format!("spill.bytes_max ({}) must be at most {most}", self.bytes_max));
        }
        let least = MEMORY_BYTES_MIN.max((outbox_bytes_max + RECORD_BYTES) * 2);
        if self.memory_bytes_max < least {
            faults.push(format!(
                "spill.memory_bytes_max ({}) must be at least {least}, for two messages of session.outbox_bytes_max \
                 ({outbox_bytes_max})",
                self.memory_bytes_max
            ));
        }
        faults
    }

    /// Where the file lies.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// Blocks that there may be.
    pub(crate) fn blocks_max(&self) -> usize {
        usize::try_from(self.bytes_max / BLOCK_BYTES as u64).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_sound() {
        assert_eq!(SpillConfig::default().faults(256 * 1024), Vec::<String>::new());
    }

    #[test]
    fn keys_that_disagree_are_named() {
        let config = SpillConfig {
            dir: Some("no/such/folder".into()),
            bytes_per_session_max: 2 << 30,
            memory_bytes_max: 4096,
            ..SpillConfig::default()
        };
        let faults = config.faults(1 << 20).join("\n");
        for key in ["spill.dir (no/such/folder)", "spill.bytes_max (1073741824)", "spill.memory_bytes_max (4096)"] {
            assert!(faults.contains(key), "{key}: {faults}");
        }
        let small = SpillConfig { bytes_per_session_max: 1000, ..SpillConfig::default() };
        let faults = small.faults(2000).join("\n");
        assert!(faults.contains("spill.bytes_per_session_max (1000)"), "{faults}");
        assert!(faults.contains("session.outbox_bytes_max (2000)"), "{faults}");
    }
}
