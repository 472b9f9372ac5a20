//! What is on disk when the embedded bus begins again: after a stop, after a crash, after a torn write.

mod common;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::Instant;
use trestle_bus::{
    BusError, Consumer, ConsumerSpec, Fabric, LogSpec, Subject,
    embedded::{Embedded, EmbeddedConfig},
    promise::log_spec,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Where the log is.
const FOLDER: &str = "bus/logs/LOG";

fn subject(text: &str) -> Subject {
    Subject::from_trusted(text)
}

fn open(dir: &Path) -> Fabric {
    let config =
        EmbeddedConfig { data_dir: Some(dir.into()), segment_bytes_max: 16 << 10, ..EmbeddedConfig::default() };
    Embedded::open(config).expect("opens")
}

fn spec(work_queue: bool) -> LogSpec {
    LogSpec { work_queue, ..log_spec("LOG", &["log.>"]) }
}

async fn begin(dir: &Path, spec: &LogSpec) -> Fabric {
    let fabric = open(dir);
    fabric.log.ensure(spec).await.expect("finds the log");
    fabric
}

async fn append(fabric: &Fabric, at: &str, what: &str) -> u64 {
    fabric.log.append(&subject(at), None, what.to_owned().into()).await.expect("appends").offset
}

async fn read(fabric: &Fabric, at: &str) -> Vec<(u64, String)> {
    let stored = fabric.log.read("LOG", &subject(at), 1, 1_000_000).await.expect("reads");
    stored.into_iter().map(|s| (s.offset, String::from_utf8_lossy(&s.payload).into_owned())).collect()
}

async fn consumer(fabric: &Fabric) -> Arc<dyn Consumer> {
    let spec = ConsumerSpec {
        log: "LOG".into(),
        name: "worker".into(),
        filter: subject("log.>"),
        ack_wait: Duration::from_secs(60),
    };
    fabric.log.consumer(&spec).await.expect("makes the consumer")
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    common::files(dir, FOLDER)
}

fn as_after_a_crash(dir: &Path) -> TempDir {
    common::as_after_a_crash(dir, FOLDER)
}

#[tokio::test]
async fn a_log_begins_again_where_it_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = begin(folder.path(), &spec(true)).await;
    let kept = append(&fabric, "log.a", "kept").await;
    let done = append(&fabric, "log.b", "done").await;
    let known = fabric.log.append(&subject("log.c"), Some("id"), "known".into()).await.expect("appends");
    let worker = consumer(&fabric).await;
    for work in worker.fetch(3, PATIENCE).await.expect("fetches") {
        if work.subject.as_str() == "log.b" {
            work.ack().await.expect("acks");
        }
    }
    fabric.bus.close().await;

    let fabric = begin(folder.path(), &spec(true)).await;
    assert_eq!(read(&fabric, "log.a").await, [(kept, "kept".into())]);
    assert_eq!(read(&fabric, "log.b").await, [], "{done} was done");
    let again = fabric.log.append(&subject("log.c"), Some("id"), "again".into()).await.expect("appends");
    assert_eq!((again.offset, again.duplicate), (known.offset, true));
    let work = consumer(&fabric).await.fetch(3, PATIENCE).await.expect("fetches");
    let subjects: Vec<_> = work.iter().map(|work| work.subject.as_str()).collect();
    assert_eq!(subjects, ["log.a", "log.c"], "what was taken and not done comes again");
    assert!(append(&fabric, "log.a", "new").await > known.offset);
}

#[tokio::test]
async fn a_dedup_id_that_was_used_again_is_known_by_its_last_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = subject("log.a");
    let spec = LogSpec { dedup_window: Duration::from_secs(1), ..spec(true) };
    let fabric = begin(folder.path(), &spec).await;
    let first = fabric.log.append(&at, Some("id"), "first".into()).await.expect("appends");
    let began = Instant::now();
    let second = loop {
        let again = fabric.log.append(&at, Some("id"), "second".into()).await.expect("appends");
        if !again.duplicate {
            break again;
        }
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(spec.dedup_window / 50).await;
    };
    assert!(second.offset > first.offset);
    fabric.bus.close().await;

    let fabric = begin(folder.path(), &spec).await; // the first use is too old by now, the second is not
    let again = fabric.log.append(&at, Some("id"), "again".into()).await.expect("appends");
    assert_eq!((again.duplicate, again.offset), (true, second.offset));
}

#[tokio::test]
async fn a_consumer_of_a_log_that_is_no_queue_remembers_what_it_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = begin(folder.path(), &spec(false)).await;
    for what in ["one", "two", "three"] {
        append(&fabric, "log.a", what).await;
    }
    let work = consumer(&fabric).await.fetch(2, PATIENCE).await.expect("fetches");
    work[1].ack().await.expect("acks");
    fabric.bus.close().await;
    let fabric = begin(folder.path(), &spec(false)).await;
    let work = consumer(&fabric).await.fetch(3, PATIENCE).await.expect("fetches");
    let left: Vec<_> = work.iter().map(|work| &work.payload[..]).collect();
    assert_eq!(left, [&b"one"[..], b"three"]);
    assert_eq!(read(&fabric, "log.a").await.len(), 3);
}

#[tokio::test]
async fn a_torn_last_write_is_cut_off_and_all_before_it_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = begin(folder.path(), &spec(false)).await;
    append(&fabric, "log.a", "first").await;
    let before = fs::metadata(&segments(folder.path())[0]).expect("a file").len();
    append(&fabric, "log.a", "last").await;
    let whole = fs::metadata(&segments(folder.path())[0]).expect("a file").len();
    for cut in before..whole {
        let crashed = as_after_a_crash(folder.path());
        let file = fs::OpenOptions::new().write(true).open(&segments(crashed.path())[0]).expect("opens");
        file.set_len(cut).expect("cuts");
        let again = begin(crashed.path(), &spec(false)).await;
        assert_eq!(read(&again, "log.a").await, [(1, "first".into())], "cut at {cut}");
        assert_eq!(append(&again, "log.a", "next").await, 2);
        again.bus.close().await;
        let again = begin(crashed.path(), &spec(false)).await;
        assert_eq!(read(&again, "log.a").await, [(1, "first".into()), (2, "next".into())]);
    }
}

#[tokio::test]
async fn damage_before_the_end_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = begin(folder.path(), &spec(false)).await;
    for _ in 0..40 {
        append(&fabric, "log.a", &"x".repeat(1_000)).await;
    }
    fabric.bus.close().await;
    let files = segments(folder.path());
    assert!(files.len() > 1, "{files:?}");
    let mut bytes = fs::read(&files[0]).expect("reads");
    bytes[500] ^= 1;
    fs::write(&files[0], bytes).expect("writes");
    let error = open(folder.path()).log.ensure(&spec(false)).await.expect_err("damaged").to_string();
    assert!(error.contains(&files[0].display().to_string()), "{error}");
}

#[tokio::test]
async fn damage_in_the_newest_file_is_no_torn_write_if_something_was_written_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = begin(folder.path(), &spec(false)).await;
    append(&fabric, "log.a", "first").await;
    let first = fs::metadata(&segments(folder.path())[0]).expect("a file").len();
    append(&fabric, "log.a", "second").await;
    append(&fabric, "log.a", "third").await;
    fabric.bus.close().await;
    let file = segments(folder.path())[0].clone();
    let mut bytes = fs::read(&file).expect("reads");
    *bytes.iter_mut().skip(first as usize).find(|byte| **byte == b's').expect("is there") ^= 1;
    fs::write(&file, &bytes).expect("writes");
    let error = open(folder.path()).log.ensure(&spec(false)).await.expect_err("damaged").to_string();
    let way_out = error.split('`').nth(1).expect("a command").to_owned();
    assert_eq!(fs::read(&file).expect("reads"), bytes, "nothing is cut off by itself");
    let [command, option, length, of] = way_out.split(' ').collect::<Vec<_>>()[..] else { panic!("{way_out}") };
    assert_eq!((command, option, of), ("truncate", "-s", &*file.display().to_string()));
    let done = Command::new(command).args([option, length, of]).status().expect("runs");
    assert!(done.success());
    let fabric = begin(folder.path(), &spec(false)).await;
    assert_eq!(read(&fabric, "log.a").await, [(1, "first".into())]);
}

#[tokio::test]
async fn limits_are_kept_over_a_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let limited = LogSpec { per_subject_max: Some(2), ..spec(false) };
    let fabric = begin(folder.path(), &limited).await;
    for what in ["1", "2", "3"] {
        append(&fabric, "log.a", what).await;
    }
    fabric.bus.close().await;
    let fabric = begin(folder.path(), &limited).await;
    assert_eq!(read(&fabric, "log.a").await, [(2, "2".into()), (3, "3".into())]);
    fabric.bus.close().await;
    let short = Duration::from_millis(1);
    let fabric = begin(folder.path(), &LogSpec { age_max: Some(short), ..limited }).await;
    let began = Instant::now();
    while !read(&fabric, "log.a").await.is_empty() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(short).await;
    }
    assert_eq!(append(&fabric, "log.a", "4").await, 4, "offsets are not given twice");
}

#[tokio::test]
async fn one_data_directory_serves_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = Some(folder.path().to_owned());
    let config = EmbeddedConfig { data_dir, ..EmbeddedConfig::default() };
    let first = Embedded::open(config.clone()).expect("opens");
    let error = Embedded::open(config.clone()).err().expect("in use").to_string();
    assert!(error.contains(&folder.path().display().to_string()), "{error}");
    first.bus.close().await;
    Embedded::open(config).expect("opens");
}

/// Appends and acks until `enough` says so.
async fn churn(fabric: &Fabric, enough: impl Fn() -> bool) {
    let worker = consumer(fabric).await;
    let began = Instant::now();
    while !enough() {
        assert!(began.elapsed() < PATIENCE, "files are not given back");
        for _ in 0..20 {
            append(fabric, "log.churn", &"x".repeat(1_000)).await;
        }
        for work in worker.fetch(20, PATIENCE).await.expect("fetches") {
            if work.subject.as_str() == "log.churn" {
                work.ack().await.expect("acks");
            }
        }
    }
}

#[tokio::test]
async fn files_in_which_all_is_done_are_given_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = begin(folder.path(), &LogSpec { dedup_window: Duration::from_millis(100), ..spec(true) }).await;
    let first = append(&fabric, "log.churn", "first").await;
    let oldest = segments(folder.path())[0].clone();
    churn(&fabric, || !oldest.exists()).await;
    assert!(append(&fabric, "log.a", "x").await > first);
}

#[tokio::test]
async fn files_are_given_back_when_nobody_writes_any_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let age_max = Duration::from_secs(1);
    let fabric = begin(folder.path(), &LogSpec { age_max: Some(age_max), dedup_window: age_max, ..spec(false) }).await;
    for _ in 0..100 {
        append(&fabric, "log.a", &"x".repeat(1_000)).await;
    }
    let began = Instant::now();
    while segments(folder.path()).len() > 1 {
        assert!(began.elapsed() < PATIENCE, "{:?}", segments(folder.path()));
        tokio::time::sleep(age_max / 20).await;
    }
}

#[tokio::test]
async fn work_that_cannot_be_read_holds_up_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = begin(folder.path(), &spec(true)).await;
    for what in ["first", "second", "third"] {
        append(&fabric, "log.a", what).await;
    }
    fabric.bus.close().await;
    let fabric = begin(folder.path(), &spec(true)).await; // what is found is read from disk when it is asked for
    let file = &segments(folder.path())[0];
    let length = fs::metadata(file).expect("a file").len();
    fs::OpenOptions::new().write(true).open(file).and_then(|file| file.set_len(length - 3)).expect("cuts");
    let work = consumer(&fabric).await.fetch(3, PATIENCE).await.expect("fetches");
    let readable: Vec<_> = work.iter().map(|work| &work.payload[..]).collect();
    assert_eq!(readable, [&b"first"[..], b"second"]);
    let error = fabric.log.read("LOG", &subject("log.a"), 1, 3).await.expect_err("a gap is no answer").to_string();
    assert!(error.contains(&file.display().to_string()), "{error}");
}

#[tokio::test]
async fn work_that_is_never_done_does_not_hold_all_later_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = begin(folder.path(), &LogSpec { dedup_window: Duration::from_millis(100), ..spec(true) }).await;
    let poison = append(&fabric, "log.poison", "poison").await;
    let oldest = segments(folder.path())[0].clone();
    churn(&fabric, || !oldest.exists()).await;
    assert_eq!(read(&fabric, "log.poison").await, [(poison, "poison".into())]);
    fabric.bus.close().await;
    let fabric = begin(folder.path(), &spec(true)).await;
    assert_eq!(read(&fabric, "log.poison").await, [(poison, "poison".into())], "it has moved to a newer file");
}

/// Says to this program that it is the process that appends and is killed, and where.
const APPENDER_DIR: &str = "TRESTLE_BUS_TEST_DIR";

/// Appends, and says what was acknowledged, for ever.
async fn append_until_killed(dir: &Path) {
    let fabric = begin(dir, &spec(false)).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let fabric = fabric.clone();
        writers.spawn(async move {
            for at in 0.. {
                let what = format!("{writer}-{at}");
                let offset = append(&fabric, "log.a", &what).await;
                println!("acked {offset} {what}");
            }
        });
    }
    writers.join_next().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_while_it_appends_keeps_what_it_acknowledged() {
    // This test is also the process that it runs and kills.
    if let Some(dir) = std::env::var_os(APPENDER_DIR) {
        return append_until_killed(Path::new(&dir)).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut acked = BTreeSet::new();
    for round in 1..=3 {
        let name = "a_process_killed_while_it_appends_keeps_what_it_acknowledged";
        common::run_and_kill(name, (APPENDER_DIR, folder.path()), 300 * round, |offset, what| {
            acked.insert((offset.parse::<u64>().ok()?, what.to_owned())).then_some(())
        });
        let fabric = begin(folder.path(), &spec(false)).await;
        let there: BTreeSet<_> = read(&fabric, "log.a").await.into_iter().collect();
        let missing: Vec<_> = acked.difference(&there).collect();
        assert!(missing.is_empty(), "round {round}: {} acked, missing {missing:?}", acked.len());
        fabric.bus.close().await;
    }
}

#[tokio::test]
async fn a_closed_bus_takes_no_more_appends() {
    let folder = tempfile::tempdir().expect("a folder");
    let fabric = begin(folder.path(), &spec(false)).await;
    let worker = consumer(&fabric).await;
    let waiting = tokio::spawn(async move { worker.fetch(1, PATIENCE).await });
    tokio::task::yield_now().await;
    fabric.bus.close().await;
    let error = fabric.log.append(&subject("log.a"), None, "x".into()).await;
    assert!(matches!(error, Err(BusError::Away)), "{error:?}");
    let fetched = waiting.await.expect("no panic");
    assert!(matches!(fetched, Err(BusError::Away)), "{fetched:?}");
}
