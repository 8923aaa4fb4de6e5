//! Verdicts are found again, and only those that are exactly about this.

use std::fs;
use std::path::{Path, PathBuf};

use dash_bpf::Object;
use dash_verify::{Counters, Options, Policy, Verifier};

use crate::support::{object, program};

fn two_programs() -> Object {
    let mut object = object("one", "r0 = 1\nexit");
    object.programs.push(program("two", "r0 = 2\nexit"));
    object
}

fn verifier(dir: &Path) -> Verifier {
    Verifier::new(Options {
        cache_dir: Some(dir.to_owned()),
        ..Options::default()
    })
}

fn counts(verified: u64, cache_hits_memory: u64, cache_hits_disk: u64) -> Counters {
    Counters {
        verified,
        cache_hits_memory,
        cache_hits_disk,
    }
}

/// Counters of a new verifier on this folder after one object.
fn fresh(dir: &Path, object: &Object) -> Counters {
    let mut verifier = verifier(dir);
    verifier.verify(object).expect("safe");
    verifier.counters()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .expect("cache folder")
        .map(|e| e.expect("entry").path())
        .collect();
    files.sort();
    files
}

#[test]
fn the_second_time_no_program_is_judged() {
    let mut verifier = Verifier::new(Options::default());
    let object = two_programs();
    assert_eq!(verifier.verify(&object).expect("safe").get(), &object);
    assert_eq!(verifier.counters(), counts(2, 0, 0));
    assert_eq!(*verifier.verify(&object).expect("safe"), object);
    assert_eq!(verifier.counters(), counts(2, 2, 0));
}

#[test]
fn refusals_are_remembered_with_their_reason() {
    let mut verifier = Verifier::new(Options::default());
    let object = object("leaky", "r0 = r10\nexit");
    let first = verifier.verify(&object).expect_err("leaks");
    assert_eq!(verifier.verify(&object), Err(first));
    assert_eq!(verifier.counters(), counts(1, 1, 0));
}

#[test]
fn verdicts_outlive_the_verifier_on_disk() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let object = two_programs();
    assert_eq!(fresh(dir.path(), &object), counts(2, 0, 0));
    assert_eq!(
        files(dir.path()).len(),
        2,
        "one file a verdict, nothing left beside"
    );
    assert_eq!(fresh(dir.path(), &object), counts(0, 0, 2));
}

#[test]
fn a_flipped_bit_anywhere_in_a_file_makes_it_no_verdict() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let object = object("one", "r0 = 1\nexit");
    fresh(dir.path(), &object);
    let file = files(dir.path()).pop().expect("one verdict");
    let whole = fs::read(&file).expect("readable");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&file, &damaged).expect("writable");
        assert_eq!(fresh(dir.path(), &object), counts(1, 0, 0), "byte {at}");
        assert_eq!(fs::read(&file).expect("readable"), whole, "written anew");
    }
    fs::write(&file, &whole[..whole.len() - 1]).expect("writable");
    assert_eq!(fresh(dir.path(), &object), counts(1, 0, 0), "cut short");
}

#[test]
fn a_verdict_under_another_name_is_none() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (one, two) = (object("one", "r0 = 1\nexit"), object("two", "r0 = 2\nexit"));
    fresh(dir.path(), &one);
    let of_one = files(dir.path()).pop().expect("one verdict");
    fresh(dir.path(), &two);
    let of_two = files(dir.path())
        .into_iter()
        .find(|f| *f != of_one)
        .expect("another");
    fs::copy(&of_one, &of_two).expect("writable");
    assert_eq!(fresh(dir.path(), &two), counts(1, 0, 0));
}

#[test]
fn code_maps_and_policy_each_make_another_verdict() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let base = object("base", "r0 = 1\nexit");
    fresh(dir.path(), &base);

    let mut renamed = base.clone();
    renamed.programs[0].name = "other".to_owned();
    renamed.maps[0].name = "other".to_owned();
    assert_eq!(
        fresh(dir.path(), &renamed),
        counts(0, 0, 1),
        "names prove nothing"
    );

    let mut code = base.clone();
    code.programs[0].insns[0].imm = 3;
    assert_eq!(fresh(dir.path(), &code), counts(1, 0, 0), "code");

    let mut maps = base.clone();
    maps.maps[0].value_size += 8;
    assert_eq!(fresh(dir.path(), &maps), counts(1, 0, 0), "map definition");

    let mut maps = base.clone();
    maps.maps[12].contents[3] = b'1';
    assert_eq!(fresh(dir.path(), &maps), counts(1, 0, 0), "constants");
    let mut maps = base.clone();
    let inner = maps.maps[9].inner.as_mut().expect("a map of maps");
    inner.template.value_size += 8;
    assert_eq!(fresh(dir.path(), &maps), counts(1, 0, 0), "maps in a map");

    let policy = Policy {
        check_termination: false,
        ..Policy::default()
    };
    let options = Options {
        cache_dir: Some(dir.path().to_owned()),
        policy,
    };
    let mut lax = Verifier::new(options);
    lax.verify(&base).expect("safe");
    assert_eq!(lax.counters(), counts(1, 0, 0), "policy");
}

#[test]
fn refusals_are_not_kept_on_disk() {
    let dir = tempfile::tempdir().expect("temporary folder");
    verifier(dir.path())
        .verify(&object("leaky", "r0 = r10\nexit"))
        .expect_err("leaks");
    assert!(!dir.path().exists() || files(dir.path()).is_empty());
}

#[test]
fn a_folder_that_cannot_be_written_costs_only_the_verdicts() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let not_a_folder = dir.path().join("file");
    fs::write(&not_a_folder, b"").expect("writable");
    let object = object("one", "r0 = 1\nexit");
    assert_eq!(fresh(&not_a_folder, &object), counts(1, 0, 0));
    assert_eq!(fresh(&not_a_folder, &object), counts(1, 0, 0));
}
