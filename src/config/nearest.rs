//! The nearest valid name to one that does not exist.

/// The candidate that was most likely meant, or none that is near enough. Case does not count.
pub(crate) fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_ascii_lowercase();
    // One mistake in three characters is still a slip; more is another word.
    let most = (given.chars().count() / 3).max(1);
    let distances = candidates.into_iter().map(|candidate| {
        let name = candidate.to_ascii_lowercase();
        let distance = distance(&given, &name);
        let related = distance > most && part_of(&given, &name);
        (if related { most } else { distance }, candidate)
    });
    let best = distances.min_by_key(|(distance, _)| *distance)?;
    (best.0 <= most).then_some(best.1)
}

/// Whether one begins or ends the other: `queues` for `queues_per_vhost`.
fn part_of(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    short.len() >= 4 && (long.starts_with(short) || long.ends_with(short))
}

/// How many characters have to be changed, put in, left out or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, left) in one.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, right) in other.iter().enumerate() {
            let changed = last[column] + usize::from(left != right);
            let mut best = changed.min(last[column + 1] + 1).min(current[column] + 1);
            let swapped = row > 0 && column > 0 && *left == other[column - 1] && one[row - 1] == *right;
            if swapped {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (one, other, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("heartbeats", "heartbeat", 1),
            ("prot", "port", 1),
            ("json", "jsn", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn the_nearest_name_or_none() {
        let names = ["port", "heartbeat", "frame_max", "queues_per_vhost"];
        for (given, expected) in [
            ("heartbeats", Some("heartbeat")),
            ("Heartbeat", Some("heartbeat")),
            ("prot", Some("port")),
            ("max_frame", None),
            ("queues", Some("queues_per_vhost")),
            ("foo", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, names), expected, "{given}");
        }
        assert_eq!(nearest("port", []), None);
    }
}
