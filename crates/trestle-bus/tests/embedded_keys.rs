//! What keys there are when the embedded bus begins again: after a stop, after a crash, after a torn write.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep_until, timeout};
use trestle_bus::{
    Entry, Fabric,
    embedded::{Embedded, EmbeddedConfig},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Where the keys are.
const FOLDER: &str = "bus/keys";

/// Small files, so that a test fills several.
const SEGMENT_BYTES: u64 = 16 << 10;

fn config(dir: &Path) -> EmbeddedConfig {
    EmbeddedConfig { data_dir: Some(dir.into()), segment_bytes_max: SEGMENT_BYTES, ..EmbeddedConfig::default() }
}

fn open(dir: &Path) -> Fabric {
    Embedded::open(config(dir)).expect("opens")
}

async fn put(fabric: &Fabric, key: &str, value: &str) -> u64 {
    fabric.kv.put(key, value.to_owned().into(), None).await.expect("puts")
}

async fn all(fabric: &Fabric) -> Vec<(String, String, u64)> {
    let entries = fabric.kv.entries("").await.expect("reads");
    let shown =
        |(key, entry): (String, Entry)| (key, String::from_utf8_lossy(&entry.value).into_owned(), entry.revision);
    entries.into_iter().map(shown).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    common::files(dir, FOLDER)
}

fn length(file: &Path) -> u64 {
    fs::metadata(file).expect("a file").len()
}

fn as_after_a_crash(dir: &Path) -> TempDir {
    common::as_after_a_crash(dir, FOLDER)
}

#[tokio::test]
async fn keys_are_there_again_with_their_revisions() {
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = open(folder.path());
    let a = put(&fabric, "a", "1").await;
    put(&fabric, "b", "1").await;
    put(&fabric, "gone", "x").await;
    let b = put(&fabric, "b", "2").await;
    let c = fabric.kv.compare_and_set("c", 0, "won".into(), None).await.expect("answers").expect("wins");
    assert_eq!(fabric.kv.compare_and_set("c", 0, "lost".into(), None).await.expect("answers"), None);
    fabric.kv.delete("gone").await.expect("deletes");
    let kept = [("a".into(), "1".into(), a), ("b".into(), "2".into(), b), ("c".into(), "won".into(), c)];
    for _ in 0..2 {
        fabric.bus.close().await;
        let fabric = open(folder.path());
        assert_eq!(all(&fabric).await, kept);
        fabric.bus.close().await;
    }
    let crashed = as_after_a_crash(folder.path());
    let fabric = open(crashed.path());
    assert_eq!(fabric.kv.compare_and_set("a", b, "x".into(), None).await.expect("answers"), None);
    let set =
        fabric.kv.compare_and_set("a", a, "x".into(), None).await.expect("answers").expect("it has this revision");
    assert!(set > c, "revisions go on: {set} after {c}");
    assert!(fabric.kv.compare_and_set("gone", 0, "x".into(), None).await.expect("answers").is_some());
}

#[tokio::test]
async fn a_lifetime_goes_on_while_nothing_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = open(folder.path());
    let (short, long) = (Duration::from_millis(200), Duration::from_secs(4));
    let began = Instant::now();
    fabric.kv.put("short", "x".into(), Some(short)).await.expect("puts");
    fabric.kv.put("long", "x".into(), Some(long)).await.expect("puts");
    fabric.kv.put("freed", "x".into(), Some(short)).await.expect("puts");
    put(&fabric, "freed", "for ever").await;
    fabric.bus.close().await;
    sleep_until(began + 2 * short).await;

    let fabric = open(folder.path());
    let mut events = fabric.kv.watch("").await.expect("watches");
    let keys: Vec<_> = all(&fabric).await.into_iter().map(|(key, ..)| key).collect();
    assert_eq!(keys, ["freed", "long"]);
    assert!(fabric.kv.compare_and_set("short", 0, "again".into(), None).await.expect("answers").is_some());
    let mut next = async || timeout(PATIENCE, events.recv()).await.expect("it is heard").expect("the watch goes on");
    assert_eq!(next().await.key, "short");
    let gone = next().await;
    assert_eq!((gone.key.as_str(), gone.entry), ("long", None));
    assert!(began.elapsed() >= long, "not before its time");
}

#[tokio::test]
async fn a_torn_last_write_is_cut_off_and_all_before_it_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = open(folder.path());
    let first = put(&fabric, "a", "first").await;
    let before = length(&files(folder.path())[0]);
    put(&fabric, "a", "last").await;
    let whole = length(&files(folder.path())[0]);
    assert!(whole > before);
    for cut in before..whole {
        let crashed = as_after_a_crash(folder.path());
        let file = fs::OpenOptions::new().write(true).open(&files(crashed.path())[0]).expect("opens");
        file.set_len(cut).expect("cuts");
        let again = open(crashed.path());
        assert_eq!(all(&again).await, [("a".into(), "first".into(), first)], "cut at {cut}");
        let next = put(&again, "b", "next").await;
        again.bus.close().await;
        let again = open(crashed.path());
        assert_eq!(all(&again).await, [("a".into(), "first".into(), first), ("b".into(), "next".into(), next)]);
    }
}

#[tokio::test]
async fn damage_before_the_end_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = open(folder.path());
    put(&fabric, "a", "first").await;
    put(&fabric, "b", "second").await;
    fabric.bus.close().await;
    let file = files(folder.path())[0].clone();
    let mut bytes = fs::read(&file).expect("reads");
    let at = bytes.windows(5).position(|window| window == b"first").expect("is there");
    bytes[at] ^= 1;
    fs::write(&file, &bytes).expect("writes");
    let error = Embedded::open(config(folder.path())).err().expect("damaged");
    let source = std::error::Error::source(&error).expect("has a cause").to_string();
    assert!(source.contains(&file.display().to_string()) && source.contains("truncate"), "{source}");
    assert_eq!(fs::read(&file).expect("reads"), bytes, "nothing is cut off by itself");
}

#[tokio::test]
async fn what_is_set_again_and_again_takes_no_more_and_more_room() {
    const KEYS: usize = 20;
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = open(folder.path());
    let kept = put(&fabric, "kept", "for ever").await;
    let oldest = files(folder.path())[0].clone();
    let value = "x".repeat(1_000);
    let began = Instant::now();
    // The eight files that are left alone, four times what is set, and what comes before the next look, each second.
    let allowed = 8 * SEGMENT_BYTES + 4 * (KEYS as u64 + 1) * 1_100 + 2 * SEGMENT_BYTES;
    let room = || files(folder.path()).iter().map(|file| length(file)).sum::<u64>();
    let mut written = 0;
    while oldest.exists() || room() > allowed || written < 10 * allowed {
        assert!(began.elapsed() < PATIENCE, "{} bytes of {:?}", room(), files(folder.path()));
        for at in 0..KEYS {
            put(&fabric, &format!("busy.{at}"), &value).await;
            written += 1_000;
        }
        fabric.kv.put("brief", value.clone().into(), Some(Duration::from_millis(1))).await.expect("puts");
    }
    let before = all(&fabric).await;
    fabric.bus.close().await;
    let fabric = open(folder.path());
    let mut after = all(&fabric).await;
    assert_eq!(after.iter().find(|(key, ..)| key == "kept").expect("it has moved").2, kept);
    after.retain(|(key, ..)| key != "brief");
    assert_eq!(after, before.into_iter().filter(|(key, ..)| key != "brief").collect::<Vec<_>>());
}

/// Says to this program that it is the process that sets keys and is killed, and where.
const SETTER_DIR: &str = "TRESTLE_BUS_TEST_KEYS_DIR";

const SETTERS: usize = 4;

/// Counts up, by compare-and-set, one key from many sides and one key each, and says what was acknowledged, for ever.
async fn set_until_killed(dir: &Path) {
    let fabric = open(dir);
    let mut setters = tokio::task::JoinSet::new();
    for setter in 0..SETTERS {
        let fabric = fabric.clone();
        setters.spawn(async move {
            for own in 1_u64.. {
                put(&fabric, &format!("own.{setter}"), &own.to_string()).await;
                println!("acked own.{setter} {own}");
                let entry = fabric.kv.get("shared").await.expect("reads");
                let (count, revision) = entry.map_or((0, 0), |entry| (number(&entry), entry.revision));
                let next = (count + 1).to_string();
                let set = fabric.kv.compare_and_set("shared", revision, next.into(), None).await.expect("answers");
                if set.is_some() {
                    println!("acked shared {}", count + 1);
                }
            }
        });
    }
    setters.join_next().await;
}

fn number(entry: &Entry) -> u64 {
    String::from_utf8_lossy(&entry.value).parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_while_it_sets_keys_keeps_what_it_acknowledged() {
    // This test is also the process that it runs and kills.
    if let Some(dir) = std::env::var_os(SETTER_DIR) {
        return set_until_killed(Path::new(&dir)).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for round in 1..=3 {
        let name = "a_process_killed_while_it_sets_keys_keeps_what_it_acknowledged";
        let mut acked = std::collections::BTreeMap::<String, u64>::new();
        common::run_and_kill(name, (SETTER_DIR, folder.path()), 300 * round, |key, number| {
            let last = acked.entry(key.to_owned()).or_default();
            *last = number.parse::<u64>().ok()?.max(*last);
            Some(())
        });
        assert_eq!(acked.len(), SETTERS + 1, "{acked:?}");
        let fabric = open(folder.path());
        for (key, acked) in acked {
            let there = number(&fabric.kv.get(&key).await.expect("reads").expect("is there"));
            assert!(there >= acked, "round {round}: {key} is {there}, and {acked} was acknowledged");
        }
        for setter in 0..SETTERS {
            fabric.kv.delete(&format!("own.{setter}")).await.expect("deletes"); // each round counts from 1
        }
        fabric.bus.close().await;
    }
}
