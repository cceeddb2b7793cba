//! What an import did, kind by kind: made, changed, unchanged, skipped and why.

use serde_json::{Map, Value, json};

/// The lists of a document, in the order of a report.
pub(super) const KINDS: [&str; 10] = [
    "vhosts",
    "users",
    "permissions",
    "topic_permissions",
    "global_parameters",
    "parameters",
    "policies",
    "exchanges",
    "queues",
    "bindings",
];

/// Lines about things that were skipped, for the log; the report has them all.
const LOGGED_MAX: usize = 200;

/// What became of one definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Made,
    Changed,
    Unchanged,
    /// Why.
    Skipped(String),
    /// Why nobody misses it here: it is skipped, and that is no loss.
    Needless(String),
}

/// Something that is said of one definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) name: String,
    pub(super) reason: String,
}

/// What became of the definitions of one kind.
#[derive(Debug, Default)]
struct Outcomes {
    made: Vec<String>,
    changed: Vec<String>,
    unchanged: u64,
    skipped: Vec<Remark>,
    /// Skipped as well, and no loss.
    needless: Vec<Remark>,
    /// Of what is there, the parts that were left out.
    partly: Vec<Remark>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Report {
    /// Nothing was changed: it says what an import would do.
    dry_run: bool,
    kinds: [Outcomes; KINDS.len()],
}

impl Report {
    pub(super) fn new(dry_run: bool) -> Self {
        Self { dry_run, ..Self::default() }
    }

    /// Adds what became of the definition of this name.
    pub(super) fn add(&mut self, kind: &str, name: String, outcome: Outcome) {
        let kind = self.kind(kind);
        match outcome {
            Outcome::Made => kind.made.push(name),
            Outcome::Changed => kind.changed.push(name),
            Outcome::Unchanged => kind.unchanged += 1,
            Outcome::Skipped(reason) => kind.skipped.push(Remark { name, reason }),
            Outcome::Needless(reason) => kind.needless.push(Remark { name, reason }),
        }
    }

    /// Adds that a part of a definition was left out.
    pub(super) fn add_part(&mut self, kind: &str, remark: Remark) {
        self.kind(kind).partly.push(remark);
    }

    fn kind(&mut self, kind: &str) -> &mut Outcomes {
        let at = KINDS.iter().position(|known| *known == kind).expect("an item is of a kind of definition");
        &mut self.kinds[at]
    }

    fn present(&self) -> impl Iterator<Item = (&'static str, &Outcomes)> {
        KINDS.into_iter().zip(&self.kinds).filter(|(_, kind)| {
            let lists = [kind.made.len(), kind.changed.len(), kind.skipped.len(), kind.needless.len()];
            kind.unchanged > 0 || lists.iter().any(|length| *length > 0)
        })
    }

    /// The sums: made, changed, unchanged, skipped.
    fn totals(&self) -> [u64; 4] {
        let mut totals = [0; 4];
        for kind in &self.kinds {
            let counts = [kind.made.len() as u64, kind.changed.len() as u64, kind.unchanged, kind.skipped.len() as u64];
            totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        }
        totals
    }

    /// The sums in a line.
    pub(super) fn summary(&self) -> String {
        let [made, changed, unchanged, skipped] = self.totals();
        format!("made={made}, changed={changed}, unchanged={unchanged}, skipped={skipped}")
    }

    /// As the API answers it.
    pub(super) fn document(&self) -> Value {
        let remarks = |remarks: &[Remark]| -> Value {
            remarks.iter().map(|remark| json!({"name": remark.name, "reason": remark.reason})).collect()
        };
        let kinds: Map<String, Value> = self
            .present()
            .map(|(name, kind)| {
                let mut document = json!({
                    "made": kind.made, "changed": kind.changed, "unchanged": kind.unchanged,
                    "skipped": remarks(&kind.skipped), "partly": remarks(&kind.partly),
                });
                if !kind.needless.is_empty() {
                    document["needless"] = remarks(&kind.needless);
                }
                (name.to_owned(), document)
            })
            .collect();
        let [made, changed, unchanged, skipped] = self.totals();
        json!({
            "dry_run": self.dry_run, "made": made, "changed": changed, "unchanged": unchanged, "skipped": skipped,
            "kinds": kinds,
        })
    }

    /// Writes it to the log; `from` is where the definitions came from.
    pub fn log(&self, from: &str) {
        for (name, kind) in self.present() {
            let name = name.replace('_', " ");
            tracing::info!(
                from,
                "import of definitions: {name}: {} made, {} changed, {} unchanged, {} skipped",
                kind.made.len(),
                kind.changed.len(),
                kind.unchanged,
                kind.skipped.len()
            );
            for remark in kind.needless.iter().take(LOGGED_MAX) {
                tracing::info!(from, "import of definitions: not needed {}: {}", remark.name, remark.reason);
            }
            for (word, remarks) in [("skipped", &kind.skipped), ("partly", &kind.partly)] {
                for remark in remarks.iter().take(LOGGED_MAX) {
                    tracing::warn!(from, "import of definitions: {word} {}: {}", remark.name, remark.reason);
                }
                if remarks.len() > LOGGED_MAX {
                    tracing::warn!(from, "import of definitions: {word} {} more {name}", remarks.len() - LOGGED_MAX);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_what_it_was_told() {
        let mut report = Report::new(true);
        report.add("queues", "queue 'a'".to_owned(), Outcome::Made);
        report.add("queues", "queue 'b'".to_owned(), Outcome::Skipped("why".to_owned()));
        report.add("vhosts", "vhost 'v'".to_owned(), Outcome::Unchanged);
        report.add_part("policies", Remark { name: "policy 'p'".to_owned(), reason: "key".to_owned() });
        report.add("policies", "policy 'p'".to_owned(), Outcome::Changed);
        report.add("global_parameters", "global parameter 'i'".to_owned(), Outcome::Needless("own".to_owned()));
        assert_eq!(report.summary(), "made=1, changed=1, unchanged=1, skipped=1");
        let document = report.document();
        assert_eq!(document["kinds"]["queues"]["made"], json!(["queue 'a'"]));
        assert_eq!(document["kinds"]["queues"]["skipped"], json!([{"name": "queue 'b'", "reason": "why"}]));
        assert_eq!(document["kinds"]["policies"]["partly"], json!([{"name": "policy 'p'", "reason": "key"}]));
        assert_eq!(document["kinds"].as_object().map(Map::len), Some(4));
        assert_eq!(document["kinds"]["global_parameters"]["needless"][0]["reason"], "own");
        assert_eq!((&document["dry_run"], &document["made"]), (&json!(true), &json!(1)));
    }
}
