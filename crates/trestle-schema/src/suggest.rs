//! The name that was probably meant.

/// Longest name looked at: what comes from outside may be a megabyte of garbage.
const NAME_BYTES_MAX: usize = 128;
/// Most letters that may differ.
const DISTANCE_MAX: usize = 3;

/// The name among `names` nearest to `wanted`, if one is near: the same letters in another case, the last part of a full
/// name, or at most three letters changed.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if wanted.is_empty() || wanted.len() > NAME_BYTES_MAX {
        return None;
    }
    // Short names differ in everything within three letters.
    let near_enough = DISTANCE_MAX.min(wanted.len() / 3);
    names
        .filter_map(|name| {
            let last = name.rsplit('.').next().unwrap_or(name);
            let distance = if name.eq_ignore_ascii_case(wanted) || last.eq_ignore_ascii_case(wanted) {
                0
            } else {
                distance(wanted.as_bytes(), name.as_bytes(), near_enough)?
            };
            Some((distance, name))
        })
        .min()
        .map(|(_, name)| name)
}

/// How many bytes must be changed, put in or taken out to make `b` of `a`; `None` if more than `most`.
fn distance(a: &[u8], b: &[u8], most: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(!x.eq_ignore_ascii_case(y));
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
        if row.iter().all(|&d| d > most) {
            return None;
        }
    }
    row.last().copied().filter(|&d| d <= most)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    const NAMES: [&str; 4] = ["ORDER_PAID", "USER_CREATED", "chat.v1.Comment", "shop.v1.OrderPaid"];

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        for (wanted, meant) in [
            ("ORDER_PIAD", "ORDER_PAID"),
            ("order_paid", "ORDER_PAID"),
            ("chat.v1.Coment", "chat.v1.Comment"),
            ("OrderPaid", "shop.v1.OrderPaid"),
            ("shop.v2.OrderPaid", "shop.v1.OrderPaid"),
        ] {
            assert_eq!(nearest(wanted, NAMES.into_iter()), Some(meant), "{wanted}");
        }
    }

    #[test]
    fn a_name_that_is_like_none_gets_no_guess() {
        for wanted in ["", "x", "INVOICE", "weather.v1.Report", &"ORDER_PAID".repeat(100_000)] {
            assert_eq!(nearest(wanted, NAMES.into_iter()), None);
        }
    }
}
