//! The house rules that a machine can check: which module may import which, what the deciding modules must not touch,
//! sizes, names, and the promises of ARCHITECTURE.md. Every test lists all violations it finds, one a line.

#[path = "tidy/architecture.rs"]
mod architecture;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/purity.rs"]
mod purity;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/style.rs"]
mod style;

use source::{Source, repository_files, rust_sources};

/// Fails with every violation.
fn assert_clean(violations: &[String]) {
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

fn check_each(sources: &[Source], rule: impl Fn(&Source) -> Vec<String>) {
    let violations: Vec<String> = sources.iter().flat_map(rule).collect();
    assert_clean(&violations);
}

#[test]
fn modules_import_only_lower_layers() {
    check_each(&rust_sources("src"), layers::violations);
}

#[test]
fn the_layers_of_architecture_md_are_those() {
    assert_clean(&layers::different_rows(&architecture::text()));
}

#[test]
fn every_module_has_a_layer() {
    assert_clean(&layers::unknown_modules(&rust_sources("src")));
}

#[test]
fn deciding_modules_neither_wait_nor_guess() {
    check_each(&rust_sources("src"), purity::banned_words);
}

#[test]
fn deciding_modules_do_not_iterate_randomly_seeded_maps() {
    assert_clean(&purity::random_iterations(&rust_sources("src")));
}

#[test]
fn files_stay_small() {
    check_each(&style::all_rust(), style::too_long);
}

#[test]
fn files_say_what_they_are_for() {
    check_each(&style::all_rust(), style::without_module_comment);
}

#[test]
fn types_are_named_for_what_they_are() {
    check_each(&style::all_rust(), style::empty_type_names);
}

#[test]
fn matches_name_what_they_leave_alone() {
    check_each(&rust_sources("src"), style::silent_arms);
}

#[test]
fn the_repository_speaks_of_the_broker_alone() {
    let violations: Vec<String> = repository_files().iter().flat_map(|path| style::foreign_words(path)).collect();
    assert_clean(&violations);
}

#[test]
fn the_hot_path_of_architecture_md_exists() {
    assert_clean(&architecture::missing_hot_path(&architecture::text()));
}

#[test]
fn the_code_map_of_architecture_md_is_complete() {
    assert_clean(&architecture::unmapped_modules(&architecture::text()));
}

#[test]
fn the_paths_of_architecture_md_exist() {
    assert_clean(&architecture::dead_paths(&architecture::text()));
}
