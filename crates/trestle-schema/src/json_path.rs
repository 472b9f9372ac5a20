//! Paths of fields, in the names that clients use.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// `payload.` and a path of proto names within `message`, its names in lowerCamelCase: `order_lines[2].unit_price` becomes
/// `payload.orderLines[2].unitPrice`. From the first name that is no field on, the path stays as it is.
pub(crate) fn json_path(message: &MessageDescriptor, path: &str) -> String {
    let mut out = String::from("payload");
    let mut within = Some(message.clone());
    let mut rest = path;
    while !rest.is_empty() {
        let name = &rest[..rest.find(['.', '[']).unwrap_or(rest.len())];
        let field = within.as_ref().and_then(|message| message.get_field_by_name(name));
        let Some(field) = field else { return format!("{out}.{rest}") };
        out.push('.');
        out.push_str(field.json_name());
        rest = &rest[name.len()..];
        let subscript = subscript(rest);
        out.push_str(&rest[..subscript]);
        rest = &rest[subscript..];
        rest = rest.strip_prefix('.').unwrap_or(rest);
        within = value_message(&field);
    }
    out
}

/// Length of `[2]` or `["a]\"b"]` at the beginning; 0 if there is none.
fn subscript(rest: &str) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    if !rest.starts_with('[') {
        return 0;
    }
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ']' if !quoted => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The message in a field, or in a map's values.
fn value_message(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => value_message(&entry.map_entry_value_field()),
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::json_path;

    #[test]
    fn names_become_those_of_json_and_subscripts_stay() {
        let text = r#"
            syntax = "proto3";
            message Order { repeated Line order_lines = 1; map<string, Line> by_name = 2; oneof how_paid { bool in_cash = 3; } }
            message Line { int32 unit_price = 1; }
        "#;
        let file = protox::file::File::from_source("order.proto", text).expect("valid");
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_proto(file.file_descriptor_proto().clone()).expect("valid");
        let order = pool.get_message_by_name("Order").expect("there");
        for (path, expected) in [
            ("", "payload"),
            ("order_lines", "payload.orderLines"),
            ("order_lines[2].unit_price", "payload.orderLines[2].unitPrice"),
            (r#"by_name["a].\"b"].unit_price"#, r#"payload.byName["a].\"b"].unitPrice"#),
            ("how_paid", "payload.how_paid"),
            ("order_lines[0].not_there.x", "payload.orderLines[0].not_there.x"),
            ("by_name[", "payload.byName["),
        ] {
            assert_eq!(json_path(&order, path), expected);
        }
    }
}
