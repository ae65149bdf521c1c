//! Vectors made with Twilio's Python and Node helper libraries; the first also stands in Twilio's documentation.

use super::*;

const TOKEN: &str = "12345";

fn validator() -> Validator {
    Validator::new([Secret::new(TOKEN)])
}

fn parameters(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn documented() -> Vec<(String, String)> {
    parameters(&[
        ("CallSid", "CA1234567890ABCDE"),
        ("Caller", "+14158675310"),
        ("Digits", "1234"),
        ("From", "+14158675310"),
        ("To", "+18005551212"),
    ])
}

#[test]
fn the_published_vectors_are_signed_and_verified() {
    let call = parameters(&[("CallSid", "CA1")]);
    let duplicates = parameters(&[
        ("Sid", "CA123"),
        ("SidAccount", "AC123"),
        ("Digits", "5678"),
        ("Digits", "1234"),
        ("Digits", "1234"),
        ("digits", "8"),
    ]);
    let unicode = parameters(&[
        ("CallSid", "CA0123456789abcdef0123456789abcdef"),
        ("CallerName", "Zoë Müller"),
        ("From", "+4915112345678"),
        ("SpeechResult", "Grüße aus München, 東京 ☎"),
        ("To", "+498912345678"),
    ]);
    let blanks =
        parameters(&[("CallerName", ""), ("Caller", " 12 34 "), ("Called", "+1 (415)"), ("x", "&=")]);
    let get = "https://example.com/voice?CallSid=CA1&From=%2B14158675310&To=%2B18005551212";
    let vectors = [
        ("https://example.com/myapp.php?foo=1&bar=2", documented(), "L/OH5YylLD5NRKLltdqwSvS0BnU="),
        ("https://example.com/voice", duplicates, "G+W7JeKUljxjTtCUnO63Z8jEg48="),
        ("https://example.com/voice", unicode, "NW8Xn2xreJuW/iGmg+Tw0VmHg0Y="),
        (get, Vec::new(), "XBPTuVVwGkGT6+MJra70LUCcF7Q="),
        ("https://example.com/voice", call.clone(), "7kudyaTQh+NyYH/ui/OOeke6ryw="),
        ("https://example.com:443/voice", call.clone(), "7VijVDHsP1z6B3VOCq3ax1HFxso="),
        ("https://example.com:8443/voice", call.clone(), "zpYuQX8EuwqMtOuoFJMXyrJ+OPU="),
        ("https://EXAMPLE.com/voice", call, "ic1f23vVRDUd0KxShwnA1KIz/FQ="),
        ("wss://example.com/media", Vec::new(), "7PR3qMkpDyEJtMrVOY/LDyNq8J8="),
        ("wss://example.com/media/", Vec::new(), "T+WBXwUXC0/CyoZ1DA+p9ilZORs="),
        ("wss://example.com:443/media", Vec::new(), "zyyJQiPZXIGCLy3HYdHEfry0yDg="),
        ("wss://example.com:80/media", Vec::new(), "bTK2p3+LS6H4a5yPQ8BcEFK6RPI="),
        ("https://example.com/media", Vec::new(), "6HZQ7Cq/dSYDCAiy3qRA6PZfACI="),
        ("https://example.com/voice", blanks, "Nx2ES9dZW2dJ9cxc2LeJt7pMRI0="),
    ];
    for (url, parameters, signature) in vectors {
        assert_eq!(sign(&Secret::new(TOKEN), url, &parameters), signature, "{url}");
        assert_eq!(validator().verify(url, &parameters, signature), Ok(()), "{url}");
    }
}

#[test]
fn the_signed_text_sorts_names_by_byte_and_joins_without_separators() {
    let blanks =
        parameters(&[("CallerName", ""), ("Caller", " 12 34 "), ("Called", "+1 (415)"), ("x", "&=")]);
    assert_eq!(
        signed_text("https://example.com/voice", &blanks),
        "https://example.com/voiceCalled+1 (415)Caller 12 34 CallerNamex&="
    );
}

#[test]
fn an_url_with_and_without_its_port_verify_as_in_the_helper_libraries() {
    let call = parameters(&[("CallSid", "CA1")]);
    let signatures =
        ["7kudyaTQh+NyYH/ui/OOeke6ryw=", "7VijVDHsP1z6B3VOCq3ax1HFxso=", "zpYuQX8EuwqMtOuoFJMXyrJ+OPU="];
    let accepted = |url: &str| signatures.map(|signature| validator().verify(url, &call, signature).is_ok());
    assert_eq!(accepted("https://example.com/voice"), [true, true, false]);
    assert_eq!(accepted("https://example.com:443/voice"), [true, true, false]);
    assert_eq!(accepted("https://example.com:8443/voice"), [true, false, true]);
}

#[test]
fn an_upgrade_verifies_over_wss_with_or_without_slash_and_port_but_not_over_https() {
    let url = "wss://example.com/media";
    let port_and_slash = sign(&Secret::new(TOKEN), "wss://example.com:443/media/", &[]);
    let accepted = [
        "7PR3qMkpDyEJtMrVOY/LDyNq8J8=",
        "T+WBXwUXC0/CyoZ1DA+p9ilZORs=",
        "zyyJQiPZXIGCLy3HYdHEfry0yDg=",
        "bTK2p3+LS6H4a5yPQ8BcEFK6RPI=",
        port_and_slash.as_str(),
    ];
    for signature in accepted {
        assert_eq!(validator().verify_upgrade(url, signature), Ok(()), "{signature}");
    }
    assert_eq!(validator().verify_upgrade(url, "6HZQ7Cq/dSYDCAiy3qRA6PZfACI="), Err(SignatureMismatch));
}

#[test]
fn a_json_body_verifies_by_its_hash_in_the_signed_url() {
    let url = "https://example.com/myapp?bodySHA256=5ccde7145dfb8f56479710896586cb9d5911809d83afbe34627818790db0aec9";
    let body = br#"{"CallSid":"CA1234567890ABCDE","Caller":"+12349013030"}"#;
    let signature = "hPXmLwIy3Fgqv1i9KPmH/HhQ6zo=";
    assert_eq!(validator().verify_body(url, body, signature), Ok(()));
    assert_eq!(validator().verify_body(url, b"{}", signature), Err(SignatureMismatch));
    assert_eq!(validator().verify_body("https://example.com/myapp", body, signature), Err(SignatureMismatch));
}

#[test]
fn anything_changed_is_refused() {
    let url = "https://example.com/myapp.php?foo=1&bar=2";
    let signature = "L/OH5YylLD5NRKLltdqwSvS0BnU=";
    let mut added = documented();
    added.push(("New".to_owned(), String::new()));
    let refused = [
        validator().verify("https://example.com/myapp.php?foo=1", &documented(), signature),
        validator().verify("https://example.org/myapp.php?foo=1&bar=2", &documented(), signature),
        validator().verify(url, &documented()[1..], signature),
        validator().verify(url, &added, signature),
        validator().verify(url, &documented(), ""),
        validator().verify(url, &documented(), &signature[..27]),
        validator().verify(url, &documented(), "L/OH5YylLD5NRKLltdqwSvS0BnV="),
        Validator::new([Secret::new("54321")]).verify(url, &documented(), signature),
        Validator::new([]).verify(url, &documented(), signature),
    ];
    assert_eq!(refused, [Err(SignatureMismatch); 9]);
}

#[test]
fn an_empty_auth_token_verifies_nothing() {
    let forged = sign(&Secret::new(""), "https://example.com/voice", &[]);
    assert!(Validator::new([Secret::new("")]).verify("https://example.com/voice", &[], &forged).is_err());
}

#[test]
fn during_a_rotation_either_token_verifies() {
    let rotation = Validator::new([Secret::new("new"), Secret::new(TOKEN)]);
    let url = "https://example.com/voice";
    for token in ["new", TOKEN] {
        let signature = sign(&Secret::new(token), url, &[]);
        assert_eq!(rotation.verify(url, &[], &signature), Ok(()));
    }
}

#[test]
fn fragment_and_user_info_are_not_signed() {
    let call = parameters(&[("CallSid", "CA1")]);
    for url in ["https://example.com/voice#ct=5000&rc=1", "https://user:pass@example.com/voice"] {
        assert_eq!(sign(&Secret::new(TOKEN), url, &call), "7kudyaTQh+NyYH/ui/OOeke6ryw=");
    }
}

#[test]
fn odd_urls_have_their_variants_without_a_panic() {
    for url in ["", "://", "https://", "https://[::1]/x", "https://[::1]:8443/x", "not an url", "wss://h?q#f"]
    {
        assert_eq!(port_variants(url)[0], url);
        assert!(validator().verify_upgrade(url, "x").is_err());
    }
    assert_eq!(port_variants("https://[::1]:8443/x")[1], "https://[::1]/x");
    assert_eq!(port_variants("https://[::1]/x")[1], "https://[::1]:443/x");
}

#[test]
fn a_form_is_decoded_with_plus_percent_and_repeated_names() {
    assert_eq!(
        parse_form(b"From=%2B1415&Name=a+b%20c&x=1&x=2&empty=&bare"),
        parameters(&[
            ("From", "+1415"),
            ("Name", "a b c"),
            ("x", "1"),
            ("x", "2"),
            ("empty", ""),
            ("bare", "")
        ])
    );
}

proptest::proptest! {
    #[test]
    fn what_was_signed_verifies_in_any_order_and_nothing_else_does(
        mut form in proptest::collection::vec((".{0,12}", ".{0,12}"), 0..8),
        query in "[a-z=&%]{0,8}",
        extra in "[a-z]{1,8}",
    ) {
        let url = format!("https://example.com/voice?{query}");
        let signature = sign(&Secret::new(TOKEN), &url, &form);
        form.reverse();
        proptest::prop_assert_eq!(validator().verify(&url, &form, &signature), Ok(()));
        form.push((extra.clone(), extra));
        let is_new = form[..form.len() - 1].iter().all(|pair| *pair != form[form.len() - 1]);
        if is_new {
            proptest::prop_assert!(validator().verify(&url, &form, &signature).is_err());
        }
    }

    #[test]
    fn no_url_or_signature_makes_it_panic(url in "\\PC{0,40}", signature in "\\PC{0,40}", body in ".{0,60}") {
        let form = parse_form(body.as_bytes());
        proptest::prop_assert!(validator().verify(&url, &form, &signature).is_err());
        proptest::prop_assert!(validator().verify_upgrade(&url, &signature).is_err());
        proptest::prop_assert!(validator().verify_body(&url, body.as_bytes(), &signature).is_err());
    }
}
