//! Groups and tags: by the token, by services, by rule.

use trestle_auth::Identity;
use trestle_session::{Action, Admitted, Event, Reattached, Resumed, Rules, SessionConfig};
use trestle_wire::{
    GroupName, Tags,
    v1::{self, UpdateSessionsRequest},
};

use crate::talk::{Talk, admitted, connect, group, reattached, resumed, tags, user};

fn ruled() -> SessionConfig {
    let rules = [("pros".to_owned(), "plan=pro".to_owned()), ("all".to_owned(), "plan EXISTS".to_owned())];
    SessionConfig { groups: rules.into(), ..SessionConfig::default() }
}

fn identity() -> Identity {
    Identity { groups: vec![group("staff")], tags: tags([("plan", "free")]), ..user("ann") }
}

/// Groups joined and left, and the tags told, by `actions`.
fn moves(actions: &[Action]) -> (Vec<&str>, Vec<&str>, Option<&Tags>) {
    let of = |pick: fn(&Action) -> Option<&GroupName>| actions.iter().filter_map(pick).map(GroupName::as_str).collect();
    let joined = of(|action| if let Action::JoinGroup(group) = action { Some(group) } else { None });
    let left = of(|action| if let Action::LeaveGroup(group) = action { Some(group) } else { None });
    let tags = actions.iter().find_map(|action| if let Action::Tags(tags) = action { Some(tags) } else { None });
    (joined, left, tags)
}

fn join(names: &[&str]) -> Event {
    let join_groups = names.iter().map(ToString::to_string).collect();
    Event::Update(UpdateSessionsRequest { join_groups, ..UpdateSessionsRequest::default() })
}

fn leave(name: &str) -> Event {
    Event::Update(UpdateSessionsRequest { leave_groups: vec![name.into()], ..UpdateSessionsRequest::default() })
}

fn set(key: &str, value: &str) -> Event {
    let set_tags = [(key.to_owned(), value.to_owned())].into();
    Event::Update(UpdateSessionsRequest { set_tags, ..UpdateSessionsRequest::default() })
}

fn refused(actions: &[Action]) -> Option<String> {
    match actions {
        [Action::NotUpdated(refusal)] => Some(refusal.reason.row().word.to_owned()),
        _ => None,
    }
}

#[test]
fn a_session_begins_in_the_groups_of_its_token_and_of_the_rules() {
    let mut talk = Talk::with(ruled());
    talk.frame(1, connect());
    let told = talk.on(admitted(identity()));
    assert_eq!(moves(&told), (vec!["all", "staff"], vec![], Some(&tags([("plan", "free")]))));
    assert_eq!(talk.session.service_groups().count(), 0, "what a service did not give is not kept as such");
}

#[test]
fn rules_follow_the_tags() {
    let mut talk = Talk::of(ruled(), identity());
    let told = talk.on(set("plan", "pro"));
    assert_eq!(moves(&told), (vec!["pros"], vec![], Some(&tags([("plan", "pro")]))));
    assert!(matches!(told.last(), Some(Action::Changed)), "{told:?}");
    assert!(talk.on(set("plan", "pro")).is_empty(), "nothing is new");
    // The service's tag goes, and the token's is seen again.
    let remove_tags = vec!["plan".into()];
    let told = talk.on(Event::Update(UpdateSessionsRequest { remove_tags, ..UpdateSessionsRequest::default() }));
    assert_eq!(moves(&told), (vec![], vec!["pros"], Some(&tags([("plan", "free")]))));
}

#[test]
fn a_group_is_left_when_nothing_holds_it_any_more() {
    let mut talk = Talk::of(ruled(), identity());
    assert_eq!(moves(&talk.on(join(&["vip", "staff", "all"]))).0, ["vip"]);
    assert_eq!(moves(&talk.on(leave("staff"))).1, [""; 0], "the token holds it");
    assert_eq!(moves(&talk.on(leave("all"))).1, [""; 0], "a rule holds it");
    assert_eq!(moves(&talk.on(leave("vip"))).1, ["vip"]);
}

#[test]
fn a_group_in_both_lists_is_joined() {
    let both = UpdateSessionsRequest {
        join_groups: vec!["vip".into()],
        leave_groups: vec!["vip".into()],
        ..UpdateSessionsRequest::default()
    };
    assert_eq!(moves(&Talk::of(ruled(), identity()).on(Event::Update(both))).0, ["vip"]);
}

#[test]
fn a_change_beyond_a_limit_changes_nothing() {
    let mut talk = Talk::of(SessionConfig { groups_max: 2, ..ruled() }, identity());
    assert_eq!(refused(&talk.on(join(&["a", "b", "c"]))), Some("invalid_target".into()));
    assert_eq!(refused(&talk.on(join(&["a b"]))), Some("invalid_target".into()));
    assert_eq!(refused(&talk.on(set("and", "x"))), Some("invalid_tag".into()));
    let many = (0..32).map(|number| (format!("t{number}"), String::new())).collect();
    let many = Event::Update(UpdateSessionsRequest { set_tags: many, ..UpdateSessionsRequest::default() });
    assert_eq!(refused(&talk.on(many)), Some("invalid_tag".into()), "with the token's there are 33");
    assert_eq!((talk.session.service_groups().count(), talk.session.service_tags()), (0, &Tags::new()));
    assert_eq!(moves(&talk.on(join(&["a", "b"]))).0, ["a", "b"]);
}

#[test]
fn a_session_without_a_socket_is_changed_too() {
    let mut talk = Talk::of(ruled(), identity());
    talk.on(Event::Lost);
    assert_eq!(moves(&talk.on(join(&["vip"]))).0, ["vip"]);
}

#[test]
fn a_resumed_session_is_in_its_groups_again() {
    let mut talk = Talk::with(ruled());
    talk.frame(1, connect());
    let again =
        Resumed { identity: identity(), groups: vec![group("vip")], tags: tags([("plan", "pro")]), ..resumed() };
    let told = talk.on(Event::Admitted(Ok(Admitted::Resumed(Box::new(again)))));
    assert_eq!(moves(&told), (vec!["all", "pros", "staff", "vip"], vec![], Some(&tags([("plan", "pro")]))));
    assert_eq!(talk.session.service_groups().collect::<Vec<_>>(), [&group("vip")]);
    assert_eq!((talk.session.service_tags(), talk.session.groups().count()), (&tags([("plan", "pro")]), 4));
}

#[test]
fn a_new_token_brings_its_own_groups() {
    let mut talk = Talk::of(ruled(), identity());
    talk.on(join(&["vip"]));
    talk.on(Event::Lost);
    let fresh = Identity { groups: vec![group("admins")], ..user("ann") };
    let told = talk.on(Event::Reattached(Box::new(Reattached { identity: fresh, ..reattached(9, 0) })));
    assert_eq!(moves(&told), (vec!["admins"], vec!["all", "staff"], Some(&Tags::new())));
}

#[test]
fn a_rule_that_cannot_be_read_is_a_fault_by_its_key() {
    let rules = [("a b", "plan=pro"), ("bad", "plan=")].map(|(name, rule)| (name.to_owned(), rule.to_owned()));
    let config = SessionConfig { groups: rules.into(), ..SessionConfig::default() };
    let faults = config.faults();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(
        faults[0].starts_with("session.groups.a b: ") && faults[1].starts_with("session.groups.bad: "),
        "{faults:?}"
    );
    let many = (0..65).map(|number| (format!("g{number}"), "plan=pro".to_owned())).collect();
    let many = SessionConfig { groups: many, ..SessionConfig::default() };
    assert!(Rules::parse(&many).unwrap_err()[0].contains("at most 64"));
    assert_eq!(SessionConfig::default().faults(), [""; 0]);
    let long = SessionConfig { resume_window: std::time::Duration::from_secs(90_000), ..SessionConfig::default() };
    assert!(long.faults()[0].starts_with("session.resume_window"));
}

#[test]
fn a_state_has_its_name_in_the_protocol() {
    use trestle_session::State;
    let states = [State::Connecting, State::Active, State::Pending, State::Expired].map(v1::SessionState::from);
    let names = states.map(|state| state.as_str_name());
    assert_eq!(names, ["CONNECTING", "ACTIVE", "PENDING", "EXPIRED"]);
}
