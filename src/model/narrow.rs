//! Numbers in a smaller type, where something else bounds them. Never for a number that a peer or a file names: there it is
//! an error.

/// The number in the smaller type. `why` says what bounds it; if it does not fit, that promise is broken, and the node
/// stops rather than write another number.
#[inline]
#[track_caller]
pub fn narrow<T, U: TryFrom<T>>(value: T, why: &str) -> U {
    let Ok(narrowed) = U::try_from(value) else { panic!("a number is larger than can be: {why}") };
    narrowed
}

#[cfg(test)]
mod tests {
    use super::narrow;

    #[test]
    fn what_fits_is_kept() {
        assert_eq!(narrow::<usize, u8>(255, "a short string"), 255);
    }

    #[test]
    #[should_panic(expected = "larger than can be: a short string")]
    fn what_does_not_fit_stops_the_node() {
        let _: u8 = narrow(256_usize, "a short string");
    }
}
