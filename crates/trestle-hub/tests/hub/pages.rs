//! Pages of a channel's history.

use std::sync::atomic::Ordering;

use trestle_codec::Page;
use trestle_wire::{Reason, v1};

use crate::house::{House, OUTBOX_BYTES_MAX, channel, comment};

async fn with(size: u64, count: u32) -> House {
    let house = House::keeping(size).await;
    for number in 1..=count {
        // Others share the log.
        house.publish("room:2", "elsewhere").await;
        house.publish("room:1", &number.to_string()).await;
    }
    house
}

async fn page(house: &House, page: Page, limit: u32) -> v1::HistoryPage {
    house.hub.page(&channel("room:1"), page, limit).await.unwrap()
}

fn texts(page: &v1::HistoryPage) -> Vec<&str> {
    page.messages.iter().map(|message| message.id.as_str()).collect()
}

#[tokio::test]
async fn pages_forwards_lead_from_the_oldest_to_the_latest() {
    let house = with(100, 7).await;
    let (mut after, mut all, mut sizes) = (0, Vec::new(), Vec::new());
    loop {
        let page = page(&house, Page::After(after), 3).await;
        assert_eq!((page.channel.as_str(), page.offset), ("room:1", 14));
        assert!(page.messages.iter().all(|message| message.prev_offset == message.offset - 2));
        after = page.messages.last().unwrap().offset;
        all.extend(texts(&page).into_iter().map(ToOwned::to_owned));
        sizes.push(page.messages.len());
        if !page.more {
            break;
        }
    }
    assert_eq!((all.join(" ").as_str(), sizes), ("1 2 3 4 5 6 7", vec![3, 3, 1]));
    assert!(page(&house, Page::After(14), 3).await.messages.is_empty());
    assert!(page(&house, Page::After(99), 3).await.messages.is_empty());
}

#[tokio::test]
async fn pages_backwards_lead_from_the_latest_to_the_oldest() {
    for size in [100, 5000] {
        let house = with(size, 7).await;
        let first = page(&house, Page::Before(0), 3).await;
        assert_eq!((texts(&first), first.more), (vec!["5", "6", "7"], true));
        assert_eq!(first.messages.iter().map(|one| one.prev_offset).collect::<Vec<_>>(), [8, 10, 12]);
        let second = page(&house, Page::Before(first.messages[0].offset), 3).await;
        assert_eq!((texts(&second), second.more), (vec!["2", "3", "4"], true));
        let third = page(&house, Page::Before(second.messages[0].offset), 3).await;
        assert_eq!((texts(&third), third.more, third.messages[0].prev_offset), (vec!["1"], false, 0));
        assert!(texts(&page(&house, Page::Before(2), 3).await).is_empty());
    }
}

#[tokio::test]
async fn a_page_that_holds_just_all_has_no_more() {
    let house = with(100, 3).await;
    for which in [Page::After(0), Page::Before(0)] {
        let page = page(&house, which, 3).await;
        assert_eq!((page.messages.len(), page.more), (3, false), "{which:?}");
    }
}

#[tokio::test]
async fn the_first_pages_of_a_history_that_lost_its_beginning_begin_with_what_is_kept() {
    let house = with(3, 7).await;
    let forwards = page(&house, Page::After(0), 2).await;
    assert_eq!((texts(&forwards), forwards.more), (vec!["5", "6"], true));
    let backwards = page(&house, Page::Before(0), 9).await;
    assert_eq!((texts(&backwards), backwards.more), (vec!["5", "6", "7"], false));
}

#[tokio::test]
async fn a_page_is_found_however_far_back_the_channel_lies_in_its_log() {
    let house = House::keeping(1 << 20).await;
    for text in ["1", "2", "3"] {
        house.publish("room:1", text).await;
    }
    for _ in 0..10_000 {
        house.publish("room:2", "elsewhere").await;
    }
    house.publish("room:1", "4").await;
    let page = page(&house, Page::Before(0), 3).await;
    assert_eq!((texts(&page), page.more, page.offset), (vec!["2", "3", "4"], true, 10_004));
    assert_eq!(page.messages.iter().map(|one| one.prev_offset).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn a_page_is_no_heavier_than_half_an_outbox_but_never_empty_for_its_weight() {
    let house = House::keeping(100).await;
    let heavy = |bytes: usize| {
        let headers = [("weight".to_owned(), "x".repeat(bytes))].into();
        v1::Envelope { headers, ..comment("heavy") }
    };
    let subject = house.subjects.log(&channel("room:1"));
    for bytes in [OUTBOX_BYTES_MAX / 5, OUTBOX_BYTES_MAX / 5, OUTBOX_BYTES_MAX / 5, OUTBOX_BYTES_MAX] {
        let body = prost::Message::encode_to_vec(&heavy(bytes)).into();
        house.fabric.log.append(&subject, None, body).await.unwrap();
    }
    let offsets = |page: &v1::HistoryPage| page.messages.iter().map(|one| one.offset).collect::<Vec<_>>();
    let first = page(&house, Page::After(0), 10).await;
    assert_eq!((offsets(&first), first.more), (vec![1, 2], true));
    let second = page(&house, Page::After(2), 10).await;
    assert_eq!((offsets(&second), second.more), (vec![3], true));
    let last = page(&house, Page::Before(0), 10).await;
    assert_eq!((offsets(&last), last.more), (vec![4], true));
    let before = page(&house, Page::Before(4), 10).await;
    assert_eq!((offsets(&before), before.more, before.messages[0].prev_offset), (vec![2, 3], true, 1));
}

#[tokio::test]
async fn a_channel_without_history_has_no_pages_and_an_empty_one_has_an_empty_page() {
    let house = House::new().await;
    let refused = house.hub.page(&channel("live:1"), Page::Before(0), 3).await;
    let refusal = refused.unwrap_err();
    assert_eq!((refusal.reason, refusal.field.as_deref()), (Reason::NoHistory, Some("channel")));
    for which in [Page::After(0), Page::Before(0), Page::Before(7)] {
        let page = page(&house, which, 3).await;
        assert_eq!((page.messages.len(), page.more, page.offset), (0, false, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_log_does_not_show_yet_is_more() {
    let house = with(100, 3).await;
    house.log.hidden_from.store(6, Ordering::SeqCst);
    house.log.behind.store(1000, Ordering::SeqCst);
    let first = page(&house, Page::After(0), 10).await;
    assert_eq!((texts(&first), first.more, first.offset), (vec!["1", "2"], true, 6));
    let refused = house.hub.page(&channel("room:1"), Page::After(5), 10).await;
    assert_eq!(refused.unwrap_err().reason, Reason::BusAway, "rather than an empty page for ever");
}
