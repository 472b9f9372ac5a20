//! Rules in CEL: what expressions see of a message, and what is told when they say no.

use super::{broken, check, pool};

pub(super) const PROTO: &str = r#"
extend buf.validate.Int32Rules {
  optional bool even = 1001 [(buf.validate.predefined).cel = {
    id: "int32.even" expression: "!rule || this % 2 == 0 ? '' : 'must be even'"
  }];
  optional int32 at_most = 1002 [(buf.validate.predefined).cel = {
    id: "int32.at_most" expression: "this > rule ? 'must be at most %s'.format([rule]) : ''"
  }];
}
enum Level { LEVEL_UNSPECIFIED = 0; LEVEL_HIGH = 2; }
message Window {
  option (buf.validate.message).cel = {
    id: "window.order" message: "start must be before end" expression: "this.start < this.end"
  };
  option (buf.validate.message).cel_expression = "this.end - this.start <= duration('24h')";
  google.protobuf.Timestamp start = 1;
  google.protobuf.Timestamp end = 2;
}
message Line { string id = 1; int32 qty = 2; uint64 price = 3; Level level = 4; map<string, int32> stock = 5; }
message Order {
  option (buf.validate.message).cel = {
    id: "order.total" expression: "this.lines.all(l, l.qty > 0) ? '' : 'every line needs a quantity'"
  };
  option (buf.validate.message).cel = {
    id: "order.ids" message: "ids must differ" expression: "this.lines.map(l, l.id).unique()"
  };
  option (buf.validate.message).cel = {
    id: "order.high" expression: "this.lines.filter(l, l.level == test.Level.LEVEL_HIGH).size() <= 1"
  };
  option (buf.validate.message).cel = {
    id: "order.note" expression: "!has(this.note) || this.note.size() > 2"
  };
  option (buf.validate.message).cel = {
    id: "order.cap" expression: "this.cap == null || this.lines.all(l, l.qty <= this.cap)"
  };
  option (buf.validate.message).cel = {
    id: "order.labels" expression: "!('x' in this.labels) || this.labels['x'] == 'y' && this.labels.x != 'z'"
  };
  option (buf.validate.message).cel = {
    id: "order.parent" expression: "this.parent.parent.name == '' && !has(this.parent.parent)"
  };
  option (buf.validate.message).cel = {
    id: "order.extra" expression: "!has(this.extra.depth) || this.extra.depth > 1"
  };
  repeated Line lines = 1;
  string note = 2;
  google.protobuf.Int32Value cap = 3;
  map<string, string> labels = 4;
  Order parent = 5;
  string name = 6;
  google.protobuf.Struct extra = 7;
}
message Fields {
  int32 even = 1 [(buf.validate.field).int32.(even) = true, (buf.validate.field).int32.(at_most) = 10];
  string mail = 2 [(buf.validate.field).cel = {id: "mail", message: "no mail", expression: "this == '' || this.isEmail()"}];
  repeated int32 numbers = 3 [(buf.validate.field).cel_expression = "this.size() < 3"];
  repeated string words = 4 [(buf.validate.field).repeated.items.cel_expression = "this.startsWith('a')"];
  map<string, int32> scores = 5 [(buf.validate.field).cel_expression = "this.all(k, this[k] > 0)"];
  google.protobuf.Int32Value wrapped = 6 [(buf.validate.field).cel_expression = "this > 0"];
  int32 divisor = 7 [(buf.validate.field).cel_expression = "10 / this > 1 || this > 100"];
}
"#;

#[test]
fn a_messages_expressions_see_its_fields() {
    let pool = pool(PROTO);
    let line = |rest: &str| format!(r#"{{"lines": [{{"id": "a", "qty": 1}}, {rest}]}}"#);
    let rows = [
        ("{}".to_owned(), ""),
        (line(r#"{"id": "b", "qty": 2}"#), ""),
        (line(r#"{"id": "b"}"#), ": order.total"),
        (line(r#"{"id": "a", "qty": 1}"#), ": order.ids"),
        (
            r#"{"lines": [{"id": "a", "qty": 1, "level": 2}, {"id": "b", "qty": 1, "level": 2}]}"#.to_owned(),
            ": order.high",
        ),
        (r#"{"note": "ab"}"#.to_owned(), ": order.note"),
        (r#"{"note": "äöü"}"#.to_owned(), ""),
        (r#"{"cap": 0, "lines": [{"id": "a", "qty": 1}]}"#.to_owned(), ": order.cap"),
        (r#"{"cap": 1, "lines": [{"id": "a", "qty": 1}]}"#.to_owned(), ""),
        (r#"{"labels": {"x": "z"}}"#.to_owned(), ": order.labels"),
        (r#"{"labels": {"x": "y"}}"#.to_owned(), ""),
        (r#"{"parent": {"parent": {"name": "n"}}}"#.to_owned(), ": order.parent"),
        (r#"{"parent": {"note": "ab"}}"#.to_owned(), "parent: order.note"),
        (r#"{"extra": {"depth": 1}}"#.to_owned(), ": order.extra"),
        (r#"{"extra": {"depth": 2}}"#.to_owned(), ""),
    ];
    for (json, expected) in rows {
        assert_eq!(broken(&pool, "Order", &json), expected, "{json}");
    }
}

#[test]
fn times_are_compared_and_subtracted() {
    let pool = pool(PROTO);
    let window = |start: &str, end: &str| format!(r#"{{"start": "2026-01-01T{start}Z", "end": "2026-01-0{end}Z"}}"#);
    assert_eq!(broken(&pool, "Window", &window("00:00:00", "1T10:00:00")), "");
    assert_eq!(broken(&pool, "Window", &window("11:00:00", "1T10:00:00")), ": window.order");
    let told = check(&pool, "Window", &window("00:00:00", "2T00:00:01")).expect_err("longer than a day");
    assert_eq!(told.rule, "this.end - this.start <= duration('24h')");
    assert_eq!(told.message, "\"this.end - this.start <= duration('24h')\" returned false");
}

#[test]
fn a_fields_expressions_see_its_value() {
    let pool = pool(PROTO);
    let rows = [
        (r#"{"divisor": 2}"#, ""),
        (r#"{"divisor": 2, "even": 3}"#, "even: int32.even"),
        (r#"{"divisor": 2, "even": 12}"#, "even: int32.at_most"),
        (r#"{"divisor": 2, "mail": "x"}"#, "mail: mail"),
        (r#"{"divisor": 2, "numbers": [1, 2, 3]}"#, "numbers: this.size() < 3"),
        (r#"{"divisor": 2, "words": ["a", "b"]}"#, "words[1]: this.startsWith('a')"),
        (r#"{"divisor": 2, "scores": {"a": 0}}"#, "scores: this.all(k, this[k] > 0)"),
        (r#"{"divisor": 2, "wrapped": 0}"#, "wrapped: this > 0"),
        (r#"{"divisor": 2, "wrapped": 1}"#, ""),
        (r#"{"divisor": 200}"#, ""),
    ];
    for (json, expected) in rows {
        assert_eq!(broken(&pool, "Fields", json), expected, "{json}");
    }
}

#[test]
fn an_expression_without_a_value_refuses_the_message_and_says_why() {
    let told = check(&pool(PROTO), "Fields", r#"{"divisor": 0}"#).expect_err("division by zero");
    assert_eq!(told.field, "divisor");
    assert_eq!(told.message, "could not be judged: a number is out of range, or divided by zero");
}

#[test]
fn an_expression_that_takes_too_long_is_stopped() {
    let proto = "message M { repeated int32 v = 1 [(buf.validate.field).cel_expression = \
                 \"this.all(a, this.all(b, this.all(c, a + b + c < 1000000)))\"]; }";
    let pool = pool(proto);
    let numbers: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let json = format!("{{\"v\": [{}]}}", numbers.join(","));
    let told = check(&pool, "M", &json).expect_err("200^3 additions");
    assert_eq!(told.message, "could not be judged: the rule takes more than 1000000 steps");
}

#[test]
fn searching_a_long_text_again_and_again_is_stopped_too() {
    let proto = "message M { option (buf.validate.message).cel_expression = \
                 \"this.list.all(n, !this.text.contains('b'))\"; repeated int32 list = 1; string text = 2; }";
    let pool = pool(proto);
    let json = |items: usize| {
        let list = vec!["1"; items].join(",");
        format!("{{\"list\": [{list}], \"text\": \"{}\"}}", "a".repeat(64 << 10))
    };
    assert_eq!(broken(&pool, "M", &json(10)), "");
    let told = check(&pool, "M", &json(2000)).expect_err("2,000 searches of 64 KiB");
    assert_eq!(told.message, "could not be judged: the rule takes more than 1000000 steps");
}

#[test]
fn mapping_a_long_list_takes_time_in_proportion_to_it() {
    let proto = "message M { repeated int32 v = 1 [(buf.validate.field).cel_expression = \
                 \"this.map(a, a + 1).filter(a, a > 5).unique()\"]; }";
    let pool = pool(proto);
    let numbers: Vec<String> = (0..50_000).map(|number| number.to_string()).collect();
    assert_eq!(broken(&pool, "M", &format!("{{\"v\": [{}]}}", numbers.join(","))), "");
}

/// Each expression is a rule of a message with nothing set, and must hold.
#[test]
fn the_language_and_its_functions_mean_what_they_say() {
    let held = [
        "1 + 2 * 3 == 7 && 7 % 4 == 3 && 7 / 2 == 3 && -3 < 2",
        "1 == 1u && 1 < 1.5 && 2u > 1",
        "'a' + 'b' == 'ab' && b'a' + b'b' == b'ab' && [1] + [2] == [1, 2]",
        "'äb'.size() == 2 && size(b'äb') == 3 && size([1, 2]) == 2 && size({'a': 1}) == 1",
        "'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')",
        "b'abc'.contains(b'b') && b'abc'.startsWith(b'') && b'abc'.endsWith(b'c')",
        "'abc'.matches('^a.c$') && matches('abc', 'b') && !'abc'.matches('^b')",
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && 1 / 0 == 1)",
        "[0, 1].exists(x, 1 / x == 1) && ![1, 2].exists(x, x > 2)",
        "[1, 2].all(x, x > 0) && [1, 2].exists_one(x, x == 1)",
        "[1, 2, 3].filter(x, x > 1).map(x, x * 2) == [4, 6]",
        "[[1], [2, 3]].map(x, x.map(y, y + 1)) == [[2], [3, 4]]",
        "{'a': 1, 'b': 2}.all(k, k != 'c') && 'a' in {'a': 1} && {'a': 1}.a == 1 && has({'a': 1}.a)",
        "{1: 'x'}[1u] == 'x' && 1 in [1.0]",
        "int('12') == 12 && int(1.9) == 1 && int(3u) == 3 && uint('4') == 4u && double('1.5') == 1.5",
        "string(1) == '1' && string(true) == 'true' && string(b'a') == 'a' && bytes('a') == b'a' && bool('true')",
        "string(duration('1.5s')) == '1.5s' && string(timestamp('2026-01-02T03:04:05Z')) == '2026-01-02T03:04:05Z'",
        "duration('1h30m') == duration('90m') && duration('-1.5s') < duration('0') && duration('250ms').getMilliseconds() == 250",
        "timestamp('2026-01-02T03:04:05Z') + duration('1h') > timestamp('2026-01-02T04:04:04Z')",
        "timestamp('2024-02-29T23:59:58.5Z').getDate() == 29 && timestamp('2024-02-29T23:59:58Z').getMonth() == 1",
        "timestamp('2024-12-31T00:00:00Z').getDayOfYear() == 365 && timestamp('2024-12-31T00:00:00Z').getDayOfWeek() == 2",
        "timestamp('2024-12-31T23:30:00Z').getFullYear('+01:00') == 2025 && timestamp('2024-12-31T23:30:00Z').getHours('-00:30') == 23",
        "timestamp('1969-12-31T23:59:59Z').getSeconds() == 59 && int(timestamp('1970-01-01T00:00:10Z')) == 10",
        "now > timestamp('2020-01-01T00:00:00Z') && now == now",
        "(0.0 / 0.0).isNan() && (1.0 / 0.0).isInf() && (1.0 / 0.0).isInf(1) && !(1.0 / 0.0).isInf(-1)",
        "'a@b.c'.isEmail() && 'a.b'.isHostname() && '::1'.isIp() && '::1'.isIp(6) && !'::1'.isIp(4)",
        "'10.0.0.0/8'.isIpPrefix() && '10.0.0.1/8'.isIpPrefix(4) && !'10.0.0.1/8'.isIpPrefix(4, true) && !'10.0.0.1/8'.isIpPrefix(true)",
        "'a:b'.isUri() && '/a'.isUriRef() && 'a.b:80'.isHostAndPort(true) && 'a.b'.isHostAndPort(false)",
        "[1, 2].unique() && !['a', 'a'].unique() && ![b'a', b'a'].unique() && this.list.unique()",
        "'abc'.charAt(1) == 'b' && 'abc'.indexOf('c') == 2 && 'abcabc'.indexOf('a', 1) == 3 && 'abcabc'.lastIndexOf('a') == 3",
        "['a', 'b'].join('-') == 'a-b' && 'a-b'.split('-') == ['a', 'b'] && 'abc'.split('') == ['a', 'b', 'c'] && 'a-b-c'.split('-', 2) == ['a', 'b-c']",
        "'Ab'.lowerAscii() == 'ab' && 'Ab'.upperAscii() == 'AB' && ' a '.trim() == 'a' && 'abc'.reverse() == 'cba'",
        "'aaa'.replace('a', 'b') == 'bbb' && 'aaa'.replace('a', 'b', 2) == 'bba' && 'äbc'.substring(1) == 'bc' && 'abc'.substring(0, 2) == 'ab'",
        "'%s %d %.2f %x %%'.format(['a', 1, 1.5, 255]) == 'a 1 1.50 ff %' && '%s'.format([[1, 'a']]) == '[1, a]'",
        "test.Level.LEVEL_HIGH == 2 && this.level == test.Level.LEVEL_UNSPECIFIED",
        "!has(this.inner) && this.inner.name == '' && !has(this.inner.name) && this.wrapped == null && !has(this.wrapped)",
        "this.at == timestamp(0) && this.took == duration('0s') && size(this.list) == 0 && size(this.map) == 0",
        "dyn(1) == 1 && (true ? 'a' : 'b') == 'a'",
    ];
    let fields = "enum Level { LEVEL_UNSPECIFIED = 0; LEVEL_HIGH = 2; }\nmessage Inner { string name = 1; }\n";
    for expression in held {
        let pool = pool(&format!(
            "{fields}message M {{ option (buf.validate.message).cel_expression = \"{expression}\"; \
             Level level = 1; Inner inner = 2; google.protobuf.Int32Value wrapped = 3; google.protobuf.Timestamp at = 4; \
             google.protobuf.Duration took = 5; repeated int32 list = 6; map<string, int32> map = 7; }}"
        ));
        assert_eq!(broken(&pool, "M", "{}"), "", "{expression}");
    }
}
