//! Errors as gRPC statuses with `google.rpc.BadRequest` details.
//!
//! A status travels in trailers, and clients give up on large ones (Python's default is 8 KiB for
//! all of them): both its text and its details are cut to fit.

use dash_model::Kind;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::SetError;

/// Bytes of the message. Non-ASCII characters take three times their length when sent.
const MESSAGE: usize = 1024;

/// Bytes of the details; base64 adds a third.
const DETAILS: usize = 2048;

/// The gRPC code of the model's class of errors.
pub fn code_of(kind: Kind) -> Code {
    match kind {
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::FailedPrecondition => Code::FailedPrecondition,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::AlreadyExists => Code::AlreadyExists,
    }
}

/// A status of `code` whose details name each place with its reason; `omitted` counts the errors
/// that `errors` does not hold.
pub fn status(
    code: Code,
    errors: impl IntoIterator<Item = (String, String)>,
    omitted: usize,
) -> Status {
    let mut errors = errors.into_iter();
    let Some((place, reason)) = errors.next() else {
        return Status::new(code, "");
    };
    let mut message = format!("{place}: {reason}");
    cut(&mut message, MESSAGE);
    let mut violations = Vec::new();
    let mut room = DETAILS;
    let mut count = 1;
    for (mut place, mut reason) in std::iter::once((place, reason)).chain(errors) {
        count += 1;
        if room == 0 {
            continue;
        }
        cut(&mut place, room / 2);
        cut(&mut reason, room / 2);
        room = room.saturating_sub(place.len() + reason.len() + 8);
        violations.push(FieldViolation::new(place, reason));
    }
    let more = count - 2 + omitted;
    if more > 0 {
        message.push_str(&format!(" (and {more} more)"));
    }
    Status::with_error_details(code, message, ErrorDetails::with_bad_request(violations))
}

/// Cuts a text at a character's border.
fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max.saturating_sub(3)));
        text.push_str("...");
    }
}

impl From<&SetError> for Status {
    fn from(error: &SetError) -> Self {
        let places = error
            .errors
            .iter()
            .map(|e| (format!("{} {}", e.place(), e.path), e.cause.to_string()));
        status(error.code(), places, error.omitted)
    }
}

impl From<SetError> for Status {
    fn from(error: SetError) -> Self {
        Self::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_name_each_place_and_reason() {
        let errors = [("update[0] /a", "bad"), ("update[7] /b", "worse")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()));
        let status = status(Code::FailedPrecondition, errors, 3);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "update[0] /a: bad (and 4 more)");
        let details = status.get_error_details();
        let found = &details.bad_request().unwrap().field_violations;
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].field, "update[7] /b");
        assert_eq!(found[1].description, "worse");
    }

    #[test]
    fn a_hundred_long_errors_fit_in_the_trailers_of_any_client() {
        let errors = (0..100).map(|n| (format!("update[{n}] /é"), "ü".repeat(10_000)));
        let status = status(Code::InvalidArgument, errors, 0);
        assert!(status.message().len() * 3 + status.details().len() * 4 / 3 < 8192);
        assert!(status.message().ends_with("(and 99 more)"));
    }
}
