//! Lists: filtered by name, sorted, cut into pages, and reduced to columns; as the query asks.
//!
//! Things are rendered as late as can be: when the order follows from their names, only those of the page are.

use std::cmp::Ordering;

use fancy_regex::RegexBuilder;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Failure};
use super::call::Query;

const PAGE_SIZE_DEFAULT: u64 = 100;
const PAGE_SIZE_MAX: u64 = 500;
/// Steps that a name's regular expression may take before it counts as no match.
const BACKTRACKS_MAX: usize = 10_000;

/// A page that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    number: u64,
    size: u64,
}

/// A list of things that are in their default order.
pub(crate) struct Listing<T> {
    pub items: Vec<T>,
    /// The name that a filter looks at.
    pub name: fn(&T) -> &str,
}

impl<T> Listing<T> {
    /// The list as the query wants it, as JSON.
    pub(crate) fn answer(self, query: &Query, mut render: impl FnMut(&T) -> Value) -> Result<Answer, Failure> {
        let page = page_of(query)?;
        let columns = Columns::of(query);
        let total = self.items.len();
        let mut items = self.items;
        if page.is_some()
            && let Some(filter) = Filter::of(query)
        {
            items.retain(|item| filter.matches((self.name)(item)));
        }
        let filtered = items.len();
        let sort = query.get("sort").filter(|sort| !sort.is_empty());
        let reverse = query.is_true("sort_reverse");
        let Some(sort) = sort else {
            if reverse {
                items.reverse();
            }
            let range = range_of(page, filtered)?;
            let shown: Vec<Value> = items[range].iter().map(|item| columns.reduce(render(item))).collect();
            return Ok(finish(page, total, filtered, shown));
        };
        let mut rendered: Vec<Value> = items.iter().map(render).collect();
        rendered.sort_by(|a, b| compare(at_path(a, sort), at_path(b, sort)));
        if reverse {
            rendered.reverse();
        }
        let range = range_of(page, filtered)?;
        let shown = rendered.drain(range).map(|item| columns.reduce(item)).collect();
        Ok(finish(page, total, filtered, shown))
    }
}

/// A list of JSON objects as the query wants it.
pub(crate) fn answer(items: Vec<Value>, query: &Query) -> Result<Answer, Failure> {
    Listing { items, name: name_of }.answer(query, Value::clone)
}

fn name_of(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// One object, reduced to the columns that the query asks for.
#[must_use]
pub(crate) fn one(item: Value, query: &Query) -> Answer {
    Answer::json(Columns::of(query).reduce(item))
}

fn finish(page: Option<Page>, total: usize, filtered: usize, items: Vec<Value>) -> Answer {
    let Some(page) = page else { return Answer::json(Value::Array(items)) };
    Answer::json(json!({
        "filtered_count": filtered,
        "item_count": items.len(),
        "items": items,
        "page": page.number,
        "page_count": (filtered as u64).div_ceil(page.size),
        "page_size": page.size,
        "total_count": total,
    }))
}

fn page_of(query: &Query) -> Result<Option<Page>, Failure> {
    let Some(number) = query.get("page") else { return Ok(None) };
    let invalid = || Failure::bad_request("Pagination parameters are invalid");
    let number: i64 = number.parse().map_err(|_| invalid())?;
    let size: Option<i64> = query.get("page_size").map(str::parse).transpose().map_err(|_| invalid())?;
    let refuse = || {
        let size = size.map_or_else(|| "undefined".to_owned(), |size| size.to_string());
        let reason = format!("Invalid pagination parameters: page number {number}, page size {size}");
        Failure::refused("invalid_pagination_parameters", reason)
    };
    let number = u64::try_from(number).ok().filter(|number| *number > 0).ok_or_else(refuse)?;
    let size = match size {
        None => PAGE_SIZE_DEFAULT,
        Some(size) => u64::try_from(size).ok().filter(|size| (1..=PAGE_SIZE_MAX).contains(size)).ok_or_else(refuse)?,
    };
    Ok(Some(Page { number, size }))
}

fn range_of(page: Option<Page>, length: usize) -> Result<std::ops::Range<usize>, Failure> {
    let Some(Page { number, size }) = page else { return Ok(0..length) };
    let start = usize::try_from((number - 1).saturating_mul(size)).unwrap_or(usize::MAX);
    if start > 0 && start >= length {
        let reason = format!("Page out of range, page: {number} page size: {size}, len: {length}");
        return Err(Failure::refused("page_out_of_range", reason));
    }
    Ok(start..length.min(start + usize::try_from(size).unwrap_or(usize::MAX)))
}

/// What a name has to be like.
enum Filter {
    /// In lower case.
    Contains(String),
    Regex(Box<fancy_regex::Regex>),
    Nothing,
}

impl Filter {
    fn of(query: &Query) -> Option<Self> {
        let name = query.get("name").filter(|name| !name.is_empty())?;
        if !query.is_true("use_regex") {
            return Some(Self::Contains(name.to_lowercase()));
        }
        let regex = RegexBuilder::new(&format!("(?i){name}")).backtrack_limit(BACKTRACKS_MAX).build();
        Some(regex.map_or(Self::Nothing, |regex| Self::Regex(Box::new(regex))))
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Contains(part) => name.to_lowercase().contains(part.as_str()),
            Self::Regex(regex) => regex.is_match(name).unwrap_or(false),
            Self::Nothing => false,
        }
    }
}

/// The columns that are asked for: dotted paths; none means all.
struct Columns(Vec<Vec<String>>);

impl Columns {
    fn of(query: &Query) -> Self {
        let columns = query.get("columns").unwrap_or_default();
        let paths = columns.split(',').filter(|path| !path.is_empty());
        Self(paths.map(|path| path.split('.').map(str::to_owned).collect()).collect())
    }

    fn reduce(&self, item: Value) -> Value {
        if self.0.is_empty() {
            return item;
        }
        let mut reduced = Map::new();
        for path in &self.0 {
            copy_path(&item, path, &mut reduced);
        }
        Value::Object(reduced)
    }
}

fn copy_path(from: &Value, path: &[String], into: &mut Map<String, Value>) {
    let Some((first, rest)) = path.split_first() else { return };
    let Some(value) = from.get(first) else { return };
    if rest.is_empty() {
        into.insert(first.clone(), value.clone());
        return;
    }
    let inner = into.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(inner) = inner {
        copy_path(value, rest, inner);
    }
}

fn at_path<'a>(item: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(item, |value, key| value.get(key))
}

/// Missing values count as 0; numbers come before texts.
fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    const ZERO: Value = Value::Null;
    let (a, b) = (a.unwrap_or(&ZERO), b.unwrap_or(&ZERO));
    let number = |value: &Value| match value {
        Value::Null => Some(0.0),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        value => value.as_f64(),
    };
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => a.to_string().cmp(&b.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::Content;
    use super::*;

    fn listed(query: &str) -> Result<Value, String> {
        let items = (1..=250).map(|n| json!({"name": format!("q{n:03}"), "n": n, "deep": {"x": 250 - n}})).collect();
        match answer(items, &Query::parse(query)) {
            Ok(Answer { content: Content::Json(value), .. }) => Ok(value),
            Ok(other) => panic!("{other:?}"),
            Err(failure) => match failure.into_answer().content {
                Content::Json(value) => Err(value["reason"].as_str().unwrap_or_default().to_owned()),
                other => panic!("{other:?}"),
            },
        }
    }

    #[test]
    fn pages_and_filters_count_as_rabbitmq_does() {
        assert_eq!(listed("").unwrap().as_array().unwrap().len(), 250);
        let page = listed("page=2&page_size=100&pagination=true").unwrap();
        assert_eq!(page["items"][0]["name"], "q101");
        let counts = ["total_count", "filtered_count", "item_count", "page_count"].map(|key| page[key].clone());
        assert_eq!(counts, [250, 250, 100, 3].map(Value::from));
        let page = listed("page=1&name=Q24").unwrap();
        assert_eq!((&page["filtered_count"], &page["total_count"]), (&10.into(), &250.into()));
        assert_eq!(listed("page=1&name=^q.*9$&use_regex=true").unwrap()["filtered_count"], 25);
        assert_eq!(listed("page=1&name=(&use_regex=true").unwrap()["filtered_count"], 0);
        assert_eq!(listed("name=q24").unwrap().as_array().unwrap().len(), 250, "filters act on pages only");
        assert_eq!(listed("page=1&name=none").unwrap()["page_count"], 0);
    }

    #[test]
    fn wrong_pages_are_refused_in_rabbitmqs_words() {
        assert_eq!(listed("page=abc").unwrap_err(), "Pagination parameters are invalid");
        let text = "Invalid pagination parameters: page number 0, page size undefined";
        assert_eq!(listed("page=0").unwrap_err(), text);
        let text = "Invalid pagination parameters: page number 1, page size 501";
        assert_eq!(listed("page=1&page_size=501").unwrap_err(), text);
        let text = "Page out of range, page: 99 page size: 10, len: 250";
        assert_eq!(listed("page=99&page_size=10").unwrap_err(), text);
    }

    #[test]
    fn lists_are_sorted_by_any_column_and_reduced_to_some() {
        let sorted = listed("sort=deep.x&columns=name,deep.x,bogus").unwrap();
        assert_eq!(sorted[0], json!({"name": "q250", "deep": {"x": 0}}));
        assert_eq!(listed("sort=n&sort_reverse=true&page=1&page_size=1").unwrap()["items"][0]["n"], 250);
        assert_eq!(listed("sort=bogus").unwrap()[0]["name"], "q001", "unknown columns keep the order");
    }
}
