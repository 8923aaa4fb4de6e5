//! Objects that are inconsistent before any program is looked at.

use dash_bpf::program::TailCalls;
use dash_bpf::{MapKind, Object, ProgramKind};
use dash_verify::{ObjectRule, Options, Reason, Verifier, VerifyError};

use crate::support::{HASH, PROGRAMS, object};

fn verify(object: &Object) -> Result<(), VerifyError> {
    Verifier::new(Options::default()).verify(object).map(|_| ())
}

fn fine() -> Object {
    object("fine", "r0 = 2\nexit")
}

#[test]
fn an_object_without_programs_is_refused() {
    let refused = verify(&Object::default());
    assert_eq!(refused, Err(VerifyError::Object(ObjectRule::NoProgram)));
}

#[test]
fn what_maps_hold_must_be_maps() {
    let with = |change: fn(&mut dash_bpf::MapDef)| {
        let mut object = fine();
        let inner = object.maps[9].inner.as_mut().expect("a map of maps");
        change(&mut inner.template);
        verify(&object)
    };
    assert_eq!(with(|_| ()), Ok(()));
    let refused = |why| {
        let name = "outer".to_owned();
        let index = 9;
        Err(VerifyError::Object(ObjectRule::Map { index, name, why }))
    };
    assert_eq!(
        with(|map| map.max_entries = 0),
        refused("what it holds is no map")
    );
    assert_eq!(
        with(|map| map.kind = MapKind::HashOfMaps),
        refused("a map of maps in a map of maps")
    );
}

#[test]
fn tail_call_contents_must_fit_their_map() {
    let with = |map, programs| {
        let mut object = fine();
        object.tail_calls.push(TailCalls { map, programs });
        verify(&object)
    };
    let refused = |map, why| Err(VerifyError::Object(ObjectRule::TailCalls { map, why }));
    assert_eq!(with(PROGRAMS, vec![None, Some(0)]), Ok(()));
    assert_eq!(
        with(PROGRAMS, vec![Some(1)]),
        refused(PROGRAMS, "no such program")
    );
    assert_eq!(
        with(PROGRAMS, vec![None; 5]),
        refused(PROGRAMS, "more programs than slots")
    );
    assert_eq!(with(HASH, vec![]), refused(HASH, "not a program array"));
    assert_eq!(with(77, vec![]), refused(77, "no such map"));
}

#[test]
fn maps_must_make_sense() {
    let with = |kind, key_size, value_size, max_entries| {
        let mut object = fine();
        let map = &mut object.maps[0];
        (map.kind, map.key_size, map.value_size, map.max_entries) =
            (kind, key_size, value_size, max_entries);
        verify(&object)
    };
    assert_eq!(with(MapKind::Hash, 1, 1, 1), Ok(()));
    for (kind, key, value, entries) in [
        (MapKind::Hash, 4, 4, 0),
        (MapKind::Hash, 0, 4, 1),
        (MapKind::Hash, 4, 0, 1),
        (MapKind::Hash, u32::MAX, 4, 1),
        (MapKind::Hash, 4, u32::MAX, 1),
        (MapKind::Array, 8, 4, 1),
        (MapKind::Queue, 4, 4, 1),
        (MapKind::LpmTrie, 4, 4, 1),
    ] {
        let refused = with(kind, key, value, entries);
        assert!(
            matches!(
                refused,
                Err(VerifyError::Object(ObjectRule::Map { index: 0, .. }))
            ),
            "{kind:?} {key} {value} {entries}: {refused:?}"
        );
    }
}

#[test]
fn bare_programs_have_nothing_to_be_verified_against() {
    let mut object = fine();
    object.programs[0].kind = ProgramKind::Raw;
    let refused = verify(&object).expect_err("no context, no helpers");
    assert!(matches!(
        refused,
        VerifyError::Program {
            reason: Reason::Kind,
            ..
        }
    ));
}
