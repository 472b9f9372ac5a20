//! What [`Bus`](crate::Bus) promises.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;

use super::{FLOOD, PATIENCE, listen, message, payload, publish, soon, subject, text};
use crate::{BusError, BusState, Fabric, Heard};

/// Every matching subscription hears a message once; others do not.
pub async fn everyone_who_listens_hears_a_message(fabric: Fabric) {
    let mut heard = Vec::new();
    for pattern in ["a.b.c", "a.*.c", "a.>", "*.*.*"] {
        heard.push(listen(&fabric, pattern, None).await);
    }
    let mut others = Vec::new();
    for pattern in ["a.*", "a.b", "b.>", "a.b.c.>"] {
        others.push(listen(&fabric, pattern, None).await);
    }
    publish(&fabric, "a.b.c", "hello").await;
    publish(&fabric, "a.b.c", "end").await;
    for subscription in &mut heard {
        let first = message(subscription).await;
        assert_eq!((first.subject.as_str(), text(&first.payload)), ("a.b.c", "hello"));
        assert_eq!((first.reply_to, first.place), (None, None));
        assert_eq!(text(&message(subscription).await.payload), "end");
    }
    for (subscription, at) in others.iter_mut().zip(["a.x", "a.b", "b.x", "a.b.c.d"]) {
        publish(&fabric, at, "other").await;
        let first = message(subscription).await;
        assert_eq!((first.subject.as_str(), text(&first.payload)), (at, "other"), "it heard what is not for it");
    }
}

/// Several publishers at once: each one's messages arrive in its order, all of them.
pub async fn messages_of_one_publisher_arrive_in_its_order(fabric: Fabric) {
    const EACH: usize = 2_000;
    let mut subscription = listen(&fabric, "order.*", None).await;
    for publisher in 0..3 {
        let fabric = fabric.clone();
        tokio::spawn(async move {
            for at in 0..EACH {
                publish(&fabric, &format!("order.{publisher}"), at).await;
            }
        });
    }
    let mut next = [0; 3];
    for _ in 0..3 * EACH {
        let message = message(&mut subscription).await;
        let publisher: usize = message.subject.as_str()["order.".len()..].parse().expect("a number");
        assert_eq!(text(&message.payload), next[publisher].to_string());
        next[publisher] += 1;
    }
}

/// What is published after `subscribe` has returned is heard, every time, also when many subscribe at once.
pub async fn a_subscription_is_in_force_when_it_is_returned(fabric: Fabric) {
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..200 {
        let fabric = fabric.clone();
        tasks.spawn(async move {
            let at = format!("force.{at}");
            let mut subscription = listen(&fabric, &at, None).await;
            publish(&fabric, &at, "first").await;
            assert_eq!(text(&message(&mut subscription).await.payload), "first");
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("the first message is heard");
    }
}

/// One member of each group takes a message, and the members share evenly enough.
pub async fn one_member_of_each_group_takes_a_message(fabric: Fabric) {
    const ALL: usize = 300;
    let mut members = Vec::new();
    for group in ["red", "red", "red", "blue"] {
        members.push(listen(&fabric, "group.*", Some(group)).await);
    }
    let mut alone = listen(&fabric, "group.>", None).await;
    for at in 0..ALL {
        publish(&fabric, "group.x", at).await;
    }
    for at in 0..ALL {
        assert_eq!(text(&message(&mut alone).await.payload), at.to_string());
    }
    let mut blue = members.pop().expect("there is one");
    for at in 0..ALL {
        assert_eq!(text(&message(&mut blue).await.payload), at.to_string());
    }
    let (mut taken, mut shares) = (BTreeSet::new(), [0; 3]);
    while taken.len() < ALL {
        let [one, two, three] = &mut members[..] else { unreachable!("there are three") };
        let (member, heard) = soon(async {
            tokio::select! { h = one.next() => (0, h), h = two.next() => (1, h), h = three.next() => (2, h) }
        })
        .await;
        let Some(Heard::Message(message)) = heard else { panic!("a message was due, not {heard:?}") };
        assert!(taken.insert(text(&message.payload).to_owned()), "taken twice");
        shares[member] += 1;
    }
    assert!(shares.iter().all(|share| *share >= ALL / 10), "shares {shares:?}");
}

/// `reply_to` reaches the listener, and what is published to it reaches whoever asked.
pub async fn an_answer_is_asked_for_by_its_subject(fabric: Fabric) {
    let mut asked = listen(&fabric, "ask", None).await;
    let mut answers = listen(&fabric, "answers.1", None).await;
    fabric.bus.publish_with_reply(&subject("ask"), &subject("answers.1"), payload("?")).await.expect("publishes");
    let reply_to = message(&mut asked).await.reply_to.expect("an answer is awaited");
    assert_eq!(reply_to.as_str(), "answers.1");
    fabric.bus.publish(&reply_to, payload("!")).await.expect("publishes");
    assert_eq!(text(&message(&mut answers).await.payload), "!");
}

fn answer_all(fabric: &Fabric, mut asked: crate::Subscription, name: &'static str) {
    let bus = fabric.bus.clone();
    tokio::spawn(async move {
        while let Some(heard) = asked.next().await {
            let Heard::Message(question) = heard else { continue };
            if let Some(reply_to) = question.reply_to {
                let answer = payload(format_args!("{name} {}", text(&question.payload)));
                bus.publish(&reply_to, answer).await.expect("answers");
            }
        }
    });
}

/// Many questions at once: each gets the answer to itself.
pub async fn every_question_gets_its_own_answer(fabric: Fabric) {
    answer_all(&fabric, listen(&fabric, "echo", Some("service")).await, "echo");
    answer_all(&fabric, listen(&fabric, "echo", Some("service")).await, "echo");
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..200 {
        let bus = fabric.bus.clone();
        tasks.spawn(async move {
            let answer = bus.request(&subject("echo"), payload(at), PATIENCE).await.expect("an answer");
            assert_eq!(text(&answer), format!("echo {at}"));
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("each has its answer");
    }
}

/// Nobody listening is known at once, not after the time-out.
pub async fn a_question_to_nobody_is_an_error_at_once(fabric: Fabric) {
    let error = soon(fabric.bus.request(&subject("nobody"), payload("?"), 10 * PATIENCE)).await;
    assert!(matches!(error, Err(BusError::NoResponders(at)) if at == subject("nobody")));
}

/// A listener that does not answer is a time-out.
pub async fn a_question_that_nobody_answers_times_out(fabric: Fabric) {
    let _silent = listen(&fabric, "silent", None).await;
    let wait = Duration::from_millis(100);
    let error = soon(fabric.bus.request(&subject("silent"), payload("?"), wait)).await;
    assert!(matches!(error, Err(BusError::Timeout(waited)) if waited == wait), "{error:?}");
}

/// Answers are taken until there are enough, or no more come; nobody listening is no answer.
pub async fn gather_takes_the_answers_that_come(fabric: Fabric) {
    for name in ["a", "b", "c"] {
        answer_all(&fabric, listen(&fabric, "roll", None).await, name);
    }
    let _silent = listen(&fabric, "roll", None).await;
    let roll = subject("roll");
    let ask = |most, quiet| fabric.bus.gather(&roll, Bytes::new(), most, quiet);
    let all = soon(ask(usize::MAX, Duration::from_secs(1))).await.expect("gathers");
    let all: BTreeSet<&str> = all.iter().map(text).collect();
    assert_eq!(all, BTreeSet::from(["a ", "b ", "c "]));
    // Enough is enough: it does not wait for quiet.
    assert_eq!(soon(ask(2, 10 * PATIENCE)).await.expect("gathers").len(), 2);
    let none = soon(fabric.bus.gather(&subject("nobody"), Bytes::new(), 1, 10 * PATIENCE)).await;
    assert!(none.expect("gathers").is_empty());
}

/// The largest payload passes; one byte more is refused by every way in.
pub async fn what_is_too_large_is_refused_and_the_largest_passes(fabric: Fabric) {
    let max = fabric.bus.payload_bytes_max();
    let mut subscription = listen(&fabric, "large", None).await;
    fabric.bus.publish(&subject("large"), vec![7; max].into()).await.expect("fits");
    assert_eq!(message(&mut subscription).await.payload.len(), max);
    let large = || Bytes::from(vec![7; max + 1]);
    let at = subject("large");
    let refused = [
        fabric.bus.publish(&at, large()).await.err(),
        fabric.bus.publish_with_reply(&at, &subject("answer"), large()).await.err(),
        fabric.bus.request(&at, large(), PATIENCE).await.err(),
        fabric.bus.gather(&at, large(), 1, PATIENCE).await.err(),
        fabric.log.append(&at, None, large()).await.err(),
    ];
    for error in refused {
        let is = matches!(error, Some(BusError::TooLarge { bytes, max: limit }) if bytes == max + 1 && limit == max);
        assert!(is, "{error:?}");
    }
}

/// After a subscription is dropped nobody listens there.
pub async fn a_dropped_subscription_is_gone(fabric: Fabric) {
    let subscription = listen(&fabric, "gone", None).await;
    let gone = subject("gone");
    let ask = || fabric.bus.request(&gone, payload("?"), Duration::from_millis(50));
    assert!(matches!(ask().await, Err(BusError::Timeout(_))));
    drop(subscription);
    soon(async { while !matches!(ask().await, Err(BusError::NoResponders(_))) {} }).await;
}

/// What did not fit is counted, and what is heard and what is lost add up.
pub async fn what_a_slow_listener_missed_is_told(fabric: Fabric) {
    let mut slow = listen(&fabric, "flood", None).await;
    for at in 0..FLOOD {
        publish(&fabric, "flood", at).await;
    }
    // On the bus's way to the subscription everything has passed once this one has.
    let mut end = listen(&fabric, "end", None).await;
    publish(&fabric, "end", "").await;
    message(&mut end).await;
    let (mut heard, mut lost, mut next) = (0, 0, 0);
    while heard + lost < FLOOD as u64 {
        match soon(slow.next()).await.expect("the bus is open") {
            Heard::Message(message) => {
                let at: u64 = text(&message.payload).parse().expect("a number");
                assert_eq!(at, next, "what is missing is told where it is missing");
                (heard, next) = (heard + 1, at + 1);
            }
            Heard::Lost(count) => {
                assert_ne!(count, 0, "the listener was slow, not the bus away: the number is known");
                (lost, next) = (lost + count, next + count);
            }
        }
    }
    assert!(lost > 0, "the suite needs subscriptions that hold fewer than FLOOD messages");
    publish(&fabric, "flood", "after").await;
    assert_eq!(text(&message(&mut slow).await.payload), "after");
}

/// Close delivers what was taken, ends the subscriptions, and afterwards every call is [`BusError::Away`].
pub async fn a_closed_bus_delivers_what_it_took_and_takes_no_more(fabric: Fabric) {
    let mut state = fabric.bus.state();
    assert!(matches!(*state.borrow(), BusState::Connected(_)));
    let mut subscription = listen(&fabric, "last", None).await;
    for at in 0..100 {
        publish(&fabric, "last", at).await;
    }
    soon(fabric.bus.close()).await;
    soon(state.wait_for(|state| *state == BusState::Closed)).await.expect("says so");
    for at in 0..100 {
        assert_eq!(text(&message(&mut subscription).await.payload), at.to_string());
    }
    assert!(soon(subscription.next()).await.is_none());
    let at = subject("last");
    let errors = [
        fabric.bus.publish(&at, payload("")).await.err(),
        fabric.bus.subscribe(&at, None).await.err(),
        fabric.bus.request(&at, payload(""), PATIENCE).await.err(),
        fabric.bus.gather(&at, payload(""), 1, PATIENCE).await.err(),
        fabric.log.append(&at, None, payload("")).await.err(),
        fabric.log.read("LOG", &at, 1, 1).await.err(),
        fabric.kv.get("key").await.err(),
        fabric.kv.put("key", payload(""), None).await.err(),
    ];
    for (which, error) in errors.into_iter().enumerate() {
        assert!(matches!(error, Some(BusError::Away)), "call {which}: {error:?}");
    }
}
