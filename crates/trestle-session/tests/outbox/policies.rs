//! Each policy, priorities, and the gaps they leave.

use trestle_session::{Finished, Full, Label, Outbox, OutboxLimits, Pushed};
use trestle_wire::v1::{GapReason, Overflow, Priority};

use crate::boxes::{LIMITS, Out, all, frame, gap, label, of_priority, sized};

/// Pushes frames `numbers` of one channel, whose offsets are their numbers.
fn push(outbox: &Outbox, channel: &str, overflow: Overflow, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        outbox.push(Finished::labelled(frame(number), label(channel, overflow, number.into()))).unwrap();
    }
}

fn frames(numbers: std::ops::RangeInclusive<u32>) -> Vec<Out> {
    numbers.map(Out::Frame).collect()
}

#[test]
fn what_goes_in_comes_out_in_order() {
    let outbox = Outbox::new(LIMITS);
    push(&outbox, "room:1", Overflow::Disconnect, 1..=3);
    assert_eq!(all(&outbox), frames(1..=3));
}

#[test]
fn the_oldest_go_and_leave_one_gap() {
    let outbox = Outbox::new(LIMITS);
    push(&outbox, "room:1", Overflow::DropOldest, 1..=9);
    assert_eq!((outbox.len(), outbox.dropped()), (4, 5));
    let expected: Vec<_> = [gap("room:1", 1, 5, 5)].into_iter().chain(frames(6..=9)).collect();
    assert_eq!(all(&outbox), expected);
    assert!(outbox.is_empty());
}

#[test]
fn the_newest_are_not_taken_and_leave_one_gap() {
    let outbox = Outbox::new(LIMITS);
    push(&outbox, "room:1", Overflow::DropNewest, 1..=4);
    let late = label("room:1", Overflow::DropNewest, 5);
    assert_eq!(outbox.push(Finished::labelled(frame(5), late.clone())), Ok(Pushed::Dropped));
    push(&outbox, "room:1", Overflow::DropNewest, 6..=7);
    let mut taken = Vec::new();
    outbox.take(2, &mut taken);
    push(&outbox, "room:1", Overflow::DropNewest, 8..=8);
    let expected: Vec<_> = frames(3..=4).into_iter().chain([gap("room:1", 5, 7, 3), Out::Frame(8)]).collect();
    assert_eq!(all(&outbox), expected);
}

#[test]
fn all_of_a_key_but_the_latest_go() {
    let outbox = Outbox::new(LIMITS);
    let key = |key| Label { key, ..label("live:1", Overflow::Conflate, 0) };
    for (number, of) in [(1, 7), (2, 8), (3, 7), (4, 9), (5, 7)] {
        assert_eq!(outbox.push(Finished::labelled(frame(number), key(of))), Ok(Pushed::Queued));
    }
    let expected = [gap("live:1", 0, 0, 1), Out::Frame(2), gap("live:1", 0, 0, 1), Out::Frame(4), Out::Frame(5)];
    assert_eq!(all(&outbox), expected);
}

#[test]
fn without_one_of_its_key_the_oldest_goes() {
    let outbox = Outbox::new(LIMITS);
    for number in 1..=5_u32 {
        let label = Label { key: number.into(), ..label("live:1", Overflow::Conflate, 0) };
        outbox.push(Finished::labelled(frame(number), label)).unwrap();
    }
    assert_eq!(all(&outbox)[..2], [gap("live:1", 0, 0, 1), Out::Frame(2)]);
}

#[test]
fn a_sample_is_taken_the_more_the_more_room_there_is() {
    let limits = OutboxLimits { bytes_max: 1 << 20, frames_max: 1000 };
    let taken = |outbox: &Outbox, count: u32| {
        let sampled = label("live:1", Overflow::Sample, 0);
        (0..count)
            .filter(|number| outbox.push(Finished::labelled(frame(*number), sampled.clone())) == Ok(Pushed::Queued))
            .count()
    };
    let outbox = Outbox::new(limits);
    assert_eq!(taken(&outbox, 500), 500, "there is room for all up to the half");
    // From there on each lowers the chance of the next: after n of them about half x (1 - e^(-n / half)) are taken.
    let more = taken(&outbox, 500);
    assert!((250..380).contains(&more), "{more}");
    assert_eq!(outbox.dropped(), 500 - more as u64);
    let told = all(&outbox).into_iter().filter_map(|out| match out {
        Out::Gap(channel, 0, 0, count, GapReason::Sampled) => Some((channel, count)),
        Out::Gap(..) => panic!("{out:?}"),
        Out::Frame(_) => None,
    });
    let told: Vec<_> = told.collect();
    assert_eq!(told.iter().map(|(_, count)| count).sum::<u64>(), 500 - more as u64);
    assert!(told.iter().all(|(channel, _)| channel == "live:1"));
}

#[test]
fn the_sample_of_one_client_is_not_that_of_another() {
    let limits = OutboxLimits { bytes_max: 1 << 20, frames_max: 100 };
    let sampled = label("live:1", Overflow::Sample, 0);
    let [one, other] = [(); 2].map(|()| {
        let outbox = Outbox::new(limits);
        (0..200).for_each(|number| _ = outbox.push(Finished::labelled(frame(number), sampled.clone())).unwrap());
        all(&outbox)
    });
    assert_ne!(one, other);
}

#[test]
fn a_gap_in_which_not_only_chance_has_chosen_is_no_sample() {
    let outbox = Outbox::new(OutboxLimits { bytes_max: 1 << 20, frames_max: 2 });
    push(&outbox, "room:1", Overflow::DropOldest, 1..=2);
    push(&outbox, "room:1", Overflow::Sample, 3..=3);
    push(&outbox, "room:1", Overflow::DropNewest, 4..=4);
    assert_eq!(all(&outbox), [Out::Frame(1), Out::Frame(2), gap("room:1", 3, 4, 2)]);
}

#[test]
fn a_frame_that_may_not_be_dropped_closes_what_is_full_of_its_like() {
    for overflow in [Overflow::Disconnect, Overflow::Unspecified, Overflow::Spill] {
        let outbox = Outbox::new(LIMITS);
        push(&outbox, "room:1", overflow, 1..=4);
        assert_eq!(
            outbox.push(Finished::labelled(frame(5), label("room:1", overflow, 5))),
            Err(Full::Overflow),
            "{overflow:?}"
        );
    }
}

#[test]
fn for_an_answer_others_go_and_it_is_never_dropped() {
    let outbox = Outbox::new(LIMITS);
    push(&outbox, "room:1", Overflow::DropNewest, 1..=1);
    push(&outbox, "room:2", Overflow::Disconnect, 2..=2);
    push(&outbox, "room:3", Overflow::DropOldest, 3..=4);
    for number in 5..=7 {
        assert_eq!(outbox.push(frame(number).into()), Ok(Pushed::Queued));
    }
    assert_eq!(outbox.push(frame(8).into()), Err(Full::Overflow), "nothing is left that may go");
    let gaps = [gap("room:1", 1, 1, 1), Out::Frame(2), gap("room:3", 3, 4, 2)];
    assert_eq!(all(&outbox), gaps.into_iter().chain(frames(5..=7)).collect::<Vec<_>>());
}

#[test]
fn its_own_channel_pays_first() {
    let outbox = Outbox::new(LIMITS);
    push(&outbox, "room:1", Overflow::DropOldest, 1..=2);
    push(&outbox, "room:2", Overflow::DropOldest, 3..=5);
    assert_eq!(all(&outbox), [Out::Frame(1), Out::Frame(2), gap("room:2", 3, 3, 1), Out::Frame(4), Out::Frame(5)]);
    // One that has nothing there takes the place of others.
    push(&outbox, "room:1", Overflow::DropOldest, 1..=4);
    push(&outbox, "room:2", Overflow::DropOldest, 5..=5);
    assert_eq!(all(&outbox)[..2], [gap("room:1", 1, 1, 1), Out::Frame(2)]);
}

#[test]
fn where_nothing_may_go_the_new_one_goes() {
    let outbox = Outbox::new(LIMITS);
    (1..=4).for_each(|number| _ = outbox.push(frame(number).into()).unwrap());
    let oldest = label("room:1", Overflow::DropOldest, 0);
    assert_eq!(outbox.push(Finished::labelled(frame(5), oldest.clone())), Ok(Pushed::Dropped));
    assert_eq!(all(&outbox), frames(1..=4).into_iter().chain([gap("room:1", 0, 0, 1)]).collect::<Vec<_>>());
}

#[test]
fn nothing_goes_for_a_frame_that_would_not_fit_then() {
    let outbox = Outbox::new(LIMITS);
    push(&outbox, "room:1", Overflow::DropOldest, 1..=3);
    let large = label("room:1", Overflow::DropOldest, 4);
    assert_eq!(outbox.push(Finished::labelled(sized(4, 401), large.clone())), Ok(Pushed::Dropped));
    assert_eq!(outbox.len(), 3);
}

#[test]
fn a_large_frame_takes_the_place_of_several() {
    let outbox = Outbox::new(OutboxLimits { bytes_max: 100, frames_max: 100 });
    for number in 1..=10_u32 {
        outbox
            .push(Finished::labelled(sized(number, 10), label("room:1", Overflow::DropOldest, number.into())))
            .unwrap();
    }
    outbox.push(Finished::labelled(sized(11, 35), label("room:1", Overflow::DropOldest, 11))).unwrap();
    assert_eq!((outbox.bytes(), outbox.len()), (95, 7));
    assert_eq!(all(&outbox)[0], gap("room:1", 1, 4, 4));
}

#[test]
fn a_high_priority_overtakes_and_a_low_one_waits() {
    let outbox = Outbox::new(LIMITS);
    let rows = [(1, Priority::Low), (2, Priority::Normal), (3, Priority::High)];
    for (number, priority) in rows {
        outbox.push(Finished::labelled(frame(number), of_priority("live:1", Overflow::Disconnect, priority))).unwrap();
    }
    outbox.push(frame(4).into()).unwrap();
    assert_eq!(all(&outbox), [3, 2, 4, 1].map(Out::Frame));
}

#[test]
fn where_there_is_a_history_nothing_overtakes() {
    let outbox = Outbox::new(LIMITS);
    for (number, priority) in [(1, Priority::Low), (2, Priority::High)] {
        let label = Label { offset: number.into(), ..of_priority("room:1", Overflow::Disconnect, priority) };
        outbox.push(Finished::labelled(frame(number), label)).unwrap();
    }
    assert_eq!(all(&outbox), frames(1..=2));
}

#[test]
fn a_lower_priority_goes_first_and_never_for_a_lower_one_still() {
    let outbox = Outbox::new(LIMITS);
    let priority = |number: u32, priority| {
        outbox.push(Finished::labelled(frame(number), of_priority("live:1", Overflow::DropOldest, priority)))
    };
    for (number, of) in [(1, Priority::High), (2, Priority::Normal), (3, Priority::Low), (4, Priority::High)] {
        assert_eq!(priority(number, of), Ok(Pushed::Queued));
    }
    assert_eq!(priority(5, Priority::High), Ok(Pushed::Queued));
    assert_eq!(priority(6, Priority::Low), Ok(Pushed::Dropped));
    let high = [1, 4, 5].map(Out::Frame);
    let others = [Out::Frame(2), gap("live:1", 0, 0, 2)];
    assert_eq!(all(&outbox), high.into_iter().chain(others).collect::<Vec<_>>());
}

#[test]
fn what_was_pushed_to_the_session_has_gaps_without_a_channel() {
    let outbox = Outbox::new(LIMITS);
    push(&outbox, "", Overflow::DropOldest, 1..=5);
    assert_eq!(all(&outbox)[0], gap("", 1, 1, 1));
}

#[test]
fn a_lane_that_is_full_of_holes_closes_up() {
    // One that may not go stands at the front, so that the holes behind it stay.
    let outbox = Outbox::new(OutboxLimits { bytes_max: 1 << 20, frames_max: 10 });
    outbox.push(frame(0).into()).unwrap();
    push(&outbox, "room:2", Overflow::DropNewest, 1..=1);
    push(&outbox, "room:1", Overflow::DropOldest, 2..=1_000);
    let expected = [Out::Frame(0), Out::Frame(1), gap("room:1", 2, 992, 991)];
    assert_eq!(all(&outbox), expected.into_iter().chain(frames(993..=1_000)).collect::<Vec<_>>());
}

#[test]
fn gaps_stay_where_they_are_when_a_lane_closes_up() {
    let outbox = Outbox::new(OutboxLimits { bytes_max: 1 << 20, frames_max: 4 });
    outbox.push(frame(0).into()).unwrap();
    push(&outbox, "room:2", Overflow::Disconnect, 1..=1);
    push(&outbox, "room:1", Overflow::DropOldest, 1..=2);
    // Behind its only frame.
    push(&outbox, "room:2", Overflow::DropNewest, 2..=2);
    push(&outbox, "room:1", Overflow::DropOldest, 3..=100);
    push(&outbox, "room:2", Overflow::DropNewest, 3..=3);
    let expected = [Out::Frame(0), Out::Frame(1), gap("room:1", 1, 98, 98), Out::Frame(99), gap("room:2", 2, 3, 2)];
    let taken = all(&outbox);
    assert_eq!(taken.iter().filter(|out| matches!(out, Out::Gap(..))).count(), 2, "{taken:?}");
    assert!(expected.iter().all(|out| taken.contains(out)), "{taken:?}");
}

#[test]
fn what_may_go_is_found_after_a_lane_has_closed_up() {
    let outbox = Outbox::new(OutboxLimits { bytes_max: 1 << 20, frames_max: 8 });
    outbox.push(frame(0).into()).unwrap();
    push(&outbox, "room:1", Overflow::DropOldest, 1..=60);
    for number in 61..=67 {
        assert_eq!(outbox.push(frame(number).into()), Ok(Pushed::Queued), "each takes the place of one of the room");
        push(&outbox, "room:1", Overflow::DropOldest, number..=number + 20);
    }
}

#[test]
fn the_lowest_priority_goes_first_for_what_may_not_be_dropped() {
    let outbox = Outbox::new(LIMITS);
    for (number, of) in [(1, Priority::High), (2, Priority::Normal), (3, Priority::Low), (4, Priority::Low)] {
        outbox.push(Finished::labelled(frame(number), of_priority("live:1", Overflow::DropOldest, of))).unwrap();
    }
    (5..=7).for_each(|number| _ = outbox.push(frame(number).into()).unwrap());
    let gap = |count| gap("live:1", 0, 0, count);
    assert_eq!(all(&outbox), [Out::Frame(1), gap(1), Out::Frame(5), Out::Frame(6), Out::Frame(7), gap(2)]);
}
