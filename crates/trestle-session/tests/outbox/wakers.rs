//! Who is woken when.

use std::task::{Context, Poll};

use trestle_session::{Finished, Full, Outbox, OutboxLimits, Pushed};
use trestle_wire::v1::Overflow;

use crate::boxes::{Count, LIMITS, all, frame, label, sized};

#[test]
fn the_writer_is_woken_once_per_wait() {
    let (outbox, (count, waker)) = (Outbox::new(LIMITS), Count::new());
    let mut taken = Vec::new();
    assert!(outbox.poll_take(&mut Context::from_waker(&waker), 9, &mut taken).is_pending());
    outbox.push(frame(1).into()).unwrap();
    outbox.push(frame(2).into()).unwrap();
    assert_eq!(count.get(), 1);
    assert!(outbox.poll_take(&mut Context::from_waker(&waker), 9, &mut taken).is_ready());
    assert_eq!(taken.len(), 2);
}

#[test]
fn a_frame_without_room_closes_the_outbox_and_wakes_the_writer() {
    for (fill, over) in [(vec![4, 4, 4, 4], 4), (vec![300], 101)] {
        let (outbox, (count, waker)) = (Outbox::new(LIMITS), Count::new());
        fill.iter().for_each(|bytes| _ = outbox.push(sized(1, *bytes).into()).unwrap());
        let mut context = Context::from_waker(&waker);
        assert!(outbox.poll_overflow(&mut context).is_pending());
        assert!(outbox.poll_room(&mut context).is_pending());
        assert_eq!(outbox.push(sized(1, over).into()), Err(Full::Overflow));
        assert_eq!(count.get(), 2, "the writer, and who waits for room");
        assert_eq!(outbox.push(frame(1).into()), Err(Full::Closed));
        assert!(outbox.poll_overflow(&mut context).is_ready() && outbox.poll_room(&mut context).is_ready());
        let mut taken = Vec::new();
        assert_eq!(outbox.poll_take(&mut context, 9, &mut taken), Poll::Ready(Err(Full::Overflow)));
        assert_eq!(all(&outbox).len(), fill.len(), "what was queued before is still there");
    }
}

#[test]
fn whoever_waits_for_room_is_woken_when_less_than_half_is_taken() {
    let (outbox, (first, one), (second, other)) = (Outbox::new(LIMITS), Count::new(), Count::new());
    (0..4).for_each(|number| _ = outbox.push(frame(number).into()).unwrap());
    assert!(outbox.poll_room(&mut Context::from_waker(&one)).is_pending());
    assert!(outbox.poll_room(&mut Context::from_waker(&one)).is_pending());
    assert!(outbox.poll_room(&mut Context::from_waker(&other)).is_pending());
    let mut taken = Vec::new();
    outbox.take(2, &mut taken);
    assert_eq!((first.get(), second.get()), (0, 0), "half is not less than half");
    outbox.take(1, &mut taken);
    assert_eq!((first.get(), second.get()), (1, 1));
    assert!(outbox.poll_room(&mut Context::from_waker(&one)).is_ready());
}

#[test]
fn bytes_are_room_too() {
    let outbox = Outbox::new(OutboxLimits { bytes_max: 100, frames_max: 100 });
    outbox.push(sized(1, 49).into()).unwrap();
    let (_, waker) = Count::new();
    assert!(outbox.poll_room(&mut Context::from_waker(&waker)).is_ready());
    outbox.push(sized(2, 4).into()).unwrap();
    assert!(outbox.poll_room(&mut Context::from_waker(&waker)).is_pending());
}

#[test]
fn a_closed_outbox_takes_nothing_more_and_gives_what_it_has() {
    let outbox = Outbox::new(LIMITS);
    outbox.push(Finished::labelled(frame(1), label("room:1", Overflow::DropOldest, 0))).unwrap();
    outbox.close();
    assert_eq!(outbox.push(Finished::labelled(frame(2), label("room:1", Overflow::DropOldest, 0))), Err(Full::Closed));
    let (_, waker) = Count::new();
    let (mut context, mut taken) = (Context::from_waker(&waker), Vec::new());
    assert_eq!(outbox.poll_take(&mut context, 9, &mut taken), Poll::Ready(Err(Full::Closed)));
    assert_eq!(outbox.poll_rest(&mut context, 9, &mut taken), Poll::Ready(Ok(())));
    assert_eq!(taken.len(), 1);
    assert_eq!(outbox.poll_rest(&mut context, 9, &mut taken), Poll::Ready(Ok(())));
    assert_eq!(taken.len(), 1, "nothing is left");
}

#[test]
fn one_large_frame_goes_into_an_empty_outbox() {
    let outbox = Outbox::new(LIMITS);
    assert_eq!(outbox.push(sized(1, 1000).into()), Ok(Pushed::Queued));
    assert_eq!(outbox.push(frame(2).into()), Err(Full::Overflow));
}
