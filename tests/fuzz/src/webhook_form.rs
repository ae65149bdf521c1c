//! The form of a webhook: one line of URL, then the body.

use twilio::Secret;
use twilio::signature::{Validator, parse_form, sign};

/// Any form can be read; what was signed verifies in every order, what was changed does not.
pub(crate) fn run(data: &[u8]) {
    let cut = data.iter().position(|byte| *byte == b'\n').unwrap_or_default();
    let (url, body) = data.split_at(cut);
    let url = String::from_utf8_lossy(url);
    let mut form = parse_form(body);
    let token = || Secret::new("12345");
    let validator = Validator::new([token()]);
    let signature = sign(&token(), &url, &form);
    assert!(validator.verify(&url, &form, &signature).is_ok());
    form.reverse();
    assert!(validator.verify(&url, &form, &signature).is_ok());
    // Longer than what the validator itself may add to or take off a URL (a port, a slash).
    form.push(("AddedLater".to_owned(), "by nobody who knows the token".to_owned()));
    assert!(validator.verify(&url, &form, &signature).is_err());
    // Names and values are signed without anything between them, so this may verify; it must only end.
    let _ = validator.verify_upgrade(&url, &signature);
    let _ = validator.verify_body(&url, body, &String::from_utf8_lossy(body));
}
